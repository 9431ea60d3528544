"""The fake backend does what its script says."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.backends import Backends, WeightChange
from pytest_hfaccel.backends.base import Backend
from pytest_hfaccel.backends.fake.backend import FakeBackend
from pytest_hfaccel.core.errors import BackendUnavailable, ConfigError, LoadError, OutOfMemory
from pytest_hfaccel.core.spec import Cell, Device, ModelSpec, Weights, WeightsChoice


def make_cell(name: str = "gpt2") -> Cell:
    spec = ModelSpec(name, "GPT2LMHeadModel", "text-generation")
    return Cell(spec, Device.parse("fake:0"), "fp32", WeightsChoice(Weights.TINY, "test"))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """Set the script; returns the log's path."""

    def write(**by_pattern: dict[str, Any]) -> Path:
        monkeypatch.setenv("HFACCEL_FAKE", json.dumps(by_pattern))
        monkeypatch.setenv("HFACCEL_FAKE_LOG", str(tmp_path / "log"))
        return tmp_path / "log"

    return write


def events(log: Path) -> list[str]:
    return [json.loads(line)["event"] for line in log.read_text().splitlines()]


def test_it_is_served_by_name_and_is_a_backend() -> None:
    backend = Backends().for_kind("fake")
    assert isinstance(backend, Backend)


@pytest.mark.parametrize(
    ("installed", "told"),
    [
        ("5.22.3", r"need the exporters of transformers 5\.23 or newer, and 5\.22\.3 is installed; pip install"),
        ("5.30.0", r"cannot be imported: No module named 'transformers\.exporters\.of_a_later_release'"),
    ],
)
def test_an_older_transformers_is_named_with_the_one_that_a_backend_needs(
    installed: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_hfaccel.backends.version", lambda _: installed)
    (tmp_path / "backend_of_exports.py").write_text("import transformers.exporters.of_a_later_release\n")
    monkeypatch.syspath_prepend(tmp_path)
    backends = Backends()
    backends.register("exports", "backend_of_exports:Backend")
    with pytest.raises(BackendUnavailable, match=told):
        backends.for_kind("exports")


def test_a_run_is_logged_and_reproducible(script: Callable[..., Path]) -> None:
    log = script()
    backend = FakeBackend()
    loaded = backend.load(make_cell())
    first = loaded.forward({})
    assert loaded.forward({}) == first
    assert FakeBackend().load(make_cell()).forward({}) == first
    assert backend.load(make_cell("bert")).forward({}) != first
    loaded.close()
    assert events(log) == ["load", "forward", "forward", "load", "forward", "load", "forward", "close"]
    assert loaded.placement.implementation == "emulated"


def test_wrong_outputs(script: Callable[..., Path]) -> None:
    right = FakeBackend().load(make_cell()).forward({})
    script(gpt2={"wrong": True})
    wrong = FakeBackend().load(make_cell())
    assert wrong.forward({}) != right
    with wrong.perturbed(WeightChange("w", 0, 1.0)) as changed:
        assert changed.forward({}) == right


def test_the_first_matching_pattern_counts(script: Callable[..., Path]) -> None:
    script(**{"gpt*": {"nbytes": 5}, "*": {"nbytes": 7}})
    backend = FakeBackend()
    assert backend.load(make_cell("gpt2")).nbytes == 5
    assert backend.load(make_cell("bert")).nbytes == 7


@pytest.mark.parametrize("stage", ["load", "convert", "compile"])
def test_loading_fails_at_a_stage(script: Callable[..., Path], stage: str) -> None:
    script(gpt2={"fail_stage": stage})
    with pytest.raises(LoadError) as caught:
        FakeBackend().load(make_cell())
    assert caught.value.stage == stage


def test_running_fails(script: Callable[..., Path]) -> None:
    script(gpt2={"fail_stage": "run"})
    with pytest.raises(RuntimeError, match="the script says"):
        FakeBackend().load(make_cell()).forward({})


def test_memory_runs_out_before_it_suffices(script: Callable[..., Path]) -> None:
    script(gpt2={"oom_first": 2})
    backend = FakeBackend()
    for _ in range(2):
        with pytest.raises(OutOfMemory):
            backend.load(make_cell())
    assert backend.load(make_cell()).nbytes > 0


@pytest.mark.parametrize(
    "text", ["[", "[1]", '{"*": {"typo": 1}}', '{"*": {"fail_stage": "never"}}', '{"*": {"crash": "X"}}']
)
def test_a_script_with_mistakes(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("HFACCEL_FAKE", text)
    with pytest.raises(ConfigError, match="HFACCEL_FAKE"):
        FakeBackend().load(make_cell())


CRASH = """
from tests.unit.backends.test_backends_fake import FakeBackend, make_cell
FakeBackend().load(make_cell()).forward({})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_crash_kills_the_process(script: Callable[..., Path]) -> None:
    script(gpt2={"crash": "SIGKILL"})
    done = subprocess.run([sys.executable, "-c", CRASH], check=False, cwd=Path(__file__).parents[3])
    assert done.returncode == -signal.SIGKILL
