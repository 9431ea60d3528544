"""The prediction matrix."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import validate

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.predict import HardwareModelPredictor
from pytest_hfaccel.predict.text import matrix_text
from tests.unit.predict.predict_samples import REPORT, block_trace

NUMBER = {"type": "number", "exclusiveMinimum": 0}
CELL = {
    "type": "object",
    "required": ["throughput", "latency_mean", "memory_usage"],
    "properties": {"throughput": NUMBER, "latency_mean": NUMBER, "memory_usage": NUMBER},
}
BY_BATCH = {"type": "object", "patternProperties": {"^[0-9]+$": {"type": "object", "additionalProperties": CELL}}}
MODEL = {
    "type": "object",
    "required": ["name", "category", "predictions"],
    "properties": {
        "name": {"type": "string"},
        "category": {"type": "string"},
        "predictions": {"type": "object", "additionalProperties": {**BY_BATCH, "additionalProperties": False}},
    },
}
FORMAT = {
    "type": "object",
    "required": ["timestamp", "mode", "models", "hardware_platforms", "batch_sizes", "precision_options"],
    "properties": {
        "timestamp": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"},
        "mode": {"enum": ["inference", "training"]},
        "models": {"type": "object", "additionalProperties": MODEL},
        "hardware_platforms": {"type": "array", "items": {"type": "string"}},
        "batch_sizes": {"type": "array", "items": {"type": "integer"}},
        "precision_options": {"type": "array", "items": {"enum": ["fp32", "bf16", "fp16", "int8"]}},
    },
}
"""The format of the guide's "Prediction Matrix Format", as a JSON schema."""

EXAMPLE: dict[str, Any] = {
    "timestamp": "2025-03-02T00:00:00Z",
    "mode": "inference",
    "models": {
        "bert-base-uncased": {
            "name": "bert-base-uncased",
            "category": "embedding",
            "predictions": {
                "cuda": {"1": {"fp32": {"throughput": 120.5, "latency_mean": 8.3, "memory_usage": 850.2}}},
                "cpu": {"1": {"fp32": {"throughput": 25.3, "latency_mean": 39.5, "memory_usage": 800.1}}},
            },
        }
    },
    "hardware_platforms": ["cuda", "cpu", "openvino"],
    "batch_sizes": [1, 8, 32],
    "precision_options": ["fp32", "fp16"],
}
MODELS = [
    {"name": "bert-base-uncased", "family": "embedding"},
    {"name": "t5-small", "family": "text_generation"},
    {"name": "gpt2", "family": "text_generation"},
    {"name": "vit-base-patch16-224", "family": "vision"},
]


@pytest.fixture
def predictor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HardwareModelPredictor:
    monkeypatch.setenv("HFACCEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("BENCHMARK_DB_PATH", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pytest_hfaccel.tracing.traces.trace_of", block_trace)
    return HardwareModelPredictor(report=REPORT)


def test_the_guides_own_example_has_the_format() -> None:
    validate(EXAMPLE, FORMAT)


def test_the_guides_matrix(predictor: HardwareModelPredictor) -> None:
    matrix = predictor.create_hardware_prediction_matrix(
        models=MODELS,
        batch_sizes=[1, 16, 64],
        hardware_platforms=["cuda", "cpu", "openvino"],
        precision="fp16",
        mode="inference",
    )
    again = json.loads(json.dumps(matrix))
    assert again == matrix
    validate(again, FORMAT)
    assert list(again["models"]) == [model["name"] for model in MODELS]
    assert again["precision_options"] == ["fp16"]
    assert set(again["models"]["gpt2"]["predictions"]) == {"cuda"}
    assert "hfaccel calibrate --dtype fp16" in again["models"]["gpt2"]["not_predicted"]["cpu"]
    assert set(again["models"]["gpt2"]["predictions"]["cuda"]) == {"1", "16", "64"}
    datetime.strptime(again["timestamp"], "%Y-%m-%dT%H:%M:%SZ").astimezone()


def test_the_default_matrix(predictor: HardwareModelPredictor) -> None:
    told: list[tuple[int, int, str]] = []
    matrix = predictor.create_hardware_prediction_matrix(progress=lambda *step: told.append(step))
    validate(matrix, FORMAT)
    assert len(told) == len(matrix["models"]) >= 5
    assert told[0] == (0, len(told), "bert-base-uncased")
    assert len({model["category"] for model in matrix["models"].values()}) >= 5
    assert matrix["precision_options"] == ["fp32", "fp16", "int8"]
    webnn = matrix["models"]["bert-base-uncased"]["not_predicted"]["webnn"]
    assert webnn.startswith("declared real: declared for the embedding family; ")
    assert "it is not in this machine, and no calibration of it is at hand: `hfaccel calibrate --device webnn`" in webnn
    assert "webnn" not in matrix["models"]["bert-base-uncased"]["predictions"]


def test_a_cell_says_whether_it_fits_and_where_it_comes_from(predictor: HardwareModelPredictor) -> None:
    matrix = predictor.create_hardware_prediction_matrix(
        ["llama-70b"], [1], ["cuda:l4"], precision_options=["fp16", "int8"]
    )
    cell = matrix["models"]["llama-70b"]["predictions"]["cuda:l4"]["1"]["fp16"]
    assert cell["fits"] is False
    assert cell["source"] == "datasheet"
    assert cell["latency_low"] < cell["latency_mean"] < cell["latency_high"]
    assert matrix["devices"]["cuda:l4"]["name"] == "NVIDIA L4"
    text = matrix_text(matrix)
    assert "does not fit" in text
    assert "Latency at int8:" in text


def test_mistakes(predictor: HardwareModelPredictor) -> None:
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"batch_sizes": [0]}, "batch_size: 0"),
        ({"precision": "fp8"}, "'fp8' is not a precision"),
        ({"hardware_platforms": ["tpu"]}, "'tpu' is not a kind of hardware"),
        ({"models": [{"family": "vision"}]}, "is not a model"),
    ]
    for changed, message in mistakes:
        with pytest.raises(ConfigError, match=message):
            predictor.create_hardware_prediction_matrix(**{"models": ["gpt2"], **changed})
