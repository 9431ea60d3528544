"""Costs of architectures, requirements on devices, and whether a model fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.core.errors import ConfigError, LoadError
from pytest_hfaccel.core.prediction import Estimate, Prediction
from pytest_hfaccel.predict.platforms import Platform
from pytest_hfaccel.predict.requirements import (
    ArchitectureCost,
    Overhead,
    Requirements,
    RunCost,
    cost_of,
    overhead_of,
    requirements_on,
    with_fit,
)
from pytest_hfaccel.tracing.traces import trace_of
from tests.unit.predict.predict_samples import GIB, prediction, question

MB = 2**20

RUN = RunCost(
    fixed_bytes=0, bytes_per_sample=64 * MB, output_bytes_per_sample=0, flops_per_sample=10**9, multiplied_bytes=0
)
COST = ArchitectureCost(parameters=100 * MB // 4, buffer_bytes=0, stored_buffer_bytes=0, length=128, run=RUN)


def needs(
    kind: str = "cuda", memory: int | None = None, dtype: str = "fp32", cost: ArchitectureCost = COST
) -> Requirements:
    return requirements_on(kind, cost, dtype=dtype, memory_bytes=memory, cores=8, origin="a test")


def test_weights_and_activations_scale_with_the_dtype() -> None:
    full, half = needs(dtype="fp32"), needs(dtype="bf16")
    assert (full.weights_mb, full.activations_mb, full.min_memory_mb) == (100, 64, 164)
    assert (half.weights_mb, half.activations_mb, half.min_memory_mb) == (50, 32, 82)
    assert (full.disk_space_mb, half.disk_space_mb) == (100, 50)


@pytest.mark.parametrize(
    ("memory", "batch", "fits"),
    [
        (None, 1, None),
        (200 * MB, 1, False),  # 164 MB are more than 70 % of it
        (240 * MB, 1, True),
        (600 * MB, 4, True),  # 356 MB fit into 420, 612 do not
        (100_000 * MB, 32, True),
    ],
)
def test_the_batch_is_the_largest_power_of_two_that_fits(memory: int | None, batch: int, fits: bool | None) -> None:
    found = needs(memory=memory)
    assert (found.batch_size, found.fits) == (batch, fits)
    assert found.recommended_memory_mb == 100 + 64 * batch


def test_measured_overhead_is_part_of_the_peak() -> None:
    overhead = overhead_of("cpu")
    assert overhead.is_measured
    assert "benchmarks" not in overhead.source
    assert "models on" in overhead.source
    assert needs("cpu").min_memory_mb > 164 + overhead.import_bytes // 2**20


def test_openvino_holds_multiplied_weights_again() -> None:
    overhead = Overhead(0, 10 * MB, 0.5, 2.0, 3.0, 0, "test")
    run = RunCost(0, 64 * MB, 4 * MB, 10**9, multiplied_bytes=80 * MB)
    cost = ArchitectureCost(100 * MB // 4, 0, 0, 128, run)
    assert overhead.peak_bytes(cost, "fp32", 1) == (10 + 100 + 40 + 128 + 12) * MB


def test_an_unmeasured_device_says_so() -> None:
    found = needs("rocm")
    assert "no overhead was measured on rocm" in found.sources["min_memory_mb"]


def test_a_cost_without_a_run_gives_weights_and_says_why() -> None:
    cost = ArchitectureCost(100 * MB // 4, 0, 0, 128, None, "no forward pass: it looks at values")
    found = needs(memory=10_000 * MB, cost=cost)
    assert (found.min_memory_mb, found.batch_size, found.activations_mb) == (100, 1, 0)
    assert "it looks at values" in found.sources["activations_mb"]


def test_every_number_has_a_source_and_survives_json() -> None:
    data = needs(memory=600 * MB).to_json()
    assert list(data)[:5] == ["min_memory_mb", "recommended_memory_mb", "cpu_cores", "disk_space_mb", "batch_size"]
    numbers = {name for name, value in data.items() if isinstance(value, int) and not isinstance(value, bool)}
    assert numbers - {"length", "parameters"} == set(data["sources"])


def test_cores_follow_the_work_and_stop_at_those_present() -> None:
    heavy = ArchitectureCost(1, 0, 0, 128, RunCost(0, 0, 0, 10**15, 0))
    light = ArchitectureCost(1, 0, 0, 128, RunCost(0, 0, 0, 10**6, 0))
    assert needs("cpu", cost=heavy).cpu_cores == 8
    assert needs("cpu", cost=light).cpu_cores == 1
    assert needs("cuda", cost=heavy).cpu_cores == 1


pytestmark = pytest.mark.slow

SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


def traced(architecture: str, dims: dict[str, Any], length: int = 16) -> Any:
    return cost_of(architecture, dims, length=length)


def test_weights_and_flops_equal_those_of_the_real_model() -> None:
    import torch
    import transformers
    from torch.utils.flop_counter import FlopCounterMode

    cost = traced("BertForMaskedLM", SMALL)
    model = transformers.BertForMaskedLM(transformers.BertConfig(**SMALL)).eval()
    held = [*model.parameters(), *model.buffers()]
    assert cost.weight_bytes("fp32") == sum(tensor.numel() * tensor.element_size() for tensor in held)
    assert cost.weight_bytes("bf16") < 0.51 * cost.weight_bytes("fp32")
    # An attention that torch's own counter knows; the fused one of the CPU is not in its table.
    model.set_attn_implementation("eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.ones(1, 16, dtype=torch.int64))
    assert cost.run.flops_per_sample == counter.get_total_flops()


def test_activations_are_those_of_the_largest_moment() -> None:
    cost = traced("BertForMaskedLM", SMALL)
    logits = 16 * 30522 * 4
    assert logits < cost.run.bytes_per_sample < 2.5 * logits
    assert cost.output_bytes("fp32", 2) == 2 * logits
    assert cost.activation_bytes("fp32", 4) == cost.run.fixed_bytes + 4 * cost.run.bytes_per_sample


def test_tables_of_embeddings_are_not_multiplied() -> None:
    tied = traced("BertForMaskedLM", SMALL)
    headless = traced("BertModel", SMALL)
    assert tied.run.multiplied_bytes - headless.run.multiplied_bytes > 30522 * 64 * 4
    assert headless.run.multiplied_bytes < 0.1 * headless.weight_bytes("fp32")


def test_what_cannot_be_built_is_said() -> None:
    with pytest.raises(LoadError, match="BertForNothing"):
        traced("BertForNothing", {})
    with pytest.raises((ConfigError, LoadError), match="hidden size"):
        traced("BertModel", {"hidden_size": 65, "num_attention_heads": 4})


def test_int8_is_what_the_predictor_counts(tmp_path: Path) -> None:
    """Weights of matrix products have 8 bits; embeddings, biases and activations stay fp32."""
    cost = cost_of("BertModel", SMALL, length=16, cache_dir=tmp_path)
    trace = trace_of("BertModel", SMALL, batch=1, length=16, cache_dir=tmp_path, dtype="int8")
    # The requirements count biases of products among their matrices: a thousandth of the weights.
    assert cost.weight_bytes("int8") == pytest.approx(trace.weight_bytes, rel=2e-3)
    assert cost.activation_bytes("int8", 1) == cost.activation_bytes("fp32", 1) == trace.activation_bytes
    assert cost.weight_bytes("fp16") < cost.weight_bytes("int8") < cost.weight_bytes("fp32")


GPU = Platform("cuda", "cuda", "cuda:x", memory_bytes=16 * GIB, memory_source="of its data sheet")


def asked(mib: float, **changed: object) -> Prediction:
    return prediction(question=question(device="cuda:x", **changed), memory_mb=Estimate(mib, 0.8 * mib, 1.2 * mib))


def memory_at(batch: int, dtype: str) -> float:
    """Half a gigabyte per sample in fp32, half of that in fewer bits, a quarter in int8."""
    return {"fp32": 512.0, "bf16": 256.0, "fp16": 256.0, "int8": 128.0}[dtype] * batch


def test_it_fits() -> None:
    found = with_fit(asked(8 * 1024), GPU, memory_at)
    assert found.fits is True
    assert found.advice == ""
    assert found.details["device_memory_mb"] == 16 * 1024
    assert found.details["device_memory_source"] == "of its data sheet"


def test_it_nearly_does_not_fit() -> None:
    found = with_fit(asked(15 * 1024), GPU, memory_at)
    assert found.fits is True
    assert found.advice == "It may just not fit: up to 18.0 GiB are possible, of 16.0 GiB."


def test_it_does_not_fit_and_what_would() -> None:
    found = with_fit(asked(32 * 1024, batch=64), GPU, memory_at)
    assert found.fits is False
    assert found.advice == (
        "Does not fit: needs 32.0 GiB at fp32 and batch 64, of 16.0 GiB. Would fit: bf16 (16.0 GiB); "
        "batch 32 (16.0 GiB); 3 such devices among which the model is split (10.7 GiB each)."
    )


@pytest.mark.parametrize(
    ("changed", "offered", "not_offered"),
    [
        ({"batch": 120}, "int8 (15.0 GiB, quantized weights)", "bf16 ("),
        ({"batch": 120, "training": True}, "batch 30 (15.0 GiB)", "int8"),
        ({"batch": 1}, "such devices", "batch "),
    ],
)
def test_only_what_fits_is_offered(changed: dict[str, object], offered: str, not_offered: str) -> None:
    advice = with_fit(asked(60 * 1024, **changed), GPU, memory_at).advice.partition("Would fit")[2]
    assert offered in advice
    assert not_offered not in advice


def test_a_cpu_is_not_split() -> None:
    cpu = replace(GPU, kind="cpu", device="cpu", name="cpu")
    found = with_fit(prediction(memory_mb=Estimate(2.0**20, 2.0**20, 2.0**20)), cpu, lambda *_: None)
    assert found.advice == "Does not fit: needs 1,024 GiB at fp32 and batch 1, of 16.0 GiB."


def test_what_is_not_known_is_not_judged() -> None:
    assert with_fit(asked(1.0), replace(GPU, memory_bytes=None), memory_at).fits is None
    assert with_fit(prediction(mib=None), GPU, memory_at).fits is None
