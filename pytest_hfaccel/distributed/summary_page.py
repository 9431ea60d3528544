"""A merged run on one page of Markdown, as GitHub shows it beside a job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime

from pytest_hfaccel.core.errors import first_line
from pytest_hfaccel.core.results import CellResult, Status
from pytest_hfaccel.distributed.merge import MergedRun
from pytest_hfaccel.distributed.plan import format_seconds
from pytest_hfaccel.reporting.costs import cost_rows, cost_table, prices_of_run
from pytest_hfaccel.reporting.tables import markdown_table

_FAILURES_SHOWN = 100
"""GitHub shows one megabyte per step."""


def summary_page(run: MergedRun, title: str) -> str:
    """Return the page: the verdict, what is missing, cells by device and status, what failed, and the shards."""
    return "\n".join(_lines(run, title)) + "\n"


def _lines(run: MergedRun, title: str) -> Iterator[str]:
    verdict = "passed" if run.is_passed else "**incomplete**" if run.missing else "**not passed**"
    yield f"## {title}: {verdict}"
    yield ""
    counts = Counter(str(result.status) for result in run.results)
    yield f"{len(run.results)} cells of {len(run.header['merged'])} runs: {_counted(counts)}"
    for heading, lines in (
        ("Partial: these results are missing", run.missing),
        ("The runs disagree; the worst verdict counts", run.conflicts),
        ("Notes", run.notes),
    ):
        if lines:
            yield ""
            yield f"**{heading}**"
            yield ""
            yield from (f"- {_escaped(line)}" for line in lines)
    yield from _devices(run.results)
    yield from _costs(run)
    yield from _failures(run.results)
    yield from _runs(run)


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[status]} {status}" for status in map(str, Status) if status in counts) or "none"


def _devices(results: list[CellResult]) -> Iterator[str]:
    columns = [status for status in Status if any(result.status == status for result in results)]
    devices = sorted({result.device for result in results})
    counts = {device: Counter(each.status for each in results if each.device == device) for device in devices}
    rows = [(_escaped(device), *(counts[device][status] for status in columns)) for device in devices]
    yield from ("", *markdown_table(("device", *columns), rows, range(1, len(columns) + 1)))


def _costs(run: MergedRun) -> Iterator[str]:
    rows = cost_table(cost_rows(run.results, prices_of_run(run.header)))
    if len(rows) > 1:
        escaped = (map(_escaped, row) for row in rows[1:])
        yield from ("", *markdown_table(rows[0], map(tuple, escaped), range(1, len(rows[0]))))


def _failures(results: list[CellResult]) -> Iterator[str]:
    bad = [result for result in results if result.status.is_bad or result.incomplete]
    if not bad:
        return
    rows = []
    for result in bad[:_FAILURES_SHOWN]:
        checks = ", ".join(check.name for check in result.checks if check.status == result.status)
        texts = (result.cell, str(result.status), checks, first_line(result.reason)[:200])
        rows.append([_escaped(text) for text in texts])
    yield from ("", *markdown_table(("cell", "status", "checks", "reason"), rows))
    if len(bad) > _FAILURES_SHOWN:
        yield f"\nand {len(bad) - _FAILURES_SHOWN} more, which the reports list"


def _runs(run: MergedRun) -> Iterator[str]:
    rows = []
    for one in run.header["merged"]:
        plan = one.get("plan", {})
        shard = f"{plan['shard']}/{plan['shards']}" if plan else ""
        planned = format_seconds(plan["seconds"]) if "seconds" in plan else ""
        rows.append((_escaped(one["run"]), shard, planned, _took(one), one["ended"]))
    yield from ("", *markdown_table(("run", "shard", "planned", "took", "ended"), rows, (2, 3)))


def _took(run: dict[str, str]) -> str:
    try:
        seconds = datetime.fromisoformat(run["finished"]) - datetime.fromisoformat(run["started"])
        return format_seconds(seconds.total_seconds())
    except (KeyError, ValueError, TypeError):  # a run that was killed has no end
        return ""


def _escaped(text: str) -> str:
    """Return text as it is to be read: no cell of a table ends in it, no markup begins."""
    for mark in "\\`*_[]|<":
        text = text.replace(mark, f"\\{mark}" if mark != "<" else "&lt;")
    return " ".join(text.split())
