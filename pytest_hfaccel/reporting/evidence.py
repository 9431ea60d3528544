"""All that many runs found: per class, device, dtype and release of transformers, with the runs it is from.

The support site is made of it: a page with all its data, and the newest results as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.files import replace_file
from pytest_hfaccel.core.results import CellResult, Status
from pytest_hfaccel.reporting.journal import read_journal
from pytest_hfaccel.reporting.runs import PAGE, RUNS, find_journals
from pytest_hfaccel.reporting.support_matrix import (
    Coverage,
    command_of_run,
    coverage_json,
    read_coverage_json,
    results_of,
    write_coverage_json,
)

UNKNOWN = "unknown"
"""The release of a run whose header has no version of transformers."""

_DATA = "support.json"
_DEVICES = re.compile(r"--hf-device[ =](\S+)")
_DTYPES = re.compile(r"--hf-dtype[ =](\S+)")
_MODELS = re.compile(r"--hf-model[ =](\S+)")
_MODULES = re.compile(r"test_hf_(\w+)\.py")


@dataclass(frozen=True)
class SourceRun:
    """A run that results are from.

    Attributes:
        id: Its folder's name; empty for runs that only a support matrix lists.
        command: The command line, without folders of the machine.
        started: ISO 8601, or empty.
        versions: Of the packages that decide a result.
        machine: What `machine` in the journal's header says.
        commit: Of the tested project.
    """

    id: str
    command: str
    started: str
    versions: Mapping[str, str]
    machine: Mapping[str, Any] = field(default_factory=dict)
    commit: str = ""

    @property
    def release(self) -> str:
        """The version of transformers."""
        return self.versions.get("transformers") or UNKNOWN


@dataclass(frozen=True)
class Record:
    """What is known of one model on one device, at one dtype, with one release: the newest outcome of each check.

    Attributes:
        result: The cell's record.
        release: The version of transformers.
        runs: Numbers of the runs it is from, the newest last. From a support matrix that does not say which run it
            was, all that may have been.
        is_one_of: Whether `runs` are such candidates.
        before: Earlier outcomes with the same release that differ from the next one: number of the run, status.
    """

    result: CellResult
    release: str
    runs: tuple[int, ...]
    is_one_of: bool = False
    before: tuple[tuple[int, Status], ...] = ()


@dataclass(frozen=True)
class Evidence:
    """The runs, oldest first, and the records, sorted by class, model, device, dtype, weights and release."""

    runs: Sequence[SourceRun]
    records: Sequence[Record]

    @property
    def releases(self) -> list[str]:
        """The transformers releases with a record, oldest first."""
        return sorted({record.release for record in self.records}, key=release_order)

    def newest(self) -> Coverage:
        """Return each cell's record with the newest release that has one; of several, that of the last run."""

        def age(record: Record) -> tuple[Any, ...]:
            return release_order(record.release), record.runs[-1] if record.runs else -1

        newest = {
            (each.result.model.lower(), each.result.device, each.result.dtype): each
            for each in sorted(self.records, key=age)
        }
        headers = [
            {"run": {"command": run.command, "started": run.started}, "versions": dict(run.versions)}
            for run in self.runs
        ]
        matrix = Coverage(headers)
        for _, record in sorted(newest.items()):
            cell = record.result
            matrix.cells.append(cell)
            matrix.sources[cell.model, cell.device, cell.dtype] = [] if record.is_one_of else list(record.runs)
        return matrix


def release_order(release: str) -> tuple[Any, ...]:
    """Return what sorts releases: 5.9 < 5.16.0.dev0 < 5.16.0."""
    from packaging.version import InvalidVersion, Version

    try:
        return (1, Version(release))
    except InvalidVersion:
        return (0, release)


def read_evidence(paths: Sequence[Path]) -> Evidence:
    """Read journals, folders of runs, directories of reports (all their runs), and support matrices.

    Raises:
        ConfigError: Something cannot be read, or there is no finished cell in any of it.
    """
    runs: list[SourceRun] = []
    found: list[tuple[str, int, tuple[int, ...], bool, CellResult]] = []
    files = dict.fromkeys(file.resolve() for path in paths for file in find_journals(path))
    for file in files:
        if ".json" in file.suffixes:
            data = read_coverage_json(file)
            numbers = range(len(runs), len(runs) + len(data["runs"]))
            runs += [_matrix_run(run) for run in data["runs"]]
            may_be_from = _Candidates(runs, numbers)
            modules = {number: _MODULES.findall(runs[number].command) for number in numbers}
            for result, known in results_of(data):
                those = [numbers[number] for number in known] or may_be_from(result)
                candidates = tuple(sorted(those, key=lambda number: runs[number].started))
                named = {name for number in candidates for name in modules[number]}
                if not result.module and len(named) == 1:
                    result = replace(result, module=named.pop())
                last = candidates[-1] if candidates else -1
                started = runs[last].started if candidates else ""
                found.append((started, last, candidates, not known and len(candidates) > 1, result))
        else:
            contents = read_journal(file)
            run = _journal_run(contents.header)
            runs.append(run)
            mine = (len(runs) - 1,)
            # A resumed run took these over; where that run is read, too, they are known.
            kept = [each for each in contents.kept if not any(each.from_run == one.id for one in runs)]
            found += [(run.started, mine[0], mine, False, result) for result in (*kept, *contents.results)]
    records = _merge(runs, found)
    if not records:
        raise ConfigError(
            f"{', '.join(map(str, paths))}: no finished cell.",
            hint="Name journals, directories of reports, or support matrices; a run writes reports/journal.jsonl.",
        )
    return _without_unused(runs, records)


def _matrix_run(run: Mapping[str, Any]) -> SourceRun:
    return SourceRun("", run["command"] or "", run["started"] or "", run["versions"])


def _journal_run(header: Mapping[str, Any]) -> SourceRun:
    run = header.get("run", {})
    versions = {name: str(version) for name, version in header.get("versions", {}).items() if version}
    return SourceRun(
        id=str(run.get("id") or ""),
        command=command_of_run(dict(header)) or "",
        started=str(run.get("started") or ""),
        versions=versions,
        machine=header.get("machine") or {},
        commit=str(header.get("commit") or ""),
    )


class _Candidates:
    """Of a matrix that merges runs and does not say which one a cell is from: the runs that may have run it."""

    def __init__(self, runs: Sequence[SourceRun], numbers: Sequence[int]) -> None:
        self._commands = {number: runs[number].command for number in numbers}
        self._models = {number: set(_MODELS.findall(command)) for number, command in self._commands.items()}
        self._fitting: dict[tuple[str, str], list[int]] = {}

    def __call__(self, result: CellResult) -> list[int]:
        """Return the numbers of those whose command fits the device, the dtype and the model; if none does, of all."""
        key = (result.device, result.dtype)
        if key not in self._fitting:
            self._fitting[key] = [number for number, command in self._commands.items() if _fits(command, *key)]
        # A command that was shortened may have named the model.
        found = [
            number
            for number in self._fitting[key]
            if not self._models[number] or result.model in self._models[number] or "…" in self._commands[number]
        ]
        return found or self._fitting[key] or list(self._commands)


def _fits(command: str, device: str, dtype: str) -> bool:
    def names(pattern: re.Pattern[str], value: str) -> bool:
        named = {name for one in pattern.findall(command) for name in one.split(",")}
        return not named or value in named

    return device == "class" or (names(_DEVICES, device) and names(_DTYPES, dtype))


def _merge(
    runs: Sequence[SourceRun], found: Iterable[tuple[str, int, tuple[int, ...], bool, CellResult]]
) -> list[Record]:
    merged: dict[tuple[str, ...], Record] = {}
    for _, last, numbers, is_one_of, result in sorted(found, key=lambda each: each[0]):
        if not result.is_finished:
            continue
        release = runs[last].release if last >= 0 else UNKNOWN
        key = (result.architecture, result.model, result.device, result.dtype, result.weights, release)
        earlier = merged.get(key)
        if earlier is None:
            merged[key] = Record(result, release, numbers, is_one_of)
            continue
        # A later run may have asked for some checks only.
        again = {check.name for check in result.checks}
        kept = [check for check in earlier.result.checks if check.name not in again]
        both = replace(result, checks=[*kept, *result.checks])
        before = earlier.before
        if both.status != earlier.result.status:
            before = (*before, (earlier.runs[-1], earlier.result.status))
        sources = tuple(dict.fromkeys((*earlier.runs, *numbers))) if kept else numbers
        merged[key] = Record(both, release, sources, is_one_of or (bool(kept) and earlier.is_one_of), before)

    def place(key: tuple[str, ...]) -> tuple[Any, ...]:
        return (key[0].lower(), *key[:-1], release_order(key[-1]))

    return [merged[key] for key in sorted(merged, key=place)]


def _without_unused(runs: Sequence[SourceRun], records: Sequence[Record]) -> Evidence:
    """Leave out runs that no record is from, and number the others by their start."""
    used = {number for each in records for number in (*each.runs, *(run for run, _ in each.before))}
    ordered = sorted(used, key=lambda number: (runs[number].started, number))
    new = {number: at for at, number in enumerate(ordered)}

    def renumbered() -> Iterator[Record]:
        for each in records:
            before = tuple((new[number], status) for number, status in each.before)
            yield replace(each, runs=tuple(new[number] for number in each.runs), before=before)

    return Evidence([runs[number] for number in ordered], list(renumbered()))


def write_site(directory: Path, evidence: Evidence, hub_ids: Mapping[str, Sequence[str]]) -> Path:
    """Write the support site, over an earlier one.

    Args:
        directory: Made where it is missing.
        evidence: What the site shows.
        hub_ids: By class of transformers, or by model type: the hub ids that a search finds it by.

    Returns:
        The page.

    Raises:
        ConfigError: The directory holds reports or another page, or cannot be written.
    """
    from pytest_hfaccel.reporting.html import SITE_TITLE, make_site_page

    page = directory / PAGE
    another = "Choose another directory with --output."
    try:
        if (directory / RUNS).exists():
            raise ConfigError(
                f"{directory} is a directory of reports, whose page the site would replace.", hint=another
            )
        if page.exists() and SITE_TITLE not in page.read_text(encoding="utf-8", errors="replace")[:4000]:
            raise ConfigError(f"{page} is another page, which the site would replace.", hint=another)
        write_coverage_json(directory / _DATA, coverage_json(evidence.newest()))
        replace_file(page, make_site_page(evidence, hub_ids))
    except OSError as error:
        raise ConfigError(f"{error.filename or directory} cannot be written: {error.strerror}", hint=another) from error
    return page
