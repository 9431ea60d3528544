"""Coverage: what the journals of one or several runs say of every class, device and check, on one page and as JSON."""

from __future__ import annotations

from pytest_hfaccel.reporting.coverage.causes import cause_of
from pytest_hfaccel.reporting.coverage.difference import difference_section
from pytest_hfaccel.reporting.coverage.earlier import read_coverage_json
from pytest_hfaccel.reporting.coverage.page import coverage_page
from pytest_hfaccel.reporting.coverage.rows import Coverage, coverage_json, read_coverage

__all__ = [
    "Coverage",
    "cause_of",
    "coverage_json",
    "coverage_page",
    "difference_section",
    "read_coverage",
    "read_coverage_json",
]
