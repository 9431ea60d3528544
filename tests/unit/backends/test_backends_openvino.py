"""The OpenVINO backend on its CPU device: one conversion of a tiny GPT-2 serves most tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_hfaccel.backends import Backends, WeightChange
from pytest_hfaccel.core.errors import BackendUnavailable, CheckpointError
from pytest_hfaccel.core.files import DamagedCacheWarning
from tests.unit.backends.backend_sources import CountingSource, MadeUpSource, made_up_model, make_cell, tiny_checkpoint

pytestmark = pytest.mark.slow
ov = pytest.importorskip("openvino", reason="openvino is an extra of this package")

PERTURBED_REL_L2 = 1e-5


def load(source: Any, device: str = "openvino:CPU", dtype: str = "fp32") -> Any:
    return Backends().for_kind(device.partition(":")[0]).load(make_cell(source.spec, device, dtype), source)


def rel_l2(found: Any, expected: Any) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.fixture(scope="module")
def gpt2(shared_cache: Path) -> CountingSource:
    return CountingSource(tiny_checkpoint(shared_cache, "GPT2LMHeadModel", "text-generation"))


@pytest.fixture(scope="module")
def loaded(gpt2: CountingSource) -> Any:
    return load(gpt2)


@pytest.fixture(scope="module")
def reference(gpt2: CountingSource) -> Any:
    return load(gpt2, "cpu", "fp64")


def test_outputs_are_torchs(loaded: Any, reference: Any, gpt2: CountingSource) -> None:
    inputs = gpt2.sample().forward
    outputs, expected = loaded.forward(inputs), reference.forward(inputs)
    assert list(outputs) == list(expected)
    assert rel_l2(outputs["logits"], expected["logits"]) < 1e-5


def test_placement_is_read_back(loaded: Any) -> None:
    placement = loaded.placement
    assert placement.actual_devices == ("CPU",)
    assert placement.effective_dtype == "fp32"
    assert placement.details["runtime_precisions"]["f32"] > 0
    assert "bf16" not in placement.details["runtime_precisions"]
    assert placement.details["shapes"] == "varying"
    assert loaded.nbytes > 0


def test_other_batches_and_lengths_use_the_same_graph(loaded: Any, reference: Any, gpt2: CountingSource) -> None:
    for rows, tokens in ((1, None), (2, 3), (1, 1)):
        inputs = {name: tensor[:rows, :tokens] for name, tensor in gpt2.sample().forward.items()}
        found, expected = loaded.forward(inputs)["logits"], reference.forward(inputs)["logits"]
        assert rel_l2(found, expected) < 1e-5
    assert loaded.placement.details["graphs"] == 1


def test_a_second_load_reads_the_converted_model(loaded: Any, gpt2: CountingSource) -> None:
    loads = gpt2.torch_loads
    again = load(gpt2)
    assert gpt2.torch_loads == loads
    assert again.timings["convert"] == 0
    assert again.placement.details["convert_cached"] is True
    inputs = gpt2.sample().forward
    assert bool((again.forward(inputs)["logits"] == loaded.forward(inputs)["logits"]).all())
    again.close()


@pytest.mark.parametrize("use_cache", [True, False])
def test_generation_is_torchs(loaded: Any, reference: Any, gpt2: CountingSource, use_cache: bool) -> None:
    inputs = gpt2.sample().generate
    expected = reference.generate(inputs, max_new_tokens=4, use_cache=True)
    for _ in range(2):  # the second call starts with an empty cache
        found = loaded.generate(inputs, max_new_tokens=4, use_cache=use_cache)
        assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("use_cache", [True, False])
def test_generation_honours_the_mask_of_a_padded_prompt(
    loaded: Any, reference: Any, gpt2: CountingSource, use_cache: bool
) -> None:
    import torch

    plain = gpt2.sample().generate
    padding = torch.zeros_like(plain["input_ids"][:, :2])
    padded = {name: torch.cat([padding, tensor], dim=1) for name, tensor in plain.items()}
    expected = reference.generate(padded, max_new_tokens=3, use_cache=use_cache)
    assert loaded.generate(padded, max_new_tokens=3, use_cache=use_cache).tolist() == expected.tolist()


def test_a_wrong_model_does_not_decode_with_the_right_weights(loaded: Any, gpt2: CountingSource) -> None:
    with (
        loaded.perturbed(WeightChange("lm_head.weight", 0, 1.0)) as wrong,
        pytest.raises(NotImplementedError, match="the checkpoint's own weights"),
    ):
        wrong.generate(gpt2.sample().generate, max_new_tokens=1, use_cache=True)


def test_a_class_without_a_cache_is_not_given_one(shared_cache: Path) -> None:
    source = tiny_checkpoint(shared_cache, "OpenAIGPTLMHeadModel", "text-generation", n_layer=1)
    inputs = source.sample().generate
    loaded, expected = load(source), load(source, "cpu", "fp64").generate(inputs, max_new_tokens=3, use_cache=True)
    with pytest.raises(NotImplementedError, match="OpenAIGPTLMHeadModel hands no cache from one step to the next"):
        loaded.generate(inputs, max_new_tokens=3, use_cache=True)
    assert loaded.generate(inputs, max_new_tokens=3, use_cache=False).tolist() == expected.tolist()


@pytest.mark.parametrize(
    "parameter", ["transformer.h.0.ln_1.weight", "lm_head.weight", "transformer.h.1.mlp.c_fc.bias"]
)
def test_a_wrong_weight_is_the_wrong_weight_of_torch(
    loaded: Any, reference: Any, gpt2: CountingSource, parameter: str
) -> None:
    change = WeightChange(parameter, 7, 2.0)
    inputs = gpt2.sample().forward
    right = reference.forward(inputs)["logits"]
    with reference.perturbed(change) as wrong:
        expected = wrong.forward(inputs)["logits"]
    with loaded.perturbed(change) as wrong:
        found = wrong.forward(inputs)["logits"]
    assert rel_l2(found, expected) < PERTURBED_REL_L2
    assert rel_l2(loaded.forward(inputs)["logits"], right) < PERTURBED_REL_L2


def test_a_wrong_weight_that_the_graph_holds_needs_no_new_conversion(loaded: Any) -> None:
    from transformers.exporters import OpenVINOExporter

    names = ["transformer.h.1.mlp.c_fc.bias", "transformer.h.0.ln_1.weight", "no such parameter"]
    editable = loaded.directly_editable(names)
    assert "transformer.h.1.mlp.c_fc.bias" in editable
    assert "no such parameter" not in editable
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(OpenVINOExporter, "export", None)  # a call would fail
        for name in editable:
            with loaded.perturbed(WeightChange(name, 3, 1.0)):
                pass


def test_a_pipeline_runs_without_torch_weights(loaded: Any, gpt2: CountingSource) -> None:
    from transformers import pipeline

    loads = gpt2.torch_loads
    model = loaded.pipeline_model()
    assert gpt2.torch_loads == loads
    assert all(parameter.device.type == "meta" for parameter in model.parameters())
    texts = []
    for candidate in (model, load(gpt2, "cpu").pipeline_model()):
        pipe = pipeline("text-generation", model=candidate, device="cpu", **gpt2.processors())
        texts.append(pipe("Paris is", max_new_tokens=4, do_sample=False))
    assert texts[0] == texts[1]


def test_a_precision_is_real_or_refused(gpt2: CountingSource) -> None:
    from pytest_hfaccel.backends.openvino.device import capabilities
    from pytest_hfaccel.core.spec import Device

    if "BF16" in capabilities(Device("openvino", "CPU")):
        model = load(gpt2, dtype="bf16")
        assert model.placement.effective_dtype == "bf16"
        assert model.placement.details["runtime_precisions"]["bf16"] > 0
    else:
        with pytest.raises(BackendUnavailable, match="asked for bf16, but the runtime would compute at fp32") as caught:
            load(gpt2, dtype="bf16")
        assert caught.value.stage == "compile"
        assert "FP32" in caught.value.message


def test_a_dtype_it_does_not_know_is_refused(gpt2: CountingSource) -> None:
    with pytest.raises(BackendUnavailable, match="Allowed: fp32, bf16, fp16, int8"):
        load(gpt2, dtype="fp8")


def test_a_device_that_is_not_there(gpt2: CountingSource) -> None:
    with pytest.raises(BackendUnavailable, match=r"openvino:GPU\.7: OpenVINO .* finds no such device\. Available: .*"):
        load(gpt2, "openvino:GPU.7")


def test_a_damaged_conversion_is_told_and_made_again(tmp_path: Path) -> None:
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    def forward(self: Any, pixel_values: Any) -> Any:
        return BaseModelOutput(last_hidden_state=self.linear(pixel_values))

    model, inputs = made_up_model(forward), {"pixel_values": torch.randn(2, 3, 4)}
    source = MadeUpSource(model, inputs, tmp_path)
    load(source).close()
    (program,) = (tmp_path / "openvino").glob("*/*.xml")
    program.write_text("<net")
    with pytest.warns(DamagedCacheWarning, match=r"openvino_model\.xml has 4 bytes instead of .* built again"):
        again = load(source)
    assert again.timings["convert"] > 0
    assert rel_l2(again.forward(inputs)["last_hidden_state"], model(**inputs).last_hidden_state) < 1e-5
    again.close()


def test_a_cache_that_cannot_be_written(gpt2: CountingSource, tmp_path: Path) -> None:
    (tmp_path / "openvino").write_text("a file where the folder should be")
    copy = CountingSource(gpt2.inner)
    copy.cache_dir = tmp_path  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match="cannot be written"):
        load(copy)


def compiled_sum(threads: int) -> Any:
    import openvino.opset14 as ops

    first, second = ops.parameter([-1], np.float32), ops.parameter([-1], np.float32)
    model = ov.Model([ops.add(ops.relu(first), ops.relu(second))], [first, second])
    return ov.Core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": threads})


@pytest.mark.parametrize("threads", [1, 2])
def test_shapes_that_do_not_fit_are_an_error(threads: int) -> None:
    from pytest_hfaccel.backends.openvino.backend import open_request

    request = open_request(compiled_sum(threads))
    with pytest.raises(RuntimeError, match="mismatch"):
        request.infer([np.ones(2, np.float32), np.ones(3, np.float32)])


@pytest.mark.parametrize("threads", [1, 2])
def test_outputs_are_keyed_by_port_and_are_the_callers_own(threads: int) -> None:
    from pytest_hfaccel.backends.openvino.backend import open_request

    compiled = compiled_sum(threads)
    request = open_request(compiled)
    twos = request.infer([np.ones(2, np.float32)] * 2, share_inputs=True)[compiled.output(0)]
    request.infer([np.full(2, 5, np.float32)] * 2, share_inputs=True)
    assert twos.tolist() == [2.0, 2.0]
