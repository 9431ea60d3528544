"""Predictions beside what was measured, and how good they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from statistics import fmean
from typing import Any

from pytest_hfaccel.predictor.plots.bounded import Bounded, read_bounded
from pytest_hfaccel.predictor.plots.problems import Problems
from pytest_hfaccel.predictor.plots.rows import read_rows

COLUMNS = ("predicted", "measured", "low", "high", "device", "family", "model")


@dataclass(frozen=True)
class AccuracyRow:
    """One prediction of something that was measured.

    Attributes:
        predicted: With its interval.
        measured: In the same unit.
        device: Device id.
        family: Family of the model.
        model: Its name.
    """

    predicted: Bounded
    measured: float
    device: str
    family: str
    model: str

    @property
    def ratio(self) -> float:
        """Predicted / measured."""
        return self.predicted.value / self.measured

    @property
    def covered(self) -> bool | None:
        """Whether the interval holds the measured number; `None` without an interval."""
        if self.predicted.low is None or self.predicted.high is None:
            return None
        return self.predicted.low <= self.measured <= self.predicted.high


@dataclass(frozen=True)
class Accuracy:
    """How good predictions are.

    Attributes:
        rows: How many there are.
        mape: Mean absolute percentage error, mean(|predicted - measured| / measured), as a share.
        spearman: Spearman's rank correlation; `None` for fewer than three rows or when all are equal.
        coverage: Share of rows with an interval whose interval holds the measured number; `None` without any.
    """

    rows: int
    mape: float
    spearman: float | None
    coverage: float | None

    @property
    def text(self) -> str:
        """On one line."""
        spearman = "n/a" if self.spearman is None else f"{self.spearman:.3f}"
        coverage = "n/a" if self.coverage is None else f"{self.coverage:.0%}"
        return f"n = {self.rows}, MAPE {self.mape:.1%}, Spearman {spearman}, coverage {coverage}"


def read_accuracy_rows(given: Any) -> list[AccuracyRow]:
    """Read rows with the columns of `COLUMNS`; rows without a predicted or a measured number are left out.

    Raises:
        ConfigError: Columns are missing, numbers cannot be, or no row has both numbers.
    """
    problems = Problems()
    rows = [_row(row, f"rows[{index}]", problems) for index, row in enumerate(read_rows(given, "rows", COLUMNS))]
    problems.raise_if_any()
    complete = [row for row in rows if row]
    if not complete:
        problems.add("rows", "no row has both a predicted and a measured number.")
    problems.raise_if_any()
    return complete


def _row(row: Any, place: str, problems: Problems) -> AccuracyRow | None:
    predicted = read_bounded(row, "predicted", "low", "high", place, problems)
    measured = problems.number(row["measured"], f"{place}.measured")
    if predicted is None or measured is None:
        return None
    return AccuracyRow(
        predicted, measured, str(row["device"]), str(row["family"] or "unknown family"), str(row["model"])
    )


def accuracy_of(rows: Sequence[AccuracyRow]) -> Accuracy:
    """Measure how good predictions are; needs pandas."""
    covered = [row.covered for row in rows if row.covered is not None]
    return Accuracy(
        rows=len(rows),
        mape=fmean(abs(row.ratio - 1) for row in rows),
        spearman=_spearman([row.predicted.value for row in rows], [row.measured for row in rows]),
        coverage=fmean(covered) if covered else None,
    )


def _spearman(first: list[float], second: list[float]) -> float | None:
    if len(first) < 3 or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    pandas: Any = import_module("pandas")
    # Pearson's correlation of the ranks (ties get their mean rank) is Spearman's; pandas' own wants scipy for it.
    return float(pandas.Series(first).rank().corr(pandas.Series(second).rank()))
