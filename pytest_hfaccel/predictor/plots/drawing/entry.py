"""One number of a matrix as it is drawn. Imported late."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_hfaccel.predictor.plots.bounded import Bounded
from pytest_hfaccel.predictor.plots.matrix_table import MatrixCell, is_measured
from pytest_hfaccel.predictor.plots.words import with_interval

NO_FIT, UNKNOWN = "does not fit", "not known"
TIMES = "\u00d7"


@dataclass(frozen=True)
class Entry:
    """A number of a model.

    Attributes:
        value: The number; `None` where there is none.
        source: Where it comes from; empty where the matrix does not say.
        fits: Whether the model fits the device, as far as is known.
        unit: Written behind the number where the axis does not say it.
    """

    value: Bounded | None
    source: str = ""
    fits: bool = True
    unit: str = ""

    @property
    def measured(self) -> bool:
        """Whether it was measured, not predicted."""
        return is_measured(self.source)

    @property
    def text(self) -> str:
        """The number with its interval, or why there is none."""
        if self.value is None:
            return UNKNOWN if self.fits else NO_FIT
        return with_interval(self.value.value, self.value.low, self.value.high, self.unit)


def throughput_of(cell: MatrixCell) -> Entry:
    """The throughput of a cell, in samples per second; none when the model does not fit."""
    return Entry(cell.throughput if cell.runs else None, cell.source, cell.runs)


def throughput_ratio(cell: MatrixCell, base: MatrixCell) -> Entry:
    """How many times as fast a cell is as another; none when one of the two does not fit."""
    if not (cell.throughput and base.throughput and cell.runs and base.runs):
        return Entry(None, fits=cell.runs)
    return Entry(cell.throughput.over(base.throughput), _both(cell.source, base.source), unit=TIMES)


def memory_ratio(cell: MatrixCell, base: MatrixCell) -> Entry:
    """How many times as much memory a cell needs as another."""
    if not (cell.memory and base.memory):
        return Entry(None)
    return Entry(cell.memory.over(base.memory), _both(cell.memory_source, base.memory_source), unit=TIMES)


def _both(source: str, base: str) -> str:
    if source == base:
        return source
    return " over ".join(name or "not stated" for name in (source, base))
