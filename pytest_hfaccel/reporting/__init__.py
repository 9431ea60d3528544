"""From records of cells to files: the journal while the run goes on, the reports at its end, the table for people.

What goes in is `CellResult`s and a header, a dictionary of plain JSON about the run; `docs/reports.md` describes what
comes out.
"""

from __future__ import annotations

from pytest_hfaccel.reporting.journal import JOURNAL, Journal, JournalContents, read_journal
from pytest_hfaccel.reporting.reports import (
    budget_line,
    last_lines,
    model_device_rows,
    model_device_table,
    power_line,
    precision_line,
    write_reports,
)
from pytest_hfaccel.reporting.run_facts import SCHEMAS, load_schema

__all__ = [
    "JOURNAL",
    "SCHEMAS",
    "Journal",
    "JournalContents",
    "budget_line",
    "last_lines",
    "load_schema",
    "model_device_rows",
    "model_device_table",
    "power_line",
    "precision_line",
    "read_journal",
    "write_reports",
]
