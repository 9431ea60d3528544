"""The check `memory` finds what is left behind, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.backends import Backends
from pytest_hfaccel.checks import planted
from pytest_hfaccel.checks.planted import Planted
from pytest_hfaccel.core.results import Status
from pytest_hfaccel.core.spec import Cell, Device, Weights, WeightsChoice
from tests.unit.checks.support import TinyContext, TinySource, run, with_forward

pytestmark = pytest.mark.slow


def test_memory_fails_when_outputs_are_kept(bert: TinySource) -> None:
    kept = []

    def keeping(right: Any, inputs: Any) -> Any:
        kept.append(right(inputs))
        return kept[-1]

    outcome = run("memory", with_forward(TinyContext(bert), keeping))
    assert outcome.status == Status.FAILED
    assert outcome.reason == "the outputs of 4 of 4 finished runs are still in memory"


def test_memory_allows_the_outputs_of_the_last_run_and_reference_cycles(bert: TinySource) -> None:
    last: list[Any] = []

    def holding(right: Any, inputs: Any) -> Any:
        last[:] = [right(inputs)]
        cycle: dict[str, Any] = dict(last[0])
        cycle["self"] = cycle
        return last[0]

    assert run("memory", with_forward(TinyContext(bert), holding)).status == Status.PASSED


def test_memory_allows_a_constant_that_every_run_returns(bert: TinySource) -> None:
    constant: dict[str, Any] = {}

    def with_constant(right: Any, inputs: Any) -> Any:
        outputs = right(inputs)
        constant.setdefault("positions", next(iter(outputs.values())).clone())
        return {**outputs, **constant}

    assert run("memory", with_forward(TinyContext(bert), with_constant)).status == Status.PASSED


@pytest.mark.parametrize(("leak", "status"), [(0, Status.PASSED), (100_000, Status.FAILED)])
def test_memory_fails_when_an_allocator_counts_more_after_each_run(bert: TinySource, leak: int, status: Status) -> None:
    context = TinyContext(bert)
    held = [0]

    def leaking(right: Any, inputs: Any) -> Any:
        held[0] += leak
        return right(inputs)

    @contextmanager
    def occupied(nbytes: int) -> Iterator[None]:
        held[0] += nbytes
        yield
        held[0] -= nbytes

    def memory() -> dict[str, Any]:
        return {"current_bytes": held[0], "peak_bytes": held[0], "source": "allocator"}

    context.loaded = Planted(with_forward(context, leaking).loaded, memory=memory, occupied=occupied)
    assert run("memory", context).status == status


@pytest.mark.parametrize(
    ("growth", "status"),
    [
        ([50_000_000, 0, 0, 0], Status.PASSED),  # the system allocator takes a block once
        ([5_000_000] * 8, Status.FAILED),
        ([5_000_000, 0, *[5_000_000] * 4, -1_000_000, 5_000_000], Status.FAILED),  # given back meanwhile
        ([5_000_000, 0, 5_000_000, 0, 5_000_000, 0], Status.PASSED),
    ],
)
def test_memory_fails_when_the_process_grows_in_nearly_every_round(
    bert: TinySource, growth: list[int], status: Status
) -> None:
    context = TinyContext(bert)
    first, *rest = growth
    # Read before and while a known amount is occupied, once for its source, before and after the first round, for the
    # record, before and after each further round.
    known = 16 * 2**20
    steps = iter([0, known, -known, 0, first, 0, *(step for one in rest for step in (0, one))])
    total = [0]

    def memory() -> dict[str, Any]:
        total[0] += next(steps)
        return {"current_bytes": total[0], "peak_bytes": total[0], "source": "process"}

    context.loaded = Planted(context.loaded, memory=memory)
    assert run("memory", context).status == status


def test_memory_that_is_given_back_at_the_same_moment_hides_the_known_amount_once(bert: TinySource) -> None:
    context = TinyContext(bert)
    known = 16 * 2**20
    # Given back while the amount is occupied; then, at the second look, not.
    steps = iter([2 * known, -known // 8, 0, known])
    total = [0]

    def memory() -> dict[str, Any]:
        total[0] += next(steps, 0)
        return {"current_bytes": total[0], "peak_bytes": total[0], "source": "process"}

    context.loaded = Planted(context.loaded, memory=memory)
    outcome = run("memory", context)
    assert outcome.status == Status.PASSED, outcome.reason
    assert outcome.measures["shown_bytes"] == known


def test_a_known_amount_of_memory_is_counted(bert: TinySource) -> None:
    outcome = run("memory", TinyContext(bert))
    assert outcome.status == Status.PASSED, outcome.reason
    assert outcome.measures["known_bytes"] == 16 * 2**20
    assert 12 * 2**20 <= outcome.measures["shown_bytes"] <= 32 * 2**20


def test_memory_fails_where_its_count_is_a_constant(bert: TinySource) -> None:
    context = TinyContext(bert)
    outcome = run("memory", planted.around(context, planted.with_constant_memory(context.loaded)))
    assert outcome.status == Status.FAILED
    assert (outcome.reason or "").startswith(
        "16777216 bytes more were occupied, and current_bytes and peak_bytes did not show it"
    )


def _loaded_on(kind: str, source: TinySource) -> Any:
    if kind == "openvino":
        pytest.importorskip("openvino", reason="openvino is an extra of this package")
    device = Device.parse({"cpu": "cpu", "openvino": "openvino:CPU", "fake": "fake:0"}[kind])
    cell = Cell(source.spec, device, "fp32", WeightsChoice(Weights.TINY, "test"))
    return Backends().for_kind(kind).load(cell, source)


@pytest.mark.parametrize("kind", ["cpu", "openvino", "fake"])
def test_a_model_that_loses_a_mebibyte_per_run_fails_on_every_backend(tmp_path: Path, kind: str) -> None:
    small = TinySource("BertForMaskedLM", tmp_path, num_hidden_layers=1)  # it is quick to convert
    context, loaded = TinyContext(small), _loaded_on(kind, small)
    assert run("memory", planted.around(context, loaded)).status == Status.PASSED
    leaking = planted.leaking(loaded)
    outcome = run("memory", planted.around(context, leaking))
    assert outcome.status == Status.FAILED
    assert re.search(r"the process grew in [678] of 8 rounds of 4 runs|8 runs left 8388608", outcome.reason or "")
    leaking.close()
