"""`hfaccel bisect` from end to end: a break planted in a package, and in a commit."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.bisect.releases import IndexSettings, list_releases
from pytest_hfaccel.core.errors import HfAccelError
from tests.harness import Project, environment
from tests.wheels import serve_index, write_wheel

pytestmark = [pytest.mark.slow, pytest.mark.nightly]

DEVICES = Path(__file__).parents[2] / "docs" / "devices.md"

# The backend of the guide, with a package of somebody else's in it.
_CONFTEST = """
import sofa
import tinygain

forward = sofa.SofaModel.forward
sofa.SofaModel.forward = lambda self, inputs: {k: tinygain.scaled(x) for k, x in forward(self, inputs).items()}


def pytest_hfaccel_backends(backends):
    backends.register("sofa", sofa.SofaBackend())
"""
_CELL = ("bert-base-uncased", "--device", "sofa:0", "--weights", "tiny")
_TESTS = ("--tests", "test_hf_bert.py")


@pytest.fixture
def sofa(project: Project) -> Project:
    """A project whose device multiplies all outputs by what the package `tinygain` says."""
    blocks = re.findall(r"```python\n(.*?)```", DEVICES.read_text(encoding="utf-8"), re.DOTALL)
    project.write("sofa.py", next(block for block in blocks if "class SofaBackend" in block))
    project.write("conftest.py", _CONFTEST)
    return project


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """Five releases of `tinygain`, of which 1.3 broke it."""
    gains = {"1.0": "1.0", "1.1": "1.0 + 1e-7", "1.2": "1.0", "1.3": "1.01", "1.4": "1.02"}
    for version, gain in gains.items():
        write_wheel(tmp_path / "wheels", "tinygain", version, f"def scaled(x):\n    return x * ({gain})\n")
    with serve_index(tmp_path / "wheels", {}) as address:
        yield address


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "pytest_hfaccel", "bisect", *arguments]


def _environment(project: Project, cache: Path, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in environment(project.cache, **more).items() if not key.startswith("UV_")}
    return {**kept, "HFACCEL_CACHE": str(cache)}


def _bisect(
    project: Project, cache: Path, *arguments: str, code: int = 0, env: Mapping[str, str] = {}
) -> dict[str, Any]:
    done = subprocess.run(
        _command(*arguments),
        cwd=project.directory,
        env=_environment(project, cache, **env),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout) if done.stdout else {"error": done.stderr}
    return found


def _of_releases(address: str) -> tuple[tuple[str, ...], dict[str, str]]:
    arguments = (*_CELL, "--package", "tinygain", "--good", "1.0", "--bad", "1.4", "--json")
    return arguments, {"PIP_INDEX_URL": address, "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": ""}


def test_a_break_in_one_of_five_releases(sofa: Project, index: str, tmp_path: Path) -> None:
    arguments, env = _of_releases(index)
    found = _bisect(sofa, tmp_path / "cache", *arguments, *_TESTS, env=env)
    assert (found["first"], found["suspects"], found["change"]) == ("1.3", ["1.3"], "broken")
    errors = {probe["at"]: probe["measures"]["rel_l2"] for probe in found["probes"]}
    assert errors["1.0"] < 1e-5
    assert errors["1.3"] == pytest.approx(0.01, rel=1e-2)
    assert errors["1.4"] == pytest.approx(0.02, rel=1e-2)
    assert {probe["at"]: probe["verdict"] for probe in found["probes"]}["1.2"] == "good"

    for name, code in (("fails", 1), ("passes", 0)):
        shown = subprocess.run(
            ["/bin/sh", "-c", f"{found['commands'][name]} --hf-reports shown"],
            cwd=sofa.directory,
            env=_environment(sofa, tmp_path / "cache"),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert shown.returncode == code, shown.stdout

    again = _bisect(sofa, tmp_path / "cache", *arguments, "--all", *_TESTS, env=env)
    assert [probe["at"] for probe in again["probes"]] == ["1.0", "1.1", "1.2", "1.3", "1.4"]
    kept = {probe["at"] for probe in again["probes"] if probe["is_kept"]}
    assert kept == {probe["at"] for probe in found["probes"]}, "only what was not run before was run"

    told = _bisect(sofa, tmp_path / "cache", *arguments[:-5], "--good", "1.3", "--bad", "1.2", *_TESTS, code=1, env=env)
    assert "1.3 is not good: failed (rel-L2 0.01" in told["error"]
    assert "1.2 is not bad: passed" in told["error"]


def test_a_release_that_cannot_be_imported_is_skipped(sofa: Project, index: str, tmp_path: Path) -> None:
    write_wheel(tmp_path / "wheels", "tinygain", "1.2.5", "raise RuntimeError('no')\n")
    write_wheel(tmp_path / "wheels", "tinygain", "1.2.7", "", needs=["there-is-no-such-package"])
    arguments, env = _of_releases(index)
    found = _bisect(sofa, tmp_path / "cache", *arguments, "--all", *_TESTS, env=env)
    assert found["suspects"] == ["1.2.5", "1.2.7", "1.3"]
    statuses = {probe["at"]: (probe["status"], probe["verdict"]) for probe in found["probes"]}
    assert statuses["1.2.5"] == ("not run", "skip")
    assert statuses["1.2.7"] == ("no environment", "skip")


def test_ctrl_c_keeps_what_has_been_run(sofa: Project, index: str, tmp_path: Path) -> None:
    arguments, env = _of_releases(index)
    with subprocess.Popen(
        _command(*arguments, *_TESTS),
        cwd=sofa.directory,
        env=_environment(sofa, tmp_path / "cache", **env),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        assert any(line.startswith("1.0: passed") for line in iter(process.stderr.readline, ""))
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        told = process.stderr.read()
        assert process.wait(60) == 130, told
    assert "What has been run is kept" in told
    found = _bisect(sofa, tmp_path / "cache", *arguments, *_TESTS, env=env)
    assert found["first"] == "1.3"
    assert {probe["at"]: probe["is_kept"] for probe in found["probes"]}["1.0"]


def _git(project: Project, *arguments: str) -> str:
    options = ("-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    command = ("git", *options, *arguments)
    done = subprocess.run(command, cwd=project.directory, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_break_in_a_commit(sofa: Project, tmp_path: Path) -> None:
    _git(sofa, "init", "-q", "-b", "main")
    commits = []
    for number, gain in enumerate(["1.0", "1.0", None, "1.05", "1.05"]):
        sofa.write(
            "src/tinygain.py", f"def scaled(x):\n    return x * {gain}  # {number}\n" if gain else "import nothing\n"
        )
        _git(sofa, "add", ".")
        _git(sofa, "commit", "-q", "-m", f"change {number}")
        commits.append(_git(sofa, "rev-parse", "HEAD"))
    sofa.write("src/tinygain.py", "what is not committed plays no part\n")
    cache = tmp_path / "cache"
    found = _bisect(sofa, cache, *_CELL, "--git", "--good", commits[0], "--json", *_TESTS)
    assert found["suspects"] == commits[2:4], "the commit that cannot be imported may be the first, too"
    assert found["change"] == "broken"
    assert {probe["at"]: probe["verdict"] for probe in found["probes"]} == dict(
        zip(commits, ["good", "good", "skip", "bad", "bad"], strict=True)
    )
    assert _git(sofa, "branch", "--show-current") == "main"
    assert _git(sofa, "worktree", "list").count("\n") == 0
    assert (sofa.directory / "src" / "tinygain.py").read_text(encoding="utf-8").startswith("what is not")

    sofa.write("src/tinygain.py", "def scaled(x):\n    return x\n")
    _git(sofa, "commit", "-qam", "repaired")
    repaired = _bisect(sofa, cache, *_CELL, "--git", "--good", "HEAD", "--bad", commits[3], "--json", *_TESTS)
    assert (repaired["change"], repaired["suspects"]) == ("fixed", [_git(sofa, "rev-parse", "HEAD")])
    assert {probe["at"]: probe["is_kept"] for probe in repaired["probes"]}[commits[3]]


def test_once_is_a_command_for_git_bisect_run(sofa: Project, tmp_path: Path) -> None:
    for text, code in (
        ("def scaled(x):\n    return x\n", 0),
        ("def scaled(x):\n    return 2 * x\n", 1),
        ("no(\n", 125),
    ):
        sofa.write("tinygain.py", text)
        told = _bisect(sofa, tmp_path / "cache", *_CELL, "--once", "--json", *_TESTS, code=code)
        assert told["verdict"] == {0: "good", 1: "bad", 125: "skip"}[code]
    told = _bisect(sofa, tmp_path / "cache", "x-cpu-fp32", "--run", "7", "--once", code=128)
    assert "there is no such run" in told["error"]


def test_a_real_difference_between_releases_of_transformers(project: Project, tmp_path: Path) -> None:
    """Needs a package index; the model is one that `docs/data` has with two results."""
    try:
        list_releases("transformers", IndexSettings.of_user())
    except HfAccelError as error:
        pytest.skip(f"no package index: {error}")
    cell = ("doge/DogeForCausalLM", "--device", "cpu", "--weights", "tiny", "--check", "batch_invariance")
    ends = ("--good", metadata.version("transformers"), "--bad", "5.16", "--json")
    found = _bisect(project, tmp_path / "cache", *cell, "--package", "transformers", *ends)
    assert (found["change"], found["suspects"]) == ("fixed", ["5.18.0"])
    errors = {probe["at"]: probe["numbers"]["rel_l2"] for probe in found["probes"]}
    assert errors["5.17.0"] > 0.1
    assert errors["5.18.0"] < 1e-5
    assert list(found["also_changed"]) != [], "an older huggingface_hub"
