"""The words on the plots of a matrix: what is shown, on what, and where the numbers come from. Imported late."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pytest_hfaccel.predictor.plots.drawing.entry import Entry
from pytest_hfaccel.predictor.plots.drawing.page import Heading
from pytest_hfaccel.predictor.plots.matrix_table import MatrixModel, MatrixTable
from pytest_hfaccel.predictor.plots.words import counted, plain
from pytest_hfaccel.predictor.prediction import INTERVAL

NO_SOURCE = "of a source that the matrix does not state"
NAMED = 8
"""So many models without a number are named."""


@dataclass(frozen=True)
class Words:
    """What differs between the headings of figures.

    Attributes:
        title: What is shown.
        facts: At which precision or batch.
        how: How to read it.
    """

    title: str
    facts: str
    how: str = ""


def matrix_heading(
    table: MatrixTable, words: Words, entries: Iterable[Entry], left_out: Sequence[MatrixModel] = ()
) -> Heading:
    """The words of a figure that shows these numbers; models without a number in the whole chart are named."""
    shown = [entry for entry in entries if entry.value]
    bounded = any(entry.value.low is not None for entry in shown if entry.value)
    interval = f"Intervals are meant to hold {INTERVAL:.0%} of measured values." if bounded else "No intervals stated."
    numbers = f"Numbers: {counted(Counter(entry.source or NO_SOURCE for entry in shown))}."
    caption = " ".join(filter(None, (words.how, interval, numbers, _missing(left_out))))
    return Heading(words.title, _subtitle(table, words.facts), caption)


def _subtitle(table: MatrixTable, facts: str) -> str:
    names = table.device_names
    known = [name for name in table.platforms if names.get(name, name) != name]
    chips = "; ".join(f"{plain(name)}: {plain(names[name])}" for name in known)
    date = f"matrix of {plain(table.timestamp)}" if table.timestamp else ""
    return " \u00b7 ".join(filter(None, (facts, plain(table.mode), date, chips)))


def _missing(models: Sequence[MatrixModel]) -> str:
    if not models:
        return ""
    names = ", ".join(plain(model.name) for model in models[:NAMED])
    more = f" and {len(models) - NAMED} more" if len(models) > NAMED else ""
    return f"Without a number here: {names}{more}."
