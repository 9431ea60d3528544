"""The examples of `docs/model_families.md` run, and print what the guide says they print."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.harness import environment, run_python

GUIDE = Path(__file__).parents[2] / "docs" / "model_families.md"
# A Python block, and the text block that directly follows it.
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?", re.MULTILINE | re.DOTALL)
NEEDS_TORCH = ("pytest_hfaccel.hardware", "pytest_hfaccel.pool")


def blocks() -> list[object]:
    """The blocks as parameters, named after the heading above them."""
    text = GUIDE.read_text(encoding="utf-8")
    found: list[object] = []
    for match in BLOCK.finditer(text):
        heading = re.findall(r"^## (.*)$", text[: match.start()], re.MULTILINE)[-1]
        slow = any(name in match["code"] for name in NEEDS_TORCH)
        found.append(pytest.param(match["code"], match["output"], id=heading, marks=[pytest.mark.slow] if slow else []))
    return found


def test_the_blocks_are_found() -> None:
    assert len(blocks()) == GUIDE.read_text(encoding="utf-8").count("```python") > 5


@pytest.mark.parametrize(("code", "output"), blocks())
def test_a_block_runs(code: str, output: str | None, tmp_path: Path) -> None:
    done = run_python(["-c", code], tmp_path, environment(tmp_path))
    assert done.returncode == 0, done.stderr
    if output is not None:
        assert done.stdout == output
