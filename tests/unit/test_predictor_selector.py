"""`HardwareSelector`: one model, a task, a map of all families, a training on many devices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.predict import HardwareModelPredictor, HardwareSelector
from pytest_hfaccel.predict.hardware_selector import MAP_BATCHES, MAP_FAMILIES
from tests.unit.predictor_samples import REPORT, block_trace


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
