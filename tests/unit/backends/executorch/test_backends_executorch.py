"""ExecuTorch with XNNPACK: outputs, what XNNPACK did not take, precision read back, a weight made wrong in the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_hfaccel.backends.base import WeightChange
from pytest_hfaccel.core.errors import BackendUnavailable, LoadError
from pytest_hfaccel.core.presence import installed_version
from pytest_hfaccel.core.spec import Device
from tests.unit.backends.backend_sources import CountingSource, make_cell, tiny_checkpoint

XNNPACK = Device.parse("executorch")
WEIGHT = "transformer.h.0.attn.c_proj.weight"

pytestmark = pytest.mark.slow
needs_executorch = pytest.mark.skipif(
    installed_version("executorch") is None, reason="executorch is an extra of this package"
)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return CountingSource(tiny_checkpoint(tmp_path_factory.mktemp("gpt2"), "GPT2LMHeadModel", "text-generation"))


@pytest.fixture(scope="module")
def loaded(gpt2: Any) -> Iterator[Any]:
    model = load(gpt2)
    yield model
    model.close()


def load(source: Any, dtype: str = "fp32") -> Any:
    from pytest_hfaccel.backends.executorch.backend import ExecuTorchBackend

    return ExecuTorchBackend().load(make_cell(source.spec, XNNPACK.id, dtype), source)


def relative_error(outputs: Any, source: Any, inputs: dict[str, Any]) -> float:
    with torch.no_grad():
        expected = source.torch_model("fp32")(**inputs).logits
    return float((outputs["logits"] - expected).norm() / expected.norm())


@needs_executorch
def test_outputs_are_those_of_torch_for_any_length(loaded: Any, gpt2: Any) -> None:
    inputs = gpt2.sample().forward
    for tokens in (inputs["input_ids"].shape[1], 5, 3):
        shorter = {name: value[:, :tokens] for name, value in inputs.items()}
        assert relative_error(loaded.forward(shorter), gpt2, shorter) < 2e-6
    assert loaded.placement.details["graphs"] == 1


@needs_executorch
def test_what_runs_where_is_read_back_from_the_program(loaded: Any) -> None:
    placement = loaded.placement
    details = placement.details
    assert (placement.actual_devices, placement.effective_dtype) == (("XNNPACK",), "fp32")
    assert set(details["product_weights"]) == {"fp32"}
    assert details["xnnpack"]["operators"]["FullyConnected"] > 0
    assert details["nodes"]["XNNPACK"] == sum(details["xnnpack"]["operators"].values())
    # XNNPACK has no lookup of rows and no layer norm.
    operators = details["cpu_fallback"]["operators"]
    assert {"aten::embedding.out", "aten::native_layer_norm.out"} <= operators.keys()
    assert details["cpu_fallback"]["nodes"] == details["nodes"]["portable kernels"] == sum(operators.values())
    assert loaded.nbytes > 400_000
    # The memory that is set aside has bounds.
    assert 0 < details["planned_bytes"] < 500 * 2**20


@needs_executorch
def test_generation_without_a_cache_gives_the_tokens_of_torch(loaded: Any, gpt2: Any) -> None:
    from pytest_hfaccel.backends.generation import generate_greedily

    prompts = {name: value[:2] for name, value in gpt2.sample().generate.items()}
    expected = generate_greedily(gpt2.torch_model("fp32"), prompts, max_new_tokens=6, use_cache=False)
    assert loaded.generate(prompts, max_new_tokens=6, use_cache=False).tolist() == expected.tolist()
    with pytest.raises(NotImplementedError, match="key-value cache"):
        loaded.generate(prompts, max_new_tokens=6, use_cache=True)


@needs_executorch
def test_a_changed_weight_changes_the_output_and_only_inside_the_block(loaded: Any, gpt2: Any) -> None:
    inputs = gpt2.sample().forward
    before = loaded.forward(inputs)["logits"]
    loads = gpt2.torch_loads
    assert loaded.directly_editable([WEIGHT, "transformer.wpe.weight"]) == {WEIGHT, "transformer.wpe.weight"}
    with loaded.perturbed(WeightChange(WEIGHT, 5, 10.0)) as changed:
        assert float((changed.forward(inputs)["logits"] - before).norm() / before.norm()) > 1e-3
    assert torch.equal(loaded.forward(inputs)["logits"], before)
    assert gpt2.torch_loads == loads + 2  # read for their values, not for another export


@needs_executorch
@pytest.mark.usefixtures("loaded")
def test_a_second_load_converts_nothing(gpt2: Any) -> None:
    loads = gpt2.torch_loads
    again = load(gpt2)
    assert again.timings["convert"] == 0.0
    assert again.placement.details["convert_cached"]
    assert gpt2.torch_loads == loads
    again.close()


@needs_executorch
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "int8"])
def test_other_precisions_are_refused_before_anything_is_converted(gpt2: Any, dtype: str) -> None:
    loads = gpt2.torch_loads
    with pytest.raises(BackendUnavailable, match=f"does not run {dtype}"):
        load(gpt2, dtype)
    assert gpt2.torch_loads == loads


@needs_executorch
def test_the_device_computes_a_product(capfd: pytest.CaptureFixture[str]) -> None:
    from pytest_hfaccel.backends.executorch.backend import ExecuTorchBackend

    assert ExecuTorchBackend().confirm(XNNPACK)["executorch"]
    assert not capfd.readouterr().out


@needs_executorch
def test_a_file_that_is_no_program_is_refused(tmp_path: Path) -> None:
    from pytest_hfaccel.backends.executorch.programs import Program

    damaged = tmp_path / "model.pte"
    damaged.write_bytes(b"\0" * 4096)
    with pytest.raises(RuntimeError, match=r"model\.pte is no program"):
        Program(damaged)


@needs_executorch
def test_axes_without_a_bound_are_refused() -> None:
    from pytest_hfaccel.backends.executorch.backend import ExecuTorchRuntime

    with pytest.raises(ValueError, match="largest shapes"):
        ExecuTorchRuntime().convert(None, {}, {"dynamic": True}, stateful=False)
    with pytest.raises(LoadError, match="cache"):
        ExecuTorchRuntime().convert(None, {}, {}, stateful=True)


def test_without_the_package_the_device_is_unavailable(monkeypatch: pytest.MonkeyPatch, gpt2: Any) -> None:
    backend: Any = pytest.importorskip("pytest_hfaccel.backends.executorch.backend")
    monkeypatch.setattr(backend, "installed_version", lambda _: None)
    with pytest.raises(BackendUnavailable, match="not installed") as refused:
        load(gpt2)
    assert "pytest-hfaccel[executorch]" in str(refused.value.hint)
