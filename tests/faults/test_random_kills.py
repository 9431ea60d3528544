"""A hundred random kills of workers and controllers: nothing lost or doubled, no hang, and resumed runs complete."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).parents[2] / "benchmarks" / "random_kills.py"


@pytest.mark.nightly
def test_a_hundred_kills() -> None:
    done = subprocess.run([sys.executable, _SCRIPT, "--kills", "100"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
