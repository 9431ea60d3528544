"""What goes into the benchmark database and comes out of it. Plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.results import CellResult


class HasJson(Protocol):
    """A record with a plain-JSON form."""

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""


Calibration = HasJson | Mapping[str, Any]
"""A calibration, or its plain-JSON form: `device`, `device_name`, `dtype`, `threads`, `taken` and more."""


@dataclass(frozen=True)
class RunRecord:
    """A run and all it found; it is written to the database as a whole or not at all.

    Attributes:
        test_name: What ran, e.g. `hfaccel bench`.
        test_type: Which kind of run: `integration`, `performance`, ...
        started_at: When it began: a time (without a zone it is UTC) or its ISO 8601 text.
        completed_at: When it ended, likewise.
        success: Whether nothing failed.
        git_commit: Commit of the code under test; empty where there is none.
        git_branch: Its branch.
        command_line: How the run was started.
        versions: By package; `None` for one that is not installed.
        machine: Facts of the machine as `pytest_hfaccel.hardware.machine_facts` returns them.
        measurements: What was measured.
        cells: What happened to the cells.
        calibrations: The calibrations the run took.
    """

    test_name: str
    test_type: str
    started_at: datetime | str
    completed_at: datetime | str
    success: bool
    git_commit: str = ""
    git_branch: str = ""
    command_line: str = ""
    versions: Mapping[str, str | None] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    measurements: Sequence[Measurement] = ()
    cells: Sequence[CellResult] = ()
    calibrations: Sequence[Calibration] = ()


@dataclass(frozen=True)
class StoredModel:
    """A trained prediction model as the database keeps it.

    Attributes:
        name: Its name.
        trained_at: When, in UTC.
        rows: Measured rows it was trained on.
        metrics: Plain JSON: how good it is.
        payload: The model in its own format. The database never unpickles it; whoever does must trust the file.
        versions: Versions of the packages it was written with.
    """

    name: str
    trained_at: datetime
    rows: int
    metrics: dict[str, Any]
    payload: bytes
    versions: dict[str, Any] = field(default_factory=dict)


def utc(time: datetime | str) -> datetime:
    """Return a time as the database keeps it: in UTC, without a zone.

    Raises:
        ValueError: The text is not an ISO 8601 time.
    """
    moment = datetime.fromisoformat(time) if isinstance(time, str) else time
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
