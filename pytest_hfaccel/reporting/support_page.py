"""The support matrix as a Markdown page."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pytest_hfaccel.core.errors import format_names
from pytest_hfaccel.core.results import MEANINGS, CellResult, Status, cause_of
from pytest_hfaccel.reporting.support_matrix import Coverage, command_of, command_of_run, failures_of, reason_of

_STATUSES = (Status.XFAILED, Status.FAILED, Status.ERROR, Status.CRASHED, Status.TIMEOUT, Status.UNAVAILABLE)
_RUNS_SHOWN = 6
_PACKAGES = ("transformers", "torch", "openvino", "nncf", "onnxruntime", "pytest-hfaccel")


def coverage_page(coverage: Coverage, title: str = "Support matrix", further: Sequence[str] = ()) -> str:
    """Return the page: what ran, how it ended by device and by check, what failed and why, and a line per class.

    `further` is a section before the line per class.
    """
    sections = (
        [f"# {title}", "", *_runs(coverage)],
        ["## By device", "", *_by_device(coverage)],
        ["## By check", "", *_by_check(coverage)],
        ["## What did not pass", "", *_failures(coverage)],
        list(further),
        ["## Every class", "", *_every_class(coverage)],
    )
    return "\n".join(line for section in sections for line in (*section, "") if section).rstrip() + "\n"


def _runs(coverage: Coverage) -> Iterator[str]:
    yield "Written by `hfaccel support` from the journals of these runs; its `--json` has every check."
    yield ""
    for header in coverage.runs[:_RUNS_SHOWN]:
        run, versions = header.get("run", {}), header.get("versions", {})
        packages = ", ".join(f"{name} {versions[name]}" for name in _PACKAGES if versions.get(name))
        yield f"- `{command_of_run(header)}` ({run.get('started')}; {packages})"
    if len(coverage.runs) > _RUNS_SHOWN:
        yield f"- and {len(coverage.runs) - _RUNS_SHOWN} more, which the JSON lists"


def _by_device(coverage: Coverage) -> Iterator[str]:
    yield "Parity is the share of the classes that could be tried: `unavailable` ones lack a package."
    yield ""
    heads = ["device", "dtype", "classes", "all checks passed", *map(str, _STATUSES), "parity"]
    rows = []
    for device, dtype in coverage.columns():
        cells = coverage.of(device, dtype)
        counts = Counter(cell.status for cell in cells)
        passed = counts[Status.PASSED] + counts[Status.SKIPPED]
        parity = [check.status for cell in cells for check in cell.checks if check.name == "parity"]
        here = len(cells) - counts[Status.UNAVAILABLE]
        share = _share(parity.count(Status.PASSED), here) if device != "class" else ""
        statuses = [counts[status] or "" for status in _STATUSES]
        rows.append([device, dtype, len(cells), _share(passed, len(cells)), *statuses, share])
    yield from _table(heads, rows)


def _by_check(coverage: Coverage) -> Iterator[str]:
    columns = coverage.columns()
    names = dict.fromkeys(check.name for cell in coverage.cells for check in cell.checks)
    rows = [[name, *(_ended(coverage.of(*column), name) for column in columns)] for name in names]
    yield "Passed of all that ran; a check that a class cannot have is not counted."
    yield ""
    yield from _table(["check", *(f"{device} {dtype}" for device, dtype in columns)], rows)


def _ended(cells: Iterable[CellResult], name: str) -> str:
    statuses = [check.status for cell in cells for check in cell.checks if check.name == name]
    ran = [status for status in statuses if status not in (Status.SKIPPED, Status.UNAVAILABLE)]
    return f"{ran.count(Status.PASSED)}/{len(ran)}" if ran else ""


def _failures(coverage: Coverage) -> Iterator[str]:
    groups: dict[tuple[str, str, str], list[CellResult]] = defaultdict(list)
    causes: Counter[tuple[str, str]] = Counter()
    for cell in coverage.cells:
        column = f"{cell.device} {cell.dtype}"
        for outcome in failures_of(cell):
            cause = cause_of(outcome, cell.device)
            causes[cause, column] += 1
            groups[cause, column, f"{outcome.name}: {reason_of(outcome)}"].append(cell)
    columns = [f"{device} {dtype}" for device, dtype in coverage.columns()]
    rows = [
        [f"{cause}: {meaning}", *(causes[cause, column] or "" for column in columns)]
        for cause, meaning in MEANINGS.items()
        if any(causes[cause, column] for column in columns)
    ]
    yield from _table(["cause", *columns], rows)
    for cause in MEANINGS:
        found = {key: group for key, group in groups.items() if key[0] == cause}
        if found:
            yield from ("", f"### {cause}", "")
        for (_, column, reason), cells in sorted(found.items(), key=lambda item: (item[0][1], -len(item[1]), item[0])):
            yield f"- **{column}**, {len(cells)}: {_escaped(reason)}"
            yield f"  {format_names([f'`{cell.model}`' for cell in cells], 12)}"
            yield f"  (`{command_of(cells[0])}`)"


def _every_class(coverage: Coverage) -> Iterator[str]:
    columns = coverage.columns()
    by_model: dict[str, dict[tuple[str, str], CellResult]] = defaultdict(dict)
    for cell in coverage.cells:
        by_model[cell.model][cell.device, cell.dtype] = cell
    yield "Checks that passed of those that ran, and which ones did not."
    yield ""
    rows = [[name, *(_line(cells.get(column)) for column in columns)] for name, cells in by_model.items()]
    yield from _table(["class", *(f"{device} {dtype}" for device, dtype in columns)], rows)


def _line(cell: CellResult | None) -> str:
    if cell is None:
        return ""
    ran = [check for check in cell.checks if check.status != Status.SKIPPED]
    passed = [check for check in ran if check.status == Status.PASSED]
    rest = ", ".join(f"{outcome.name} {outcome.status}" for outcome in failures_of(cell))
    return f"{len(passed)}/{len(ran)}" + (f" {rest}" if rest else "")


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.1%})" if whole else "0"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _table(heads: Sequence[object], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    yield "| " + " | ".join(map(str, heads)) + " |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(map(str, row)) + " |"


def difference_section(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return a section of the page: classes that came and went, and cells that end in another way."""
    old, new = before["models"], after["models"]
    versions = (_version(before), _version(after))
    lines = [f"## Compared with transformers {versions[0]}", ""]
    for version, one, other in ((versions[1], new, old), (versions[0], old, new)):
        names = [f"`{name}`" for name in sorted(one.keys() - other.keys())]
        shown = f": {format_names(names, 40)}" if names else ""
        lines.append(f"- Classes that only transformers {version} has: {len(names)}{shown}")
    changed = list(_changed(old, new))
    lines += [f"- Cells of the same class that end in another way: {len(changed)}"]
    return [*lines, *(f"  - {text}" for text in changed)]


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for model in sorted(old.keys() & new.keys()):
        for column in sorted(old[model]["cells"].keys() & new[model]["cells"].keys()):
            first, second = (found[model]["cells"][column] for found in (old, new))
            if first["status"] != second["status"]:
                why = [
                    f"{p['check']}: {p['reason']}" for p in (*second.get("problems", ()), *first.get("problems", ()))
                ]
                yield f"`{model}` on {column}: {first['status']} -> {second['status']} ({'; '.join(why[:1])})"


def _version(coverage: Mapping[str, Any]) -> str:
    found = {run["versions"].get("transformers", "?") for run in coverage["runs"]}
    return ", ".join(sorted(found)) or "?"
