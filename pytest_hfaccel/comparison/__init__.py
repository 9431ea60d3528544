"""A run against an earlier one, or against the history in the database; docs/comparing_runs.md explains it."""

from __future__ import annotations

from pytest_hfaccel.comparison.differences import COUNTED, KINDS, Comparison, compare_runs
from pytest_hfaccel.comparison.rendering import markdown_of, text_of
from pytest_hfaccel.comparison.runs import ComparedRun, find_side, read_side, run_of
from pytest_hfaccel.comparison.speed import Limits

__all__ = [
    "COUNTED",
    "KINDS",
    "ComparedRun",
    "Comparison",
    "Limits",
    "compare_runs",
    "find_side",
    "markdown_of",
    "read_side",
    "run_of",
    "text_of",
]
