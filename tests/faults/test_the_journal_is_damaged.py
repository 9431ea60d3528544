"""A journal with damaged lines: each is told, and nothing is taken from it that may be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.harness import Project

_FAKE = ("--hf-device", "fake:0,fake:1", "-k", "placement")
_FAILS: dict[str, Any] = {"HFACCEL_FAKE": '{"*": {"fail_stage": "load"}}'}


@pytest.fixture
def journal(project: Project) -> Path:
    """The journal of a run of two cells."""
    assert project.run(*_FAKE).code == 0
    return (project.directory / "reports" / "journal.jsonl").resolve()


def place_of(journal: Path, kind: str) -> int:
    lines = journal.read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines) if f'"type": "{kind}"' in line)


def change(journal: Path, line: int, old: str, new: str) -> None:
    lines = journal.read_text(encoding="utf-8").splitlines()
    assert old in lines[line]
    lines[line] = lines[line].replace(old, new)
    journal.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_a_line_that_is_json_still(project: Project, journal: Path) -> None:
    """A flipped bit makes another number or word of it; at first it was believed."""
    place = place_of(journal, "cell")
    change(journal, place, '"status": "passed"', '"status": "failed"')
    run = project.run(*_FAKE, "--hf-resume", **_FAILS)
    assert f"journal.jsonl:{place + 1}: this line is damaged (ValueError: its checksum is another)" in run.output
    assert "of 2 cells 1 are kept, 1 had not finished" in run.output
    assert run.code == 1
    assert sorted(str(record.status) for record in run.records.values()) == ["error", "passed"]


def test_a_line_that_is_none(project: Project, journal: Path) -> None:
    change(journal, place_of(journal, "cell"), '"result"', '"re')
    run = project.run(*_FAKE, "--hf-resume", **_FAILS)
    assert "this line is damaged" in run.output
    assert "of 2 cells 1 are kept, 1 had not finished" in run.output


@pytest.mark.parametrize("damage", ["changed", "gone", "empty file"])
def test_the_header(project: Project, journal: Path, damage: str) -> None:
    """What ran cannot be known: the resume stops."""
    if damage == "changed":
        change(journal, 0, "pytest-hfaccel/journal", "pytest-hfaccel/j\x00urnal")
    elif damage == "gone":
        journal.write_text("".join(journal.read_text(encoding="utf-8").splitlines(keepends=True)[1:]), encoding="utf-8")
    else:
        journal.write_bytes(b"")
    run = project.run(*_FAKE, "--hf-resume", **_FAILS)
    assert run.code == 4, run.output
    assert f"--hf-resume: the journal of run {journal.parent.name} cannot be read" in run.output
    assert "Leave --hf-resume out, or delete" in run.output
    assert project.run(*_FAKE).code == 0  # without it, nothing is the matter
