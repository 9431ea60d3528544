"""Somebody who has never seen this repository: a new environment, the wheel, `hfaccel init`, `pytest`; and away again.

What is installed comes from the package index that pip is configured for.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOST_SECONDS = 600


class Machine:
    """A new environment, home and project outside of this repository."""

    def __init__(self, directory: Path) -> None:
        self.environment, self.project, self.home = (directory / name for name in ("env", "project", "home"))
        for folder in (self.project, self.home):
            folder.mkdir()

    def run(self, *command: str, code: int = 0) -> str:
        """Run a program of the environment in the project."""
        kept = ("PATH", "LANG", "PIP_", "SSL_CERT_FILE", "OMP_NUM_THREADS")
        environ = {name: value for name, value in os.environ.items() if name.startswith(kept)}
        environ |= {"HOME": str(self.home), "HF_HUB_OFFLINE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        program = self.environment / "bin" / command[0]
        done = subprocess.run(
            [program, *command[1:]],
            cwd=self.project,
            env=environ,
            capture_output=True,
            text=True,
            timeout=MOST_SECONDS,
            check=False,
        )
        output = done.stdout + done.stderr
        assert done.returncode == code, output
        return output

    def files(self) -> set[str]:
        """The files of the environment that are no other package's."""
        return {
            path.relative_to(self.environment).as_posix()
            for path in self.environment.rglob("*")
            if "hfaccel" in path.as_posix().removeprefix(str(self.environment))
        }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # A copy: building leaves folders in the sources.
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder / "sources")], check=True)  # noqa: S607
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder)]
    done = subprocess.run([*command, str(folder / "sources")], capture_output=True, text=True, check=False)
    if "No module named pip" in done.stderr:
        pytest.skip("pip is not installed")
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    subprocess.run([sys.executable, "-m", "venv", str(made.environment)], check=True)
    return made


@pytest.mark.nightly
def test_the_wheel_has_the_model_class_modules(wheel: Path) -> None:
    shipped = {name.rpartition("/")[2] for name in zipfile.ZipFile(wheel).namelist() if "/model_classes/" in name}
    assert shipped == {path.name for path in (ROOT / "model_classes").glob("*.py")}


@pytest.mark.nightly
def test_installed_initialised_green_and_gone(wheel: Path, machine: Machine) -> None:
    started = time.monotonic()
    machine.run("pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), "torch")
    machine.run("pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt"), str(wheel))
    assert "written     model_classes/test_hf_bert_base_uncased.py" in machine.run("hfaccel", "init")
    assert "passed" in machine.run("pytest", "-q")
    assert time.monotonic() - started < MOST_SECONDS

    assert "0 broken" in machine.run("hfaccel", "doctor")
    shipped = "pytest_hfaccel.model_classes"
    assert "passed" in machine.run("pytest", "-q", "--pyargs", shipped, "-k", "TestBert or TestGpt")
    assert "deselected" not in machine.run("pytest", "-q", "--pyargs", f"{shipped}.test_hf_t5")
    collected = machine.run("pytest", "--collect-only", "-q", "--pyargs", shipped)
    for module in ("test_hf_bert", "test_hf_whisper", "test_hf_clip"):
        assert f"{module}.py::" in collected
    assert "test_hf_auto" not in collected

    machine.run("hfaccel", "clean")
    machine.run("pip", "uninstall", "--quiet", "--yes", "pytest-hfaccel")
    assert machine.files() == set()
    left = {path.relative_to(machine.home).parts[:2] for path in machine.home.rglob("*") if path.is_file()}
    assert not [parts for parts in left if "hfaccel" in "/".join(parts)]
