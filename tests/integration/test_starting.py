"""The first commands in a project: what `hfaccel init` writes is green, wherever pytest is started; shells complete."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import environment, run_python

pytest.importorskip("argcomplete")


def hfaccel(directory: Path, cache: Path, *arguments: str) -> str:
    done = run_python(["-m", "pytest_hfaccel", *arguments], directory, environment(cache))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("start", [".", "model_classes"])
def test_what_init_writes_is_green(tmp_path: Path, shared_cache: Path, start: str) -> None:
    checkpoint = tmp_path / "mine"
    checkpoint.mkdir()
    config = '{"architectures": ["BertForMaskedLM"], "model_type": "bert", "vocab_size": 99}'
    (checkpoint / "config.json").write_text(config, encoding="utf-8")
    (checkpoint / "model.safetensors").write_bytes(b"")
    hfaccel(tmp_path, shared_cache, "init", "--model", "mine", "--model", "gpt2", "--ci", "none")
    command = [
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--hf-device",
        "fake:0",
        "--hf-weights",
        "tiny",
        "-k",
        "placement",
    ]
    done = run_python(command, tmp_path / start, environment(shared_cache))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mine [tiny]" in done.stdout
    assert "gpt2 [tiny]" in done.stdout


@pytest.mark.parametrize(
    ("line", "expected"),
    [("hfaccel doc", "doctor"), ("hfaccel generate --cl", "--clear-cache"), ("hfaccel completion b", "bash")],
)
def test_bash_completes(tmp_path: Path, shared_cache: Path, line: str, expected: str) -> None:
    """As the shell does: it sets variables and reads the words from file descriptor 8."""
    program = tmp_path / "hfaccel"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m pytest_hfaccel "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    script = f"""
eval "$(hfaccel completion bash)"
COMP_LINE={line!r} COMP_POINT=${{#COMP_LINE}} COMP_TYPE=9
COMP_WORDS=({line}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
COMP_POINT=${{#COMP_LINE}}
_python_argcomplete hfaccel "${{COMP_WORDS[$COMP_CWORD]}}" ""
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-c", script],  # noqa: S607
        env={**environment(shared_cache), "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert expected in done.stdout.split(), done.stdout + done.stderr
