"""Measured points, put in order: by what was measured, on what."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.errors import ConfigError
from pytest_hfaccel.predictor.plots.words import plain


@dataclass(frozen=True)
class Subject:
    """What was measured: a model with its weights, in a mode. It has a panel of its own."""

    family: str
    model: str
    weights: str
    mode: str

    @property
    def detail(self) -> str:
        """The line below the model's name."""
        return " \u00b7 ".join(plain(part) for part in (self.family, f"{self.weights} weights", self.mode) if part)


@dataclass(frozen=True)
class MeasuredRuns:
    """Measured points in order: of subjects, then of devices, lengths and batches."""

    rows: list[Measurement]

    @cached_property
    def subjects(self) -> dict[Subject, list[Measurement]]:
        """The rows of each subject, sorted by family and name."""
        grouped: dict[Subject, list[Measurement]] = {}
        for row in self.rows:
            grouped.setdefault(Subject(row.family, row.model, row.weights, row.mode), []).append(row)
        return grouped

    @cached_property
    def setups(self) -> list[str]:
        """What rows were measured on, in words: device, precision, and threads or emulation where that matters."""
        return sorted({self.setup(row) for row in self.rows})

    @cached_property
    def lengths(self) -> list[int]:
        """Sequence lengths, ascending."""
        return sorted({row.length for row in self.rows})

    @cached_property
    def batches(self) -> list[int]:
        """Batch sizes, ascending."""
        return sorted({row.batch for row in self.rows})

    @cached_property
    def _threads(self) -> dict[str, set[int]]:
        threads: dict[str, set[int]] = {}
        for row in self.rows:
            threads.setdefault(row.device, set()).add(row.threads)
        return threads

    def setup(self, row: Measurement) -> str:
        """What a row was measured on."""
        precision = row.dtype if row.effective_dtype in ("", row.dtype) else f"{row.dtype} (ran {row.effective_dtype})"
        threads = f"{row.threads} threads" if len(self._threads[row.device]) > 1 else ""
        emulated = row.implementation if row.implementation != "real" else ""
        return plain(", ".join(filter(None, (f"{row.device} {precision}", threads, emulated))))

    @cached_property
    def chips(self) -> str:
        """The chip behind each device, for the subtitle."""
        names = sorted({(row.device, row.device_name) for row in self.rows if row.device_name})
        return "; ".join(f"{plain(device)}: {plain(name)}" for device, name in names)


def read_runs(measurements: Iterable[Measurement]) -> MeasuredRuns:
    """Put measurements in order.

    Raises:
        ConfigError: There is none, or something else is among them.
    """
    if isinstance(measurements, (str, bytes)) or not isinstance(measurements, Iterable):
        raise ConfigError(f"measurements: a list of Measurement is needed, not {type(measurements).__name__}.")
    rows = list(measurements)
    wrong = [index for index, row in enumerate(rows) if not isinstance(row, Measurement)]
    if wrong:
        found = type(rows[wrong[0]]).__name__
        raise ConfigError(
            f"measurements[{wrong[0]}]: a Measurement is needed, not {found}.",
            hint="Measurement.from_json reads its plain-JSON form.",
        )
    if not rows:
        raise ConfigError("measurements: there is no measurement, so there is nothing to plot.")
    return MeasuredRuns(sorted(rows, key=_order))


def _order(row: Measurement) -> tuple[str, str, str, str, str, str, int, int, float]:
    place = (row.family, row.model, row.weights, row.mode, row.device, row.dtype)
    return (*place, row.length, row.batch, row.latency.median_ms)
