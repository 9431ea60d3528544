"""The configuration file: what it can say, and what it says of mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.predict.configuration import WEIGHTS, PredictorConfig


def read(folder: Path, content: Any, name: str = "config.json") -> PredictorConfig:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return PredictorConfig.read(path)


def test_everything_can_be_said(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        {
            "devices": {"cuda": "h100-sxm"},
            "hardware": ["cuda", "cpu"],
            "weights": {"inference": {"memory": 1}},
            "threads": 2,
            "models_dir": "models",
            "store_predictions": False,
            "network_gb_per_second": 12.5,
            "devices_per_machine": 4,
            "cache_dir": "cache",
            "reports": "reports",
        },
    )
    assert found.devices == {"cuda": "h100-sxm"}
    assert found.hardware == ("cuda", "cpu")
    assert found.weights["inference"] == {**WEIGHTS["inference"], "memory": 1}
    assert found.weights["training"] == WEIGHTS["training"]
    assert (found.threads, found.store_predictions, found.devices_per_machine) == (2, False, 4)


@pytest.mark.parametrize("content", ["{}", "", "# nothing\n"])
def test_nothing_need_be_said(tmp_path: Path, content: str) -> None:
    assert read(tmp_path, content) == PredictorConfig()


def test_it_may_be_yaml(tmp_path: Path) -> None:
    assert read(tmp_path, "devices:\n  rocm: mi250x\n", "config.yaml").devices == {"rocm": "mi250x"}


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    mistakes = {
        "device": {},
        "devices": ["cuda"],
        "hardware": "cuda",
        "threads": 0,
        "store_predictions": "yes",
        "network_gb_per_second": -1,
        "models_dir": 7,
        "weights": {"inference": {"latencies": 1, "memory": "much"}, "train": {}},
    }
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, mistakes)
    message = caught.value.message
    assert len(message.splitlines()) == 10
    assert "config.json: device: there is no such key. Did you mean 'devices'?" in message
    assert "threads: 0 is not allowed. Wanted: a whole number, 1 or more." in message
    assert "weights.inference.latencies: there is no such key. Did you mean 'latency'?" in message
    assert "weights.inference.memory: 'much' is not allowed." in message
    assert "weights.train: there is no such key." in message


@pytest.mark.parametrize(
    ("content", "message"),
    [("{[", "neither JSON nor YAML"), ("[1, 2]", "must be an object"), ("7", "must be an object")],
)
def test_other_files(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, content)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        PredictorConfig.read(tmp_path / "none.json")
