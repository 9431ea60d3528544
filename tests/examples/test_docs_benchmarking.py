"""The examples of `docs/benchmarking.md` run: its commands in a project with a BERT module, its Python as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import BERT_MODULE, environment, run_python

pytestmark = pytest.mark.nightly

GUIDE = Path(__file__).parents[2] / "docs" / "benchmarking.md"
COMMANDS = re.compile(r"^```bash\n(?P<code>.*?)^```\n", re.MULTILINE | re.DOTALL)
PYTHON = re.compile(r"^```python\n(?P<code>.*?)^```\n\n```text\n(?P<output>.*?)^```\n", re.MULTILINE | re.DOTALL)
EXTRAS = ("duckdb", "matplotlib", "pytest_benchmark", "seaborn")


def text() -> str:
    return GUIDE.read_text(encoding="utf-8")


def run(command: list[str], where: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    scripts = str(Path(sys.executable).parent)
    env = environment(cache, PATH=os.pathsep.join([scripts, os.environ["PATH"]]))
    return subprocess.run(command, cwd=where, env=env, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(COMMANDS.findall(text()))))
def test_commands(number: int, tmp_path: Path, shared_cache: Path) -> None:
    for package in EXTRAS:
        pytest.importorskip(package)
    (tmp_path / "test_hf_bert.py").write_text(BERT_MODULE, encoding="utf-8")
    done = run(["bash", "-euc", COMMANDS.findall(text())[number]], tmp_path, shared_cache)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "hfaccel.duckdb").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is exact in a process of its own, on Linux")
def test_python(tmp_path: Path, shared_cache: Path) -> None:
    ((code, output),) = PYTHON.findall(text())
    done = run_python(["-c", code], tmp_path, environment(shared_cache))
    assert done.stdout == output, done.stderr


def test_all_blocks_are_among_those_that_run() -> None:
    assert text().count("```bash") == len(COMMANDS.findall(text())) >= 3
    assert text().count("```python") == len(PYTHON.findall(text())) == 1


def test_every_option_of_bench_is_in_the_guide() -> None:
    import argparse

    from pytest_hfaccel.cli.runs.bench import add_options

    parser = argparse.ArgumentParser(add_help=False)
    add_options(parser)
    flags = [flag for action in parser._actions for flag in action.option_strings]
    assert [flag for flag in flags if f"`{flag}" not in text()] == []


def test_every_option_of_a_measuring_run_is_in_the_guide() -> None:
    flags = ("--hf-performance", "--hf-performance-batch-sizes", "--hf-performance-seq-lengths", "--hf-database")
    assert [flag for flag in flags if f"`{flag}" not in text()] == []
