"""What we patch of torch: while a checkpoint is read, torch fills tensors that hold numbers, and only those."""

from __future__ import annotations

from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from pytest_hfaccel.checkpoints import CheckpointStore
from pytest_hfaccel.core.spec import Weights, WeightsChoice
from pytest_hfaccel.registry.auto_classes import match_pairs
from pytest_hfaccel.upstream.torch import (
    compile_counters,
    compile_errors,
    compile_or_fail,
    compiler_named,
    compiling_in_process,
    grouped_product,
    has_triton,
    is_built_with_xpu,
    is_dropout,
    keep_onnx_registry,
    large_constants_in_traces,
    no_cache_of_fake_operators,
    no_printed_traces,
    no_stacks_in_traces,
    packet_and_arguments,
    skip_init_on_meta,
    storage_key,
    why_no_cpp_compiler,
)

pytestmark = pytest.mark.slow


def functions() -> dict[str, FunctionType]:
    from torch.nn import init

    return {name: found for name, found in vars(init).items() if isinstance(found, FunctionType)}


def test_a_tensor_without_numbers_costs_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    filled: list[Any] = []
    monkeypatch.setattr(torch.nn.init, "normal_", filled.append)
    with skip_init_on_meta, torch.device("meta"):
        torch.nn.Embedding(3, 2)
        assert not filled
    torch.nn.Embedding(3, 2, device="meta")
    assert len(filled) == 1, "torch no longer fills tensors on meta: skip_init_on_meta is no longer needed"


def test_a_tensor_with_numbers_is_filled_as_ever() -> None:
    import torch

    torch.manual_seed(1)
    expected = torch.nn.Linear(3, 2)
    torch.manual_seed(1)
    with skip_init_on_meta:
        found = torch.nn.Linear(3, 2)
    assert torch.equal(found.weight, expected.weight)
    assert torch.equal(found.bias, expected.bias)


def test_torch_is_as_it_was_afterwards() -> None:
    before = functions()
    with skip_init_on_meta:
        with skip_init_on_meta:
            pass
        assert functions() != before, "somebody is still inside"
    assert functions() == before


def test_a_weight_that_the_checkpoint_lacks_is_drawn(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    lacking = "transformer.h.0.attn.c_attn.weight"
    store = CheckpointStore(tmp_path)
    spec = match_pairs("gpt2/GPT2LMHeadModel")[0]
    tiny = store.prepare(spec, WeightsChoice(Weights.TINY, "for a test"))
    file = tiny.directory / "model.safetensors"
    save_file({name: weight for name, weight in load_file(file).items() if name != lacking}, file, {"format": "pt"})
    model = tiny.torch_model("fp32")
    assert tiny.loading_info()["missing_keys"] == [lacking]
    weight = model.get_parameter(lacking)
    assert weight.std().item() == pytest.approx(model.config.initializer_range, rel=0.2)


def test_torch_still_folds_only_single_numbers_while_it_traces() -> None:
    from torch._subclasses import fake_tensor

    own = fake_tensor.CONSTANT_NUMEL_LIMIT
    assert own == 1, "the limit is another one: large_constants_in_traces may no longer be needed"
    with large_constants_in_traces(7):
        assert fake_tensor.CONSTANT_NUMEL_LIMIT == 7
    assert own == fake_tensor.CONSTANT_NUMEL_LIMIT


def test_a_trace_notes_stacks_unless_it_is_told_not_to() -> None:
    import torch

    def noted() -> list[bool]:
        graph = torch.export.export(torch.nn.Linear(3, 2), (torch.ones(1, 3),)).graph
        return [bool(node.stack_trace) for node in graph.nodes if node.op == "call_function"]

    assert noted() == [True], "torch notes none by itself: no_stacks_in_traces is no longer needed"
    with no_stacks_in_traces():
        assert noted() == [False]
    assert noted() == [True]


def test_a_trace_that_fails_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    class Branches(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return x if x.sum() > 0 else -x

    def printed() -> str:
        with pytest.raises(RuntimeError, match="data-dependent"):
            torch.export.export(Branches(), (torch.ones(2),))
        return capsys.readouterr().err

    assert "def forward" in printed(), "torch prints no part of a graph: no_printed_traces is no longer needed"
    with no_printed_traces():
        assert "def forward" not in printed()


def test_private_names_of_tensors_and_operators_are_there() -> None:
    import torch

    whole = torch.empty(4, device="meta")
    assert storage_key(whole) == storage_key(whole[1:]) != storage_key(torch.empty(4, device="meta"))
    packet, arguments = packet_and_arguments(torch.ops.aten.add_.Tensor)
    assert packet is torch.ops.aten.add_
    assert [one.name for one in arguments if one.alias_info and one.alias_info.is_write] == ["self"]
    assert is_dropout(torch.nn.Dropout2d())
    assert not is_dropout(torch.nn.Linear(1, 1))
    assert isinstance(is_built_with_xpu(), bool)
    assert callable(grouped_product()), "gone: torch.nn.functional.grouped_mm is its public name"


def test_private_names_of_the_compiler_are_there() -> None:
    import torch._inductor.config

    before = torch._inductor.config.compile_threads
    with compiling_in_process():
        assert torch._inductor.config.compile_threads == 1
    assert before == torch._inductor.config.compile_threads
    assert compile_counters()["stats"]["unique_graphs"] >= 0
    assert isinstance(why_no_cpp_compiler(), str)
    assert isinstance(has_triton(), bool)


def test_compiling_for_too_many_sizes_fails_where_torch_alone_goes_on_uncompiled() -> None:
    import torch

    def double(size: int) -> int:
        return len(torch.ones(2, 3)[:, :1].expand(2, size)) + size

    def run() -> None:
        torch.compiler.reset()
        compiled = torch.compile(double, backend="eager", dynamic=False)
        with torch._dynamo.config.patch(recompile_limit=1):
            for size in range(4):
                compiled(size)
        torch.compiler.reset()

    run()
    with compile_or_fail, pytest.raises(compile_errors()):
        run()


def test_a_compiler_by_name() -> None:
    assert callable(compiler_named("inductor"))


def test_fake_operators_are_not_cached_where_sizes_are_open() -> None:
    import torch._dynamo.config as config
    from torch._subclasses.fake_tensor import FakeTensorMode

    with no_cache_of_fake_operators(when=False):
        assert FakeTensorMode().cache_enabled
    with no_cache_of_fake_operators(when=True):
        assert not FakeTensorMode().cache_enabled
    assert config.fake_tensor_cache_enabled, "torch caches no operators by itself: the patch is no longer needed"


def test_the_table_for_onnx_is_read_once() -> None:
    pytest.importorskip("onnxscript", reason="torch reads the table from onnxscript")
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    def functions(table: Any) -> list[Any]:
        return [function for several in table.functions.values() for function in several]

    def shared(one: Any, other: Any) -> bool:
        return all(a is b for a, b in zip(functions(one), functions(other), strict=True))

    first, second = ONNXRegistry.from_torchlib(), ONNXRegistry.from_torchlib()
    assert not shared(first, second), "torch keeps its table: keep_onnx_registry is no longer needed"
    with keep_onnx_registry:
        kept, again = ONNXRegistry.from_torchlib(), ONNXRegistry.from_torchlib()
        assert shared(kept, again)
        assert kept.functions.keys() == first.functions.keys()
        kept.functions.clear()
        next(iter(again.functions.values())).clear()
        assert ONNXRegistry.from_torchlib().functions.keys() == first.functions.keys()
        assert len(functions(ONNXRegistry.from_torchlib())) == len(functions(first))
    assert not shared(again, ONNXRegistry.from_torchlib())
