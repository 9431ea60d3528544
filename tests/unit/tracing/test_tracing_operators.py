"""What one operator does and moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pytest_hfaccel.tracing.trace import ModelTrace, Operator, counted

pytestmark = pytest.mark.slow


def recorded(run: Callable[[], Any], *weights: Any) -> list[Operator]:
    from pytest_hfaccel.tracing.torch.recorder import Recorder

    with Recorder(weights) as recorder:
        run()
    operators: list[Operator] = recorder.operators
    return operators


def the(run: Callable[[], Any], *weights: Any) -> Operator:
    """Record what is one operator."""
    (operator,) = recorded(run, *weights)
    return operator


def test_a_product_with_weights() -> None:
    import torch

    x, weight, bias = torch.rand(3, 4), torch.rand(4, 5), torch.rand(5)
    found = the(lambda: torch.addmm(bias, x, weight), weight, bias)
    assert found == Operator(
        "addmm",
        shapes=((5,), (3, 4), (4, 5)),
        out=(3, 5),
        flops=2 * 3 * 4 * 5,
        read_bytes=4 * (5 + 12 + 20),
        written_bytes=4 * 15,
        read_floats=37,
        written_floats=15,
        read_weights=20,
    )


def test_a_convolution_knows_its_groups() -> None:
    import torch

    x, weight = torch.rand(1, 8, 10), torch.rand(8, 2, 3, requires_grad=True)
    found = {one.name: one for one in recorded(lambda: torch.conv1d(x, weight, groups=4).sum().backward())}
    forward, backward = found["convolution"], found["convolution_backward"]
    assert (forward.groups, forward.flops) == (4, 2 * 8 * 8 * 2 * 3)
    assert (backward.groups, backward.flops) == (4, forward.flops)  # of the weight only: the input needs no gradient


def test_views_move_nothing() -> None:
    import torch

    x = torch.rand(2, 6)
    for view in (lambda: x.view(3, 4), lambda: x.t(), lambda: x[:, :2], lambda: torch.ops.aten._unsafe_view(x, [12])):
        found = the(view)
        assert found.is_view
        assert found.read_bytes == found.written_bytes == 0


@pytest.mark.parametrize(
    ("case", "read", "written"),
    [
        ("embedding", 3 * 8 + 3 * 5 * 4, 3 * 5 * 4),
        ("expanded", 4 * 5 + 4 * 15, 4 * 15),
        ("twice the same", 4 * 15, 4 * 15),
        ("copy", 4 * 15, 4 * 15),
        ("fill", 0, 4 * 15),
        ("allocate", 0, 0),
        ("scatter", 2 * 8 + 2 * 5 * 4, 2 * 5 * 4),
        ("in place on many", 2 * 4 * 15, 4 * 15),
    ],
)
def test_bytes_are_those_that_move(case: str, read: int, written: int) -> None:
    import torch

    x, y, row, table = torch.rand(3, 5), torch.rand(3, 5), torch.rand(1, 5), torch.rand(1000, 5)
    ids, wide = torch.tensor([1, 2, 3]), row.expand(3, 5)
    run = {
        "embedding": lambda: torch.embedding(table, ids),
        "expanded": lambda: torch.add(x, wide),
        "twice the same": lambda: torch.mul(x, x),
        "copy": lambda: x.copy_(y),
        "fill": lambda: x.fill_(0),
        "allocate": lambda: torch.empty_like(x),
        "scatter": lambda: torch.ops.aten.index_put_(table, [ids[:2]], x[:2]),
        "in place on many": lambda: torch._foreach_add_([x], [y]),
    }[case]
    found = recorded(run)[-1]
    assert (found.read_bytes, found.written_bytes) == (read, written)


def test_fused_attention_counts_as_torch_counts_other_fused_attention() -> None:
    import torch
    from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

    query, key, value = (torch.rand(2, 3, length, 8, requires_grad=True) for length in (5, 7, 7))
    attend = torch.nn.functional.scaled_dot_product_attention
    found = {one.name: one for one in recorded(lambda: attend(query, key, value).sum().backward())}
    forward = found["_scaled_dot_product_flash_attention_for_cpu"]
    backward = found["_scaled_dot_product_flash_attention_for_cpu_backward"]
    shapes = query.shape, key.shape, value.shape
    assert forward.flops == sdpa_flop_count(*shapes)
    assert backward.flops == sdpa_backward_flop_count(query.shape, *shapes)


def test_products_of_experts_count_each_row_once() -> None:
    import torch

    rows, experts = torch.rand(6, 8, requires_grad=True), torch.rand(2, 8, 16, requires_grad=True)
    ends = torch.tensor([2, 6], dtype=torch.int32)
    operators = recorded(lambda: torch.nn.functional.grouped_mm(rows, experts, offs=ends).square().sum().backward())
    assert [one.flops for one in operators if one.name == "_grouped_mm"] == [2 * 6 * 8 * 16] * 3


def test_fourier_transforms_count_by_convention() -> None:
    import torch

    found = recorded(lambda: torch.fft.fft(torch.rand(4, 16, dtype=torch.complex64)))[-1]
    assert (found.name, found.flops) == ("_fft_c2c", 5 * 4 * 16 * 4)


def test_memory_is_what_is_alive_besides_weights() -> None:
    import torch

    from pytest_hfaccel.tracing.torch.recorder import Recorder

    weight = torch.rand(100)
    with Recorder([weight]) as recorder:
        first = weight + 1
        view = first[:10]
        del first
        second = view.to(torch.float64)
        del view
        third = second + 1
    assert recorder.curve == [(400, 100), (400, 100), (480, 110), (160, 20)]
    assert (recorder.memory.live, recorder.memory.floats) == (third.numel() * 16, 20)


def test_equal_operators_are_joined_in_the_order_of_the_first() -> None:
    one, two = (Operator(name, ((2,),), (2,), 0, 8, 8) for name in ("add", "mul"))
    joined = counted([one, two, one, one])
    assert [(operator.name, operator.count) for operator in joined] == [("add", 3), ("mul", 1)]
    view = Operator("view", ((2,),), (2,), 0, 0, 0, is_view=True)
    trace = ModelTrace("Some", 1, 1, "fp32", False, 0, 0, 0, 0, 0, (*joined, view))
    assert (trace.moved_bytes, trace.launches) == (64, 4)
