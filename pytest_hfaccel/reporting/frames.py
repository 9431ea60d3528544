"""A run as tables: `load_run(path)` reads its journal and gives pandas frames, and shows itself in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import ConfigError, PackageMissing
from pytest_hfaccel.core.results import CellResult, Stage, html_table
from pytest_hfaccel.reporting.journal import JOURNAL, JournalContents, read_journal
from pytest_hfaccel.reporting.reports import model_device_rows
from pytest_hfaccel.reporting.runs import latest_run

_OF_CELL = ("module", "cell", "model", "architecture", "device", "dtype", "weights")
"""The fields of a cell that stand first in every frame."""

_CELL_COLUMNS = (
    *_OF_CELL,
    *("task", "implementation", "status", "stage", "reason", "effective_dtype", "actual_devices", "bytes"),
    *("load_s", "convert_s", "compile_s", "passed", "skipped", "seconds", "from_run"),
)
_CHECK_COLUMNS = (*_OF_CELL, "check", "status", "stage", "cause", "reason", "seconds", "measures")
_NUMBER_COLUMNS = (*_OF_CELL, "check", "measure", "value")


@dataclass(frozen=True)
class LoadedRun:
    """What a run left behind; see `load_run`. In a notebook it shows its table of models and devices.

    Attributes:
        path: The journal.
        results: The records of the finished cells, those that a resumed run took over included.
        header: The first line of the journal: machine, versions, command, options.
        is_complete: Whether the run came to its end.
        problems: A text per line of the journal that could not be read.
    """

    path: Path
    results: tuple[CellResult, ...]
    header: Mapping[str, Any]
    is_complete: bool
    problems: tuple[str, ...]
    _seconds: Mapping[tuple[str, str], float]

    @cached_property
    def cells(self) -> Any:
        """A `pandas.DataFrame` with a row per cell: what it is, how it ended, where it ran, how long loading took.

        Raises:
            PackageMissing: pandas is not installed. So do the other frames.
        """
        return _frame([self._cell(result) for result in self.results], _CELL_COLUMNS)

    @cached_property
    def checks(self) -> Any:
        """A row per check of each cell; `measures` has everything the check measured, as a dictionary."""
        rows = [
            {
                **_identity(result),
                "check": check.name,
                "status": str(check.status),
                "stage": _text(check.stage),
                "cause": check.cause,
                "reason": check.reason or "",
                "seconds": check.seconds,
                "measures": check.measures,
            }
            for result in self.results
            for check in result.checks
        ]
        return _frame(rows, _CHECK_COLUMNS)

    @cached_property
    def numbers(self) -> Any:
        """A row per number that a check measured, such as `rel_l2`; `check`, `measure` and `value` are its columns."""
        rows = [
            {**_identity(result), "check": check.name, "measure": name, "value": value}
            for result in self.results
            for check in result.checks
            for name, value in check.measures.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        ]
        return _frame(rows, _NUMBER_COLUMNS)

    @cached_property
    def measurements(self) -> Any:
        """A row per point at which speed and memory were measured (`--hf-performance`).

        The fields of `pytest_hfaccel.benchmark.measurement.Measurement`, the distribution of the latency as columns of
        its own (`median_ms`, `p95_ms`, ...), and `samples_per_second`.
        """
        measured = [
            {**_identity(result), **_flat(one)}
            for result in self.results
            for check in result.checks
            for one in check.measures.get("measurements", ())
        ]
        columns = list(dict.fromkeys(name for row in measured for name in row))
        return _frame(measured, columns or [*_OF_CELL, "batch", "length", "median_ms", "samples_per_second"])

    def _cell(self, result: CellResult) -> dict[str, Any]:
        statuses = [str(check.status) for check in result.checks]
        deciding = next((check for check in result.checks if check.status == result.status), None)
        return {
            **_identity(result),
            "task": result.task,
            "implementation": result.implementation,
            "status": str(result.status),
            "stage": _text(result.stage),
            "reason": (deciding.reason or "") if deciding else "",
            "effective_dtype": result.placement.get("effective_dtype", ""),
            "actual_devices": ", ".join(result.placement.get("actual_devices", ())),
            "bytes": result.placement.get("bytes"),
            **{f"{stage}_s": result.timings.get(stage) for stage in ("load", "convert", "compile")},
            "passed": statuses.count("passed"),
            "skipped": statuses.count("skipped"),
            "seconds": self._seconds.get(result.key, sum(check.seconds for check in result.checks)),
            "from_run": result.from_run,
        }

    def __repr__(self) -> str:
        """Say in a line what was read; the records are in the frames."""
        return f"<run {self.path}: {self._said()} See .cells, .checks, .numbers, .measurements>"

    def _repr_html_(self) -> str:
        """Return the table of models and devices, for a notebook."""
        head, *body = model_device_rows(self.results)
        return html_table(self._said(), head, body)

    def _said(self) -> str:
        command = self.header.get("run", {}).get("command", self.path)
        end = "" if self.is_complete else " It did not come to its end."
        return f"{command}: {len(self.results)} cell{'' if len(self.results) == 1 else 's'}.{end}"


def load_run(path: str | Path) -> LoadedRun:
    """Read a run.

    Args:
        path: The folder of a run, its journal, or a directory of reports: of that the run which began last.

    Raises:
        ConfigError: There is no run, or its journal cannot be read.
    """
    journal = _journal_of(Path(path).expanduser())
    contents = read_journal(journal)
    if not contents.header and not contents.results and contents.problems:
        raise ConfigError(f"{journal} is no journal of a run: {contents.problems[0]}")
    return LoadedRun(
        path=journal,
        results=tuple(contents.cells),
        header=contents.header,
        is_complete=contents.is_complete,
        problems=tuple(contents.problems),
        _seconds=_seconds_by_cell(contents),
    )


def _journal_of(path: Path) -> Path:
    if path.is_file():
        return path
    if (path / JOURNAL).is_file():
        return path / JOURNAL
    latest = latest_run(path) or latest_run(path.parent)
    if latest is None:
        raise ConfigError(
            f"{path}: there is no run here: neither {JOURNAL} nor runs/*/{JOURNAL}.",
            hint="Name the folder of a run, its journal, or the directory that --hf-reports named (default: reports).",
        )
    return latest / JOURNAL


def _seconds_by_cell(contents: JournalContents) -> dict[tuple[str, str], float]:
    return {key: sum(seconds.values()) for key, seconds in contents.durations.items()}


def _identity(result: CellResult) -> dict[str, str]:
    return {name: getattr(result, name) for name in _OF_CELL}


def _flat(measurement: Mapping[str, Any]) -> dict[str, Any]:
    latency = measurement.get("latency") or {}
    flat = {name: value for name, value in measurement.items() if name not in ("latency", "noise", *_OF_CELL)}
    median = latency.get("median_ms")
    rate = {"samples_per_second": 1e3 * measurement["batch"] / median} if median else {}
    return {**flat, **latency, **rate}


def _text(stage: Stage | None) -> str:
    return str(stage) if stage else ""


def _frame(rows: list[dict[str, Any]], columns: Iterable[str]) -> Any:
    try:
        import pandas as pd
    except ImportError as error:
        raise PackageMissing(
            "a frame of a run needs pandas, which is not installed.",
            hint="pip install 'pytest-hfaccel[notebook]' installs it; `results` has the same without it.",
        ) from error
    return pd.DataFrame(rows, columns=list(columns))
