"""The defects of others that our expectations rest on are still there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[2] / "docs" / "upstream").glob("*.py"))
README = (SCRIPTS[0].parent / "README.md").read_text(encoding="utf-8")


def test_every_script_is_listed() -> None:
    assert [script.name for script in SCRIPTS if f"]({script.name})" not in README] == []


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_defect_is_still_there(script: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=120, env=environment
    )
    last = (done.stdout.splitlines() or [done.stderr])[-1]
    assert last.startswith("DEFECT"), f"{script.name} says {last!r}: delete it, and what expected.yaml says about it"
