"""The classifier of the guide "hardware-model integration": its answers and its machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.compat.hardware_model_integration import HardwareAwareModelClassifier
from pytest_hfaccel.core.errors import ConfigError, LoadError
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware import HardwareReport, Presence
from pytest_hfaccel.predict.requirements import ArchitectureCost, RunCost
from tests.unit.predict.predict_samples import block_trace

GIB = 2**30


def machine(*presences: Presence, memory: int = 16, available: int = 12) -> HardwareReport:
    """A machine with so many GiB of main memory, and other devices."""
    facts = {"cores": 8, "available_bytes": available * GIB}
    return HardwareReport((Presence(Device("cpu"), True, "8 cores", "a CPU", memory * GIB, facts), *presences))


OPENVINO = Presence(Device("openvino", "CPU"), True, "openvino", "a CPU", 16 * GIB)
MACHINE = machine(OPENVINO)
PARAMETERS = {"GPT2LMHeadModel": 124_439_808, "LlamaForCausalLM": 6_738_415_616}


def cost(architecture: str, _dims: Any, *, length: int, cache_dir: Path) -> ArchitectureCost:
    assert cache_dir.name
    if architecture == "NoSuchModel":
        raise LoadError("there is no such class")
    run = RunCost(0, 10**7, 10**6, 10**10, 10**8)
    return ArchitectureCost(PARAMETERS.get(architecture, 10**8), 0, 0, length, run)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # huggingface_hub reads the variable when it is imported, which an earlier test may have done.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HFACCEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("pytest_hfaccel.compat.hardware_model_integration.cost_of", cost)
    monkeypatch.setattr("pytest_hfaccel.tracing.traces.trace_of", block_trace)
    monkeypatch.delenv("BENCHMARK_DB_PATH", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def classifier(tmp_path: Path) -> HardwareAwareModelClassifier:
    return HardwareAwareModelClassifier(reports=tmp_path / "reports", machine=MACHINE)


@pytest.mark.parametrize(
    ("name", "family", "subfamily", "template"),
    [
        ("bert-base-uncased", "embedding", "masked_lm", "hf_embedding_template.py"),
        ("gpt2", "text_generation", "causal_lm", "hf_text_generation_template.py"),
        ("vit-base-patch16-224", "vision", "image_classifier", "hf_vision_template.py"),
    ],
)
def test_the_examples_of_the_guide(
    classifier: HardwareAwareModelClassifier, name: str, family: str, subfamily: str, template: str
) -> None:
    answer = classifier.classify_model(name)
    assert (answer["model_name"], answer["family"], answer["subfamily"]) == (name, family, subfamily)
    assert answer["recommended_template"] == template
    assert (answer["recommended_hardware"], answer["torch_device"]) == ("openvino", "cpu")
    assert "the fastest of those considered" in answer["explanation"]
    assert answer["source"] == "datasheet"
    assert set(answer["hardware_profile"]) >= {"cuda", "mps", "rocm", "openvino", "webnn", "webgpu", "cpu"}
    assert json.loads(json.dumps(answer)) == answer


def test_a_smaller_dtype_is_recommended_where_the_full_one_does_not_fit(
    classifier: HardwareAwareModelClassifier,
) -> None:
    answer = classifier.classify_model("meta-llama/Llama-2-13b")
    # 13e9 parameters are 48 GiB at fp32, 24 at bf16: neither fits 70 % of 16 GiB.
    assert answer["resource_requirements"]["fits"] is False
    assert (answer["recommended_hardware"], answer["torch_device"]) == (None, None)
    assert answer["explanation"].startswith("No hardware considered can run it")
    answer = HardwareAwareModelClassifier(machine=machine(memory=48), reports="none").classify_model(
        "meta-llama/Llama-2-13b"
    )
    assert (answer["recommended_dtype"], answer["resource_requirements"]["fits"]) == ("bf16", True)


def test_a_custom_profile_is_believed(classifier: HardwareAwareModelClassifier) -> None:
    profile: dict[str, dict[str, Any]] = {
        "cuda": {"compatible": True, "memory_usage": {"peak": 2000}},
        "mps": {"compatible": False},
        "cpu": {"compatible": False},
    }
    answer = classifier.classify_model("gpt2", hw_compat_override=profile)
    found = answer["hardware_profile"]
    assert (found["mps"]["compatible"], found["mps"]["basis"]) == (False, "override")
    assert found["cuda"]["memory_usage"] == {"peak": 2000}
    assert (found["rocm"]["basis"], found["rocm"]["support"]) == ("declared", "untested")
    assert answer["recommended_hardware"] == "openvino"


def test_an_unknown_model_has_no_made_up_numbers(classifier: HardwareAwareModelClassifier) -> None:
    answer = classifier.classify_model("my-custom-model")
    assert answer["family"] == "unknown"
    assert answer["resource_requirements"]["min_memory_mb"] is None
    assert answer["dimensions"] == "unknown"
    assert "switches the hub off" in answer["model"]


def test_a_default_config_stands_in_only_where_that_was_asked_for(tmp_path: Path) -> None:
    def classify(*, assume_default: bool) -> dict[str, Any]:
        classifier = HardwareAwareModelClassifier(reports=tmp_path, machine=MACHINE, assume_default=assume_default)
        return classifier.classify_model("me/my-clap")

    unknown = classify(assume_default=False)
    assert (unknown["dimensions"], unknown["resource_requirements"]["min_memory_mb"]) == ("unknown", None)
    assumed = classify(assume_default=True)
    assert assumed["dimensions"] == "assumed"
    assert assumed["resource_requirements"]["min_memory_mb"] > 0
    assert "ClapModel's default config, assumed because" in assumed["model"]


def test_well_known_dimensions_are_those_of_the_predictor(classifier: HardwareAwareModelClassifier) -> None:
    answer = classifier.classify_model("facebook/opt-1.3b")
    assert answer["dimensions"] == "known"
    assert answer["model"] == "dimensions of facebook/opt-1.3b"


def test_a_bool_is_a_profile(classifier: HardwareAwareModelClassifier) -> None:
    answer = classifier.classify_model("gpt2", hw_compat_override={"cuda": True, "openvino": False})
    found = answer["hardware_profile"]
    assert (found["cuda"]["compatible"], found["cuda"]["support"]) == (True, "real")
    assert not found["openvino"]["compatible"]
    assert answer["recommended_hardware"] == "cpu"
    no_bool: Any = {"cuda": "yes"}
    with pytest.raises(ConfigError, match="hw_compat_override: cuda: 'yes' is not allowed"):
        classifier.classify_model("gpt2", hw_compat_override=no_bool)


def test_unknown_hardware_is_refused(classifier: HardwareAwareModelClassifier) -> None:
    with pytest.raises(ConfigError, match="hardware: 'gpu' is not a kind of device"):
        classifier.classify_model("gpt2", hardware=["gpu"])
    with pytest.raises(ConfigError, match="hw_compat_override: 'gpu'"):
        classifier.classify_model("gpt2", hw_compat_override={"gpu": {"compatible": True}})


def test_compatible_models(classifier: HardwareAwareModelClassifier) -> None:
    models = ["gpt2", "meta-llama/Llama-2-13b", "llava-hf/llava-1.5-7b-hf"]
    assert classifier.get_compatible_models_for_hardware(models, "cuda") == models
    assert classifier.get_compatible_models_for_hardware(models, "openvino") == ["gpt2"]
    assert "gpt2" in classifier.get_compatible_models_for_hardware("cpu")
    assert classifier.get_compatible_models_for_hardware(["unknown/foo-bar"], "cuda") == []


def test_one_name_means_itself(classifier: HardwareAwareModelClassifier) -> None:
    assert list(classifier.get_optimal_resource_pool_config("gpt2")["models"]) == ["gpt2"]
    asked = classifier.recommend_model_for_task("text-generation", hardware_constraints="cuda", limit=1)
    assert asked["hardware_constraints"] == ["cuda"]
    assert classifier.classify_model("gpt2", hardware="cpu")["recommended_hardware"] == "cpu"


def test_recommendations_for_a_task(classifier: HardwareAwareModelClassifier) -> None:
    found = classifier.recommend_model_for_task(task="text-generation")
    names = [model["model_name"] for model in found["recommendations"]]
    assert names[0] == "gpt2"
    assert "meta-llama/Llama-2-13b" in found["excluded"]
    assert "does not fit" in found["excluded"]["meta-llama/Llama-2-13b"]
    assert all(model["explanation"] and model["source"] for model in found["recommendations"])
    asked = classifier.recommend_model_for_task("Text_Generation", hardware_constraints=["cuda"], limit=2)
    assert [model["recommended_hardware"] for model in asked["recommendations"]] == ["cuda", "cuda"]
    assert asked["hardware_constraints"] == ["cuda"]


def test_other_names_of_tasks_and_unknown_ones(classifier: HardwareAwareModelClassifier) -> None:
    assert classifier.recommend_model_for_task("translation")["task"] == "text2text-generation"
    no_task: Any = None
    with pytest.raises(ConfigError, match="task: None is not a task"):
        classifier.recommend_model_for_task(no_task)
    with pytest.raises(ConfigError, match="Did you mean 'text-generation'"):
        classifier.recommend_model_for_task("text-generatoin")


def test_the_pool_configuration(classifier: HardwareAwareModelClassifier) -> None:
    config = classifier.get_optimal_resource_pool_config(["bert-base-uncased", "gpt2", "my-custom-model"])
    pool, needs = config["resource_pool_config"], config["resource_requirements"]
    assert (pool["low_memory_mode"], pool["recommended_timeout_mins"]) == (False, 30)
    assert needs["unknown_models"] == ["my-custom-model"]
    assert needs["max_memory_mb"] < needs["total_memory_mb"] < 2 * needs["max_memory_mb"]
    assert config["hardware_recommendations"]["preferred_hardware"] == "openvino"
    assert json.loads(json.dumps(config)) == config


@pytest.mark.parametrize(("available", "total", "minutes"), [(3, 8, 10), (3, 64, 5), (60, 64, 30)])
def test_little_memory_means_low_memory_mode(available: int, total: int, minutes: int, tmp_path: Path) -> None:
    classifier = HardwareAwareModelClassifier(reports=tmp_path, machine=machine(memory=total, available=available))
    config = classifier.get_optimal_resource_pool_config(["gpt2"])
    assert config["resource_pool_config"]["low_memory_mode"] is (available < 4)
    assert config["resource_pool_config"]["recommended_timeout_mins"] == minutes


def test_requirements_by_device(classifier: HardwareAwareModelClassifier) -> None:
    found = classifier.get_requirements("gpt2", hardware=["cuda", "cpu"], dtype="bf16")
    assert list(found) == ["cuda", "cpu"]
    assert found["cuda"]["weights_mb"] == 238
    assert found["cpu"]["min_memory_mb"] > found["cuda"]["min_memory_mb"]
    assert list(classifier.get_requirements("gpt2")) == ["openvino", "cpu"]
    with pytest.raises(ConfigError, match="fp61"):
        classifier.get_requirements("gpt2", dtype="fp61")
    with pytest.raises(ConfigError, match="Its name contains no model type"):
        classifier.get_requirements("my-custom-model")


def test_the_matrix_says_what_is_declared(classifier: HardwareAwareModelClassifier) -> None:
    matrix = classifier.get_compatibility_matrix()
    assert {entry["basis"] for row in matrix.values() for entry in row.values()} == {"declared"}


def test_the_database_keeps_classifications(tmp_path: Path) -> None:
    file = tmp_path / "models.json"
    classifier = HardwareAwareModelClassifier(model_db_path=file, reports=tmp_path, machine=MACHINE)
    first = classifier.classify_model("gpt2")
    assert first["classification_source"] == "combined_analysis"
    assert classifier.classify_model("gpt2")["classification_source"] == "model_database"
    assert "gpt2" in file.read_text()


def test_the_largest_device_of_a_kind_counts(tmp_path: Path) -> None:
    small, large = (
        Presence(Device("cuda", index), True, index, memory_bytes=size) for index, size in (("0", 1), ("1", 24 * GIB))
    )
    for devices, fits in (([small], False), ([small, large], True), ([large, small], True)):
        classifier = HardwareAwareModelClassifier(machine=machine(*devices), reports=tmp_path)
        assert classifier.get_requirements("gpt2")["cuda"]["fits"] is fits


def test_an_absent_device_has_its_reason_and_no_memory(tmp_path: Path) -> None:
    absent = Presence(Device("cuda", "0"), False, "no driver", memory_bytes=8)
    classifier = HardwareAwareModelClassifier(machine=machine(absent), reports=tmp_path)
    assert list(classifier.get_requirements("gpt2")) == ["cpu"]
    assert classifier.get_requirements("gpt2", hardware="cuda")["cuda"]["fits"] is None
    profile = classifier.classify_model("gpt2")["hardware_profile"]
    assert profile["cuda"]["explanation"].startswith("cuda: not present (no driver)")
    assert profile["rocm"]["explanation"].startswith("rocm: not present (not found on this machine)")


def test_the_memory_of_openvino_is_that_of_its_gpu(tmp_path: Path) -> None:
    gpu = Presence(Device("openvino", "GPU.0"), True, "a GPU", memory_bytes=1)
    for devices, fits in (([OPENVINO], True), ([OPENVINO, gpu], False)):
        classifier = HardwareAwareModelClassifier(machine=machine(*devices), reports=tmp_path)
        assert classifier.get_requirements("gpt2")["openvino"]["fits"] is fits
