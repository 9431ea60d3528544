"""Real models in two workers with less memory than both need: the memory of all processes stays within the budget."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).parents[2] / "benchmarks" / "memory_budget.py"
_TWO = ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-mpnet-base-v2")


@pytest.mark.nightly
def test_two_workers_share_less_than_both_need_with_the_same_verdicts() -> None:
    done = subprocess.run([sys.executable, _SCRIPT, "--models", *_TWO], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The budget was kept, and the verdicts are the same." in done.stdout
