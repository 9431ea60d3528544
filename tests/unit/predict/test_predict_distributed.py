"""Splitting a model over devices: the formulas against the papers, the choice, and the selector's answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_hfaccel.compat.hardware_selector import MAP_BATCHES, MAP_FAMILIES
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.prediction import Estimate
from pytest_hfaccel.predict import HardwareModelPredictor, HardwareSelector
from pytest_hfaccel.predict.distributed import (
    Blocks,
    Cluster,
    Layout,
    Plan,
    Split,
    Work,
    blocks_of,
    device_memory,
    layouts,
    plan,
)
from pytest_hfaccel.tracing.trace import ModelTrace
from tests.unit.predict.predict_samples import GIB, REPORT, block_trace

BLOCKS = Blocks(layers=12, width=768, heads=12, tokens=128)
CLUSTER = Cluster(8, 80 * GIB, 450e9, 50e9, 8, 1e-5, "NVLink")
GPT2 = {"n_embd": 768, "n_layer": 12, "n_head": 12}


def states_of_zero() -> ModelTrace:
    """The model of ZeRO's figure 1: 7.5 billion parameters, mixed precision with Adam, no activations."""
    trace = block_trace("GPT2LMHeadModel", {}, batch=1, length=1, dtype="fp16", training=True)
    parameters = 7_500_000_000
    optimizer = 12 * parameters
    return replace(
        trace,
        parameters=parameters,
        weight_bytes=2 * parameters,
        optimizer_bytes=optimizer,
        activation_bytes=optimizer + 2 * parameters,
    )


@pytest.mark.parametrize(("stage", "gigabytes"), [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_sharded_states_are_those_of_zeros_figure_1(stage: int, gigabytes: float) -> None:
    found = device_memory(states_of_zero(), BLOCKS, Layout(data=64, shards=stage))
    assert found.total / 1e9 == pytest.approx(gigabytes, abs=0.05)


def test_tensor_and_pipeline_parallelism_divide_all_states() -> None:
    one = device_memory(states_of_zero(), BLOCKS, Layout())
    split = device_memory(states_of_zero(), BLOCKS, Layout(tensor=4, pipeline=2, micro_batches=2))
    assert split.total == pytest.approx(one.total / 8)


def test_activations() -> None:
    small, trace = (block_trace("GPT2LMHeadModel", GPT2, batch=b, length=128, training=True) for b in (1, 8))
    # With few samples the peak is where all gradients are, with many where all activations are.
    kept = device_memory(small, BLOCKS, Layout()).activations
    assert kept == small.activation_bytes - small.optimizer_bytes - 4 * small.parameters
    kept = device_memory(trace, BLOCKS, Layout()).activations
    assert kept == trace.activation_bytes - trace.optimizer_bytes
    # 10 of the 34 parts of a block's activations are on every device (arXiv 2205.05198, equation 2).
    assert device_memory(trace, BLOCKS, Layout(tensor=8)).activations == pytest.approx(kept * (10 + 24 / 8) / 34)
    assert device_memory(trace, BLOCKS, Layout(recompute=True)).activations < kept / 2
    # A stage keeps the activations of as many micro-batches as there are stages: as much as without a pipeline.
    assert device_memory(trace, BLOCKS, Layout(pipeline=4, micro_batches=8)).activations == pytest.approx(kept)


def test_a_ring_all_reduce() -> None:
    # 2 (n - 1) / n of a gigabyte at 450 GB/s, and the start of the operator.
    assert CLUSTER.all_reduce(1e9, 8) == pytest.approx(2 * 7 / 8 / 450 + 1e-5)
    assert CLUSTER.gather(1e9, 8, times=2) == pytest.approx(2 * (7 / 8 / 450 + 1e-5))
    assert CLUSTER.all_reduce(1e9, 1) == CLUSTER.gather(1e9, 1) == 0.0
    assert CLUSTER.all_reduce(1e9, 8, span=64) == pytest.approx(2 * 7 / 8 / 50 + 1e-5)


def test_the_shape_of_a_model_is_in_its_trace() -> None:
    trace = block_trace("GPT2LMHeadModel", GPT2, batch=3, length=40)
    assert blocks_of(trace) == Blocks(12, 768, 12, 40)
    without = replace(trace, operators=tuple(one for one in trace.operators if "attention" not in one.name))
    assert blocks_of(without).width in (768, 8 * 768)
    assert blocks_of(replace(trace, operators=())).layers == 1


@pytest.mark.parametrize("devices", [1, 2, 6, 8, 12])
@pytest.mark.parametrize("training", [True, False])
def test_layouts_use_all_devices(devices: int, training: bool) -> None:
    found = list(layouts(devices, batch=16, training=training, layers=12, heads=12, per_machine=8))
    assert found
    for layout in found:
        assert layout.devices == devices
        assert 12 % layout.tensor == 0
        assert layout.data <= 16
        assert training or not (layout.shards or layout.recompute)
    assert len(set(found)) == len(found)


def plans_of(
    batch: int,
    cluster: Cluster = CLUSTER,
    *,
    training: bool = True,
    milliseconds: float = 100.0,
    dims: dict[str, int] | None = None,
) -> list[Plan]:
    """The ways to split a GPT-2 that takes so long per sample."""

    def work_at(size: int) -> Work:
        trace = block_trace("GPT2LMHeadModel", dims or GPT2, batch=size, length=128, dtype="bf16", training=training)
        value = milliseconds * size
        return Work(trace, Estimate(value, 0.7 * value, 1.5 * value))

    return plan(work_at, cluster, batch, training=training)


def test_a_small_model_is_copied() -> None:
    plans = plans_of(64)
    assert plans[0].fits
    assert plans[0].layout.strategy(training=True) == "DDP x8".replace(" x8", "")
    assert plans[0].step_ms.value == pytest.approx(800.0, rel=0.05)
    assert plans[0].step_ms.low < plans[0].step_ms.value < plans[0].step_ms.high


def test_a_large_model_is_sharded_or_split() -> None:
    large = {"n_embd": 6144, "n_layer": 48, "n_head": 64}
    plans = plans_of(8, dims=large)
    chosen = plans[0]
    assert chosen.fits
    assert chosen.layout.shards or chosen.layout.tensor > 1 or chosen.layout.pipeline > 1
    assert chosen.memory.total <= 0.9 * CLUSTER.memory_bytes
    copies = next(each for each in plans if each.layout == Layout(data=8))
    assert not copies.fits


def test_what_fits_nowhere_names_the_way_that_lacks_least() -> None:
    small = replace(CLUSTER, memory_bytes=GIB // 8)
    plans = plans_of(8, small)
    assert not plans[0].fits
    assert plans[0].memory.total == min(each.memory.total for each in plans)
    assert (
        "does not fit 8 devices in any of" in Split(plans, small, True, 6400.0, title="gpt2").to_json()["explanation"]
    )


def test_a_slow_link_makes_tensor_parallelism_unattractive() -> None:
    slow = replace(CLUSTER, link_bytes_per_second=1e8)
    fast_share, slow_share = (
        next(each for each in plans_of(8, cluster, training=False) if each.layout.tensor == 4 and each.layout.data == 2)
        for cluster in (CLUSTER, slow)
    )
    assert slow_share.communication_ms > 100 * fast_share.communication_ms
    assert slow_share.step_ms.value > fast_share.step_ms.value


def test_a_pipeline_idles_less_with_more_micro_batches() -> None:
    plans = plans_of(64)
    times = {
        each.layout.micro_batches: each.compute_ms
        for each in plans
        if each.layout.pipeline == 4 and each.layout.data == 2 and not each.layout.recompute and not each.layout.shards
    }
    assert times[1] > times[4] > times[16]
    # GPipe: (stages - 1) / micro-batches more than without idling.
    assert times[16] == pytest.approx(100.0 * 64 / 8 * (1 + 3 / 16), rel=0.1)


@pytest.mark.parametrize("training", [True, False])
def test_more_devices_need_no_more_memory_each(training: bool) -> None:
    best = [
        min(each.memory.total for each in plans_of(64, replace(CLUSTER, devices=devices), training=training))
        for devices in (1, 2, 4, 8, 16)
    ]
    assert best == sorted(best, reverse=True)


def test_a_plan_in_json_and_words() -> None:
    plans = plans_of(64)
    described = Split(plans, CLUSTER, True, 6400.0).to_json()
    assert described["strategy"] == "DDP"
    assert described["global_batch_size"] == 64
    assert described["per_gpu_batch_size"] == 8
    assert described["scaling_efficiency"] == pytest.approx(1.0, abs=0.05)
    memory = described["memory_per_device_gb"]
    parts = ("parameters_gb", "gradients_gb", "optimizer_gb", "activations_gb")
    assert sum(memory[name] for name in parts) == pytest.approx(memory["per_gpu_gb"])
    text = described["explanation"]
    assert text.startswith("DDP on 8 devices: ")
    assert "NVLink" in text


@pytest.fixture
def selector(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HardwareSelector:
    monkeypatch.setenv("HFACCEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BENCHMARK_DB_PATH", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pytest_hfaccel.tracing.traces.trace_of", block_trace)
    return HardwareSelector(predictor=HardwareModelPredictor(report=REPORT))


def test_a_model(selector: HardwareSelector) -> None:
    found = selector.select_hardware(
        "embedding", "bert-base-uncased", 8, available_hardware=["cuda", "cpu", "openvino"]
    )
    assert found["primary_recommendation"] == "cuda"
    assert len(found["fallback_options"]) == 2
    for key in ("all_scores", "compatible_hardware", "explanation", "prediction_source"):
        assert key in found


@pytest.mark.parametrize(
    ("task", "mode"), [("text-generation", "inference"), ("training", "training"), ("Fine-Tuning", "training")]
)
def test_a_task(selector: HardwareSelector, task: str, mode: str) -> None:
    found = selector.select_hardware_for_task("text_generation", "gpt2", task)
    assert (found["mode"], found["task_type"]) == (mode, task)
    assert "distributed_strategy" not in found


def test_a_distributed_task(selector: HardwareSelector) -> None:
    found = selector.select_hardware_for_task(
        "text_generation",
        "facebook/opt-1.3b",
        "training",
        batch_size=8,
        distributed=True,
        gpu_count=4,
        training_config={"mixed_precision": True},
    )
    assert found["precision"] == "bf16"
    assert found["gpu_count"] == 4
    assert found["distributed_strategy"] == found["distributed"]["strategy"]


def test_a_map_of_all_families(selector: HardwareSelector, tmp_path: Path) -> None:
    file = selector.save_selection_map(tmp_path / "maps" / "map.json")
    found = json.loads(Path(file).read_text(encoding="utf-8"))
    assert list(found["model_families"]) == list(MAP_FAMILIES)
    assert found["batch_sizes"] == list(MAP_BATCHES) == [1, 4, 16, 32, 64]
    for family in MAP_FAMILIES:
        entry = found["model_families"][family]
        assert set(entry["model_sizes"]) == {"small", "medium", "large"}
        for mode in ("inference", "training"):
            assert set(entry[mode]["batch_sizes"]) == {"1", "4", "16", "32", "64"}
            assert entry["model_sizes"]["small"][mode]["primary"] in ("cpu", "openvino:CPU")
    assert found["model_families"]["embedding"]["model_sizes"]["medium"]["model"] == "bert-base-uncased"


def test_a_map_of_one_family(selector: HardwareSelector) -> None:
    found = selector.create_hardware_selection_map(["vision"], [1, 2], ["cuda", "cpu"])
    assert set(found["model_families"]["vision"]["inference"]["batch_sizes"]) == {"1", "2"}
    with pytest.raises(ConfigError, match="'pictures' is not a family"):
        selector.create_hardware_selection_map(["pictures"])


def test_a_map_that_cannot_be_written(selector: HardwareSelector, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be written"):
        selector.save_selection_map(tmp_path / "file" / "map.json")


def test_a_training_on_many_devices(selector: HardwareSelector) -> None:
    found = selector.get_distributed_training_config("text_generation", "gpt2", gpu_count=4, batch_size=8)
    assert (found["model_family"], found["model_name"], found["gpu_count"]) == ("text_generation", "gpt2", 4)
    assert (found["per_gpu_batch_size"], found["global_batch_size"]) == (8, 32)
    assert (found["mixed_precision"], found["precision"]) == (True, "bf16")
    memory = found["estimated_memory"]
    assert memory["total_gb"] == pytest.approx(4 * memory["per_gpu_gb"])
    assert found["fits"]
    assert found["distributed_strategy"] in found["explanation"]


def test_less_memory_needs_more_tricks(selector: HardwareSelector) -> None:
    ample = selector.get_distributed_training_config("text_generation", "llama-7b", 4, 8)
    scarce = selector.get_distributed_training_config("text_generation", "llama-7b", 4, 8, max_memory_gb=40)
    assert scarce["estimated_memory"]["per_gpu_gb"] <= 36
    assert scarce["memory_optimizations"]
    assert scarce["throughput"] <= ample["throughput"]
    none = selector.get_distributed_training_config("text_generation", "llama-7b", 4, 8, max_memory_gb=2)
    assert not none["fits"]
    assert "does not fit 4 devices" in none["explanation"]


@pytest.mark.parametrize(
    ("strategy", "name"), [("DDP", "DDP"), ("FSDP", "FSDP"), ("DeepSpeed", "ZeRO"), ("tensor", "tensor parallel x4")]
)
def test_a_strategy_can_be_asked_for(selector: HardwareSelector, strategy: str, name: str) -> None:
    found = selector.get_distributed_training_config("text_generation", "gpt2", 4, 8, strategy)
    assert found["distributed_strategy"].startswith((name, "FSDP") if strategy == "DeepSpeed" else name)


def test_a_chip_without_bf16_trains_at_fp16(selector: HardwareSelector) -> None:
    assert selector.get_distributed_training_config(None, "gpt2", 2, 4, hardware="cuda:t4")["precision"] == "fp16"
    plain = selector.get_distributed_training_config(None, "gpt2", 2, 4, use_mixed_precision=False)
    assert plain["precision"] == "fp32"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strategy": "magic"}, "'magic' is not a strategy. Allowed: DDP, FSDP"),
        ({"gpu_count": 0}, "1 or more"),
        ({"hardware": "cpu"}, "models are not split over such devices"),
        ({"model_name": "foo-bar"}, "its time on cuda"),
        ({"gpu_count": 5, "strategy": "tensor"}, "cannot be split by 'tensor' over 5 devices"),
    ],
)
def test_mistakes(selector: HardwareSelector, arguments: dict[str, object], message: str) -> None:
    asked = {"model_family": None, "model_name": "gpt2", "gpu_count": 4, "batch_size": 8, **arguments}
    with pytest.raises(ConfigError) as caught:
        selector.get_distributed_training_config(**asked)  # type: ignore[arg-type]
    assert message in caught.value.message
