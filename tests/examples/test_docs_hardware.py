"""The examples of `docs/hardware_detection.md` run, and its table names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_hfaccel import hardware
from tests.harness import environment, run_python

GUIDE = Path(__file__).parents[2] / "docs" / "hardware_detection.md"
TEXT = GUIDE.read_text(encoding="utf-8")

# What a block prints on every machine.
PRINTED = {
    "Basic usage": ["cpu is available", "Best available hardware: ", "qualcomm: "],
    "Order of preference": ["Best available hardware based on priority list: "],
    "The detector": ["Available hardware: ", "Not available:"],
    "Comprehensive checks": ["Platform: ", "CPU cores: ", "'fp32'"],
}


def blocks() -> list[tuple[str, str]]:
    """The Python blocks, with the heading above each."""
    return [
        (re.findall(r"^## (.*)$", TEXT[: match.start()], re.MULTILINE)[-1], match[1])
        for match in re.finditer(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    ]


def test_the_blocks_are_found() -> None:
    assert len(blocks()) == TEXT.count("```python") >= 7
    assert set(PRINTED) <= {heading for heading, _ in blocks()}


def test_the_names_of_the_table_can_be_imported() -> None:
    lines = re.findall(r"`from pytest_hfaccel\.hardware import ([\w, ]+)` \|$", TEXT, re.MULTILINE)
    names = {name for line in lines for name in line.split(", ")}
    assert len(names) >= 14
    assert names <= set(hardware.__all__)


def test_every_method_of_the_detector_is_in_the_guide() -> None:
    methods = {name for name in vars(hardware.HardwareDetector) if not name.startswith("_")}
    assert {name for name in methods if f"detector.{name}" not in TEXT} == set()


@pytest.mark.slow
@pytest.mark.parametrize(("heading", "code"), [pytest.param(*block, id=block[0]) for block in blocks()])
def test_a_block_runs(heading: str, code: str, tmp_path: Path) -> None:
    done = run_python(["-c", code], tmp_path, environment(tmp_path))
    assert done.returncode == 0, done.stderr
    for text in PRINTED.get(heading, []):
        assert text in done.stdout
