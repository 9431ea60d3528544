"""The torch backend on the CPU, with tiny models."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.backends import Backends, WeightChange
from pytest_hfaccel.core.errors import BackendUnavailable, OutOfMemory
from pytest_hfaccel.core.spec import Device
from tests.unit.backends.backend_sources import MadeUpSource, make_cell, tiny_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def gpt2(shared_cache: Path) -> Any:
    return tiny_checkpoint(shared_cache, "GPT2LMHeadModel", "text-generation")


@pytest.fixture(scope="module")
def t5(shared_cache: Path) -> Any:
    return tiny_checkpoint(shared_cache, "T5ForConditionalGeneration", "text2text-generation")


def load(source: Any, dtype: str = "fp32", device: str = "cpu") -> Any:
    return Backends().for_kind(Device.parse(device).kind).load(make_cell(source.spec, device, dtype), source)


@pytest.mark.parametrize("dtype", ["fp64", "fp32", "bf16", "fp16"])
def test_placement_says_what_the_parameters_are(gpt2: Any, dtype: str) -> None:
    loaded = load(gpt2, dtype)
    assert loaded.placement.actual_devices == ("cpu",)
    assert loaded.placement.effective_dtype == dtype
    assert list(loaded.placement.details["parameter_dtypes"]) == [dtype]
    assert loaded.placement.details["fp32_precision"] == {"matmul": "highest", "matmul_tf32": False, "conv_tf32": False}
    assert loaded.timings["load"] > 0


def test_bytes_count_tied_weights_once(gpt2: Any) -> None:
    loaded = load(gpt2)
    model = loaded.pipeline_model()
    assert model.lm_head.weight.data_ptr() == model.transformer.wte.weight.data_ptr()
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    assert loaded.nbytes == parameters + buffers


def test_modules_that_stay_in_fp32_are_not_called_mixed(t5: Any) -> None:
    placement = load(t5, "fp16").placement
    assert placement.effective_dtype == "fp16"
    assert placement.details["kept_in_fp32"] == ["wo"]
    assert set(placement.details["parameter_dtypes"]) == {"fp16", "fp32"}


def test_undeclared_dtypes_are_called_mixed(gpt2: Any) -> None:
    model = gpt2.torch_model("bf16")
    model.transformer.ln_f.float()
    source = MadeUpSource(model, dict(gpt2.sample().forward), Path())
    assert load(source, "bf16").placement.effective_dtype == "mixed"


def test_forward_gives_named_tensors_without_caches(gpt2: Any) -> None:
    outputs = load(gpt2).forward(gpt2.sample().forward)
    assert list(outputs) == ["logits"]
    assert outputs["logits"].shape[:2] == gpt2.sample().forward["input_ids"].shape


def test_floating_inputs_take_the_models_dtype(shared_cache: Path) -> None:
    vit = tiny_checkpoint(shared_cache, "ViTForImageClassification", "image-classification")
    outputs = load(vit, "bf16").forward(vit.sample().forward)
    assert str(outputs["logits"].dtype) == "torch.bfloat16"


@pytest.mark.parametrize("use_cache", [True, False])
def test_generation_follows_the_argmax(gpt2: Any, use_cache: bool) -> None:
    import torch

    inputs = gpt2.sample().generate
    loaded = load(gpt2)
    tokens = loaded.generate(inputs, max_new_tokens=4, use_cache=use_cache)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    for step in range(4):
        logits = loaded.forward({"input_ids": ids, "attention_mask": mask})["logits"][:, -1]
        assert torch.equal(tokens[:, step], logits.argmax(-1))
        ids = torch.cat([ids, tokens[:, step : step + 1]], dim=1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)


def test_generation_ignores_the_checkpoints_settings_and_keeps_them(t5: Any) -> None:
    loaded = load(t5)
    model = loaded.pipeline_model()
    free = loaded.generate(t5.sample().generate, max_new_tokens=5, use_cache=True)
    assert free.shape == (2, 5)
    own = model.generation_config
    own.eos_token_id, own.suppress_tokens, own.do_sample = int(free[0, 0]), [int(free[1, 0])], True
    again = loaded.generate(t5.sample().generate, max_new_tokens=5, use_cache=True)
    assert again.tolist() == free.tolist()
    assert model.generation_config is own


def test_a_wrong_weight_changes_outputs_and_is_restored(gpt2: Any) -> None:
    loaded = load(gpt2)
    inputs = gpt2.sample().forward
    before = loaded.forward(inputs)["logits"]
    with loaded.perturbed(WeightChange("transformer.ln_f.weight", 3, 5.0)) as wrong:
        changed = wrong.forward(inputs)["logits"]
    assert float((changed - before).abs().max()) > 0.01
    assert bool((loaded.forward(inputs)["logits"] == before).all())
    with pytest.raises(ValueError, match="no parameter 'typo'"), loaded.perturbed(WeightChange("typo", 0, 1.0)):
        pass


def test_memory_of_the_cpu_is_that_of_the_process(gpt2: Any) -> None:
    loaded = load(gpt2)
    loaded.reset_peak_memory()
    found = loaded.memory()
    assert found["source"] == "process"
    assert found["peak_bytes"] >= found["current_bytes"] > 0


@pytest.mark.parametrize("stage", ["load", "run"])
def test_out_of_memory_names_the_device_and_stage(gpt2: Any, stage: str) -> None:
    model = gpt2.torch_model("fp32")
    source = MadeUpSource(model, dict(gpt2.sample().forward), Path())

    def allocate(*_args: Any, **_kwargs: Any) -> Any:
        import torch

        return torch.empty(2**62, dtype=torch.uint8)  # more than any machine has: the allocator itself refuses

    if stage == "load":
        source.torch_model = allocate  # type: ignore[method-assign]
    else:
        model.forward = allocate
    with pytest.raises(OutOfMemory, match="cpu ran out of memory") as caught:
        load(source).forward(source.inputs)
    assert caught.value.stage == stage


def test_a_dtype_it_does_not_know_is_refused(gpt2: Any) -> None:
    with pytest.raises(BackendUnavailable, match="Allowed: fp64, fp32, bf16, fp16, int8"):
        load(gpt2, "fp8")


@pytest.mark.parametrize("device", ["cuda:99", "rocm:99", "xpu:99"])
def test_a_device_that_is_not_there(gpt2: Any, device: str) -> None:
    with pytest.raises(BackendUnavailable) as caught:
        load(gpt2, device=device)
    assert caught.value.message.startswith(f"{device}: ")
    assert "hfaccel hardware" in str(caught.value)


def test_the_switches_of_fp32_are_as_before_once_the_models_are_closed(gpt2: Any) -> None:
    import torch

    gc.collect()  # models of other tests that were never closed
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("high")
    try:
        first, second = load(gpt2), load(gpt2, "bf16")
        first.close()
        assert not torch.backends.cudnn.allow_tf32
        second.close()
        second.close()
        assert torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
