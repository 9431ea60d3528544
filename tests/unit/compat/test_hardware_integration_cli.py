"""`hfaccel recommend | requirements | pool-config`: what they print, over a classifier with known answers."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.cli import recommend
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware import HardwareReport, Presence
from pytest_hfaccel.predict.requirements import ArchitectureCost, RunCost
from tests.unit.predict.predict_samples import block_trace

GIB = 2**30
FACTS = {"cores": 8, "available_bytes": 12 * GIB}
MACHINE = HardwareReport((Presence(Device("cpu"), True, "8 cores", "a CPU", 16 * GIB, FACTS),))


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def cost(*_: Any, length: int, cache_dir: Path) -> ArchitectureCost:
        assert cache_dir == tmp_path / "cache"
        return ArchitectureCost(10**8, 0, 0, length, RunCost(0, 10**7, 10**6, 10**10, 10**8))

    monkeypatch.setenv("HFACCEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HFACCEL_REPORTS", str(tmp_path / "reports"))
    monkeypatch.setattr("pytest_hfaccel.compat.hardware_model_integration.cost_of", cost)
    monkeypatch.setattr("pytest_hfaccel.tracing.traces.trace_of", block_trace)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("BENCHMARK_DB_PATH", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pytest_hfaccel.hardware.probe_devices", lambda: MACHINE)


def run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    recommend.add_parser(commands)
    given = parser.parse_args(arguments)
    assert given.run(given) == code
    return capsys.readouterr().out


@pytest.mark.parametrize("arguments", [("bert-base-uncased",), ("--model", "bert-base-uncased", "--task", "fill-mask")])
def test_a_model(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    lines = run(capsys, "recommend", *arguments).splitlines()
    assert lines[:5] == [
        "=== Hardware-Aware Classification for bert-base-uncased ===",
        "Family: embedding",
        "Subfamily: masked_lm",
        "Recommended Hardware: cpu",
        "Recommended Template: hf_embedding_template.py",
    ]
    assert "  batch_size: 32" in lines
    assert "  cuda: \N{WHITE HEAVY CHECK MARK} (System: \N{CROSS MARK}) declared untested" in lines


def test_an_unknown_model(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "recommend", "my-custom-model", code=1)
    assert out.startswith("NO NUMBERS for my-custom-model: dimensions not known: ")
    assert "  min_memory_mb: not known" in out
    assert run(capsys, "pool-config", "my-custom-model", "gpt2", code=1).startswith("NO NUMBERS for my-custom-model")
    assert run(capsys, "recommend", "me/my-clap", "--assume-default").startswith("NOT me/my-clap itself: ClapModel")


def test_a_task(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "recommend", "--task", "image-classification", "--hw", "cuda")
    assert "Hardware constraints: cuda" in out
    assert "1. google/vit-base-patch16-224" in out
    assert "   Optimal hardware: cuda" in out


def test_a_pool(capsys: pytest.CaptureFixture[str]) -> None:
    models = ("bert-base-uncased", "gpt2", "vit-base-patch16-224")
    out = run(capsys, "pool-config", *models)
    assert out == run(capsys, "recommend", "--resource-config", *models)
    assert "Low memory mode: no" in out
    assert "Preferred hardware: cpu" in out


def test_requirements(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "requirements", "gpt2", "--hw", "cuda", "--dtype", "bf16", "--length", "64")
    assert out.startswith("=== Resource Requirements for gpt2 on cuda at bf16 ===\n")
    assert "activations_mb: 5 (one sample, 64 tokens of text)" in out
    assert "fits: not known" in out


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (("recommend", "gpt2"), "recommended_hardware"),
        (("recommend", "--task", "fill-mask"), "recommendations"),
        (("requirements", "gpt2"), "cpu"),
        (("pool-config", "gpt2"), "resource_pool_config"),
    ],
)
def test_json(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], key: str) -> None:
    assert key in json.loads(run(capsys, *arguments, "--json"))


def test_mistakes() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    recommend.add_parser(commands)
    for arguments, text in ((["recommend"], "name a model"), (["requirements", "gpt2", "--length", "0"], "1 or more")):
        given = parser.parse_args(arguments)
        with pytest.raises(ConfigError, match=text):
            given.run(given)
