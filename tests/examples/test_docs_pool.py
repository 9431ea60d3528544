"""The examples of `docs/resource_pool.md` run, one after the other in one process, and print what the guide says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.harness import environment, run_python

pytestmark = pytest.mark.slow

GUIDE = Path(__file__).parents[2] / "docs" / "resource_pool.md"
# A Python block, and the text block that directly follows it.
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?", re.MULTILINE | re.DOTALL)
DRIVER = """
import contextlib, io, json, sys, traceback
names, printed = {"__name__": "guide"}, []
for code in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as output:
        try:
            exec(code, names)
        except Exception:
            output.write(traceback.format_exc())
    printed.append(output.getvalue())
json.dump(printed, sys.stdout)
"""


def blocks() -> list[tuple[str, str, str]]:
    """The heading above each block, its code, and what it prints."""
    text = GUIDE.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        heading = re.findall(r"^##? (.*)$", text[: match.start()], re.MULTILINE)[-1]
        found.append((heading, match["code"], match["output"] or ""))
    return found


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What each block printed."""
    folder = tmp_path_factory.mktemp("guide")
    env = environment(folder)
    env.pop("RESOURCE_POOL_LOW_MEMORY", None)
    done = run_python(["-c", DRIVER], folder, env, given=json.dumps([code for _, code, _ in blocks()]))
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


def test_the_blocks_are_found() -> None:
    assert len(blocks()) == GUIDE.read_text(encoding="utf-8").count("```python") >= 8


@pytest.mark.parametrize("index", range(len(blocks())), ids=[heading for heading, _, _ in blocks()])
def test_a_block_prints_what_the_guide_says(index: int, printed: list[str]) -> None:
    assert printed[index] == blocks()[index][2]


def test_the_guide_names_every_preference_and_every_statistic() -> None:
    from dataclasses import fields

    from pytest_hfaccel.pool import HardwarePreferences, ResourcePool

    text = GUIDE.read_text(encoding="utf-8")
    stats: dict[str, Any] = ResourcePool().get_stats()
    wanted = [*(each.name for each in fields(HardwarePreferences)), *stats, *stats["system_memory"]]
    assert [name for name in wanted if f"`{name}`" not in text] == []
