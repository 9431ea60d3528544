"""What a run that was cut short had finished, for the run that goes on with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pytest_hfaccel.atomic import replace_file
from pytest_hfaccel.errors import ConfigError
from pytest_hfaccel.reports.journal import read_journal
from pytest_hfaccel.reports.versions import installed_versions
from pytest_hfaccel.results import CellKey, CellResult

JOURNAL = "journal.jsonl"
_KEPT = "resumed.jsonl"
"""The records a resumed run started from: it may be cut short, too, before its own journal has all of them."""


def keep_finished(directory: Path) -> Path:
    """Write down the finished cells of the run whose journal is in a directory, so that a new journal can be begun.

    Args:
        directory: The directory of the reports.

    Returns:
        The file, for `read_finished`. It holds no cells where there is no journal.

    Raises:
        ConfigError: The journal cannot be read, is from other versions of the packages that decide results, or the
            file cannot be written.
    """
    finished: dict[CellKey, CellResult] = {}
    journal = directory / JOURNAL
    if journal.exists():
        contents = read_journal(journal)
        _require_same_versions(journal, contents.header)
        if contents.header.get("options", {}).get("resume"):
            finished = read_finished(directory / _KEPT)
        finished |= {result.key: result for result in contents.results if not result.incomplete}
    kept = directory / _KEPT
    try:
        replace_file(kept, "".join(json.dumps(result.to_json()) + "\n" for result in finished.values()))
    except OSError as error:
        raise ConfigError(
            f"{kept}: the finished cells cannot be written: {error.strerror}",
            hint="Free space or change the permissions.",
        ) from error
    return kept


def read_finished(kept: Path) -> dict[CellKey, CellResult]:
    """Return the records of finished cells by module and cell id; none where the file is not there."""
    if not kept.exists():
        return {}
    lines = kept.read_text(encoding="utf-8").splitlines()
    return {result.key: result for line in lines for result in [CellResult.from_json(json.loads(line))]}


def _require_same_versions(journal: Path, header: dict[str, Any]) -> None:
    now = installed_versions()
    before = header.get("versions", {})
    changed = [f"{name} {before[name]} -> {now.get(name)}" for name in before if before[name] != now.get(name)]
    if changed:
        raise ConfigError(
            f"--hf-resume: {journal} is from other versions: {', '.join(changed)}.",
            hint="Leave --hf-resume out: outcomes of two versions are not one run.",
        )
