"""The journals of many jobs -> one run: nothing is lost, nothing counted twice, and what is wrong has a name.

Of a plan every shard must be there exactly once, with all its cells; runs of no plan must have come to their end. What
is missing makes a merged run only if that is asked for, and then the run says so and has not passed.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import ConfigError, format_names
from pytest_hfaccel.core.results import CellKey, CellResult, Ended, Status
from pytest_hfaccel.distributed.plan import ShardPlan
from pytest_hfaccel.reporting.journal import JOURNAL, JournalContents, read_journal
from pytest_hfaccel.reporting.reports import SUMMARY, speaks_against
from pytest_hfaccel.reporting.runs import RunFolder, find_journals

_SHOWN = 4
_KEEP_ALL = 10**9
_PARTIAL = (
    "Run what is missing and merge again, or merge what there is with --partial: the reports then say what is not."
)


@dataclass
class _Run:
    path: Path
    journal: JournalContents
    results: dict[CellKey, CellResult]

    @property
    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = self.journal.header.get("run", {})
        return facts

    @property
    def id(self) -> str:
        return str(self.facts.get("id") or self.path)

    @property
    def plan(self) -> dict[str, Any]:
        plan: dict[str, Any] = self.facts.get("plan", {})
        return plan

    @property
    def is_finished(self) -> bool:
        ended = self.journal.end.get("ended", Ended.FINISHED)
        return self.journal.is_complete and ended == Ended.FINISHED

    def __str__(self) -> str:
        return f"run {self.id} ({self.path})"


@dataclass
class MergedRun:
    """What the journals say together.

    Attributes:
        header: The header of the merged run.
        results: The cells, in the order of the runs.
        durations: By cell, the seconds of its tests by node id.
        missing: What is not there, in words; only where that was allowed.
        conflicts: The cells that runs disagree about, in words; only where that was allowed.
        notes: What else there is to tell: torn lines, cells that several runs have.
        sources: The runs that the records come from: the header of each, with `started`, `finished`, `command`,
            `machine`, `versions` and `commit`, and its records.
    """

    header: dict[str, Any]
    results: list[CellResult]
    durations: dict[CellKey, dict[str, float]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sources: list[tuple[dict[str, Any], list[CellResult]]] = field(default_factory=list)

    @property
    def ended(self) -> Ended:
        """`interrupted` where something is missing: such a run has not passed."""
        return Ended.INTERRUPTED if self.missing else Ended.FINISHED

    @property
    def is_passed(self) -> bool:
        """Whether nothing is missing, nothing failed, and something passed."""
        good = any(result.status in (Status.PASSED, Status.XFAILED) for result in self.results)
        return good and not self.missing and not any(map(speaks_against, self.results))

    def write(self, reports: Path, command: str, mode: int = 0o600) -> Path:
        """Write the journal and all reports of the merged run into a folder of its own, and return the folder.

        Raises:
            ConfigError: It cannot be written.
        """
        folder = RunFolder(reports, {**self.header, "command": command}, mode=mode)
        for result in self.results:
            folder.journal.append(result, self.durations.get(result.key))
        finished = {"finished": self.header["finished"], "pool": self.header["pool"]}
        folder.finish(self.results, finished, self.ended, _KEEP_ALL)
        return folder.directory


def merge_runs(
    paths: Iterable[Path], plan: ShardPlan | None = None, *, partial: bool = False, keep_worst: bool = False
) -> MergedRun:
    """Join the journals of many jobs.

    Args:
        paths: Journals, folders of runs, or directories of reports.
        plan: The plan that they are the shards of; without it, what their headers say of it is compared.
        partial: Whether something may be missing.
        keep_worst: Whether a cell that runs disagree about gets its worst verdict, instead of being refused.

    Raises:
        ConfigError: No journal is there, or one cannot be read; shards are missing, doubled, or of other plans; runs
            disagree about a cell.
    """
    notes: list[str] = []
    runs = _resumed_once(_read_runs(paths, notes))
    missing = [f"{run.path}: {text}" for run in runs for text in _damage(run)]
    if plan is not None or any(run.plan for run in runs):
        missing += _require_shards(runs, plan)
    else:
        missing += [f"{run} was {_how_it_ended(run)}" for run in runs if not run.is_finished]
    if missing and not partial:
        raise ConfigError("the runs are not complete:\n" + "\n".join(f"  {line}" for line in missing), hint=_PARTIAL)
    joined, conflicts, twice = _join(runs)
    results = {key: record for key, (_, record) in joined.items()}
    if conflicts and not keep_worst:
        raise ConfigError(
            "the runs disagree about cells:\n" + "\n".join(f"  {line}" for line in conflicts),
            hint="Leave out the runs that do not count, or take the worst verdict of each with --keep-worst.",
        )
    if twice:
        names = format_names(sorted(cell for _, cell in twice), _SHOWN)
        notes.append(f"{len(twice)} cells are in several runs, which agree about them: {names}")
    durations = {key: seconds for run in runs for key, seconds in run.journal.durations.items() if key in results}
    header = _header(runs, missing, conflicts)
    sources = [(_header_of(run), [record for of, record in joined.values() if of is run]) for run in runs]
    return MergedRun(header, list(results.values()), durations, missing, conflicts, notes, sources)


def _read_runs(paths: Iterable[Path], notes: list[str]) -> list[_Run]:
    files = dict.fromkeys(journal.resolve() for path in paths for journal in find_journals(path))
    runs: dict[bytes, _Run] = {}
    for file in files:
        journal = read_journal(file)
        if not journal.header:
            raise ConfigError(
                f"{file}: the first line cannot be read, so it is not known which run this is.",
                hint="Leave this journal out, and run what it was about again.",
            )
        content = file.read_bytes()
        if content in runs:
            notes.append(f"{file}: the same journal as {runs[content].path}")
            continue
        runs[content] = _Run(file, journal, {result.key: result for result in journal.cells})
        notes += [problem for problem in journal.problems if "is torn" in problem]
    return list(runs.values())


def _resumed_once(runs: Sequence[_Run]) -> list[_Run]:
    """Leave out the runs that others resumed: these have kept what was finished."""
    resumed = {(run.facts.get("resumed"), str(run.plan)) for run in runs}
    return [run for run in runs if (run.id, str(run.plan)) not in resumed]


def _damage(run: _Run) -> list[str]:
    return [f"a line is damaged: {problem}" for problem in run.journal.problems if "is torn" not in problem]


def _how_it_ended(run: _Run) -> str:
    if run.journal.is_complete:
        return "interrupted"
    return "killed, or still goes on" + (
        f"; it was running {run.journal.starts[-1]['test']}" if run.journal.starts else ""
    )


def _require_shards(runs: Sequence[_Run], plan: ShardPlan | None) -> list[str]:
    """Return what is missing of a plan.

    Raises:
        ConfigError: A run is no shard of it, or two are the same one.
    """
    fingerprint = plan.fingerprint if plan else next(run.plan["fingerprint"] for run in runs if run.plan)
    others = [
        f"{run} is {'of plan ' + run.plan['fingerprint'] if run.plan else 'of no plan'}"
        for run in runs
        if run.plan.get("fingerprint") != fingerprint
    ]
    if others:
        raise ConfigError(
            f"not all runs are shards of plan {fingerprint}:\n" + "\n".join(f"  {line}" for line in others),
            hint="Merge the shards of one plan at a time.",
        )
    by_shard: dict[int, list[_Run]] = defaultdict(list)
    for run in runs:
        by_shard[run.plan["shard"]].append(run)
    doubled = [
        f"shard {shard}: " + " and ".join(map(str, several))
        for shard, several in sorted(by_shard.items())
        if len(several) > 1
    ]
    if doubled:
        raise ConfigError(
            f"shards of plan {fingerprint} are there more than once:\n" + "\n".join(f"  {line}" for line in doubled),
            hint="Name the run that counts, or resume a run (--hf-resume) instead of starting it again.",
        )
    count = len(plan.shards) if plan else max(run.plan["shards"] for run in runs)
    missing = []
    absent = [str(number) for number in range(1, count + 1) if number not in by_shard]
    if absent:
        noun = "shard" if len(absent) == 1 else "shards"
        missing.append(f"{noun} {', '.join(absent)} of {count} of plan {fingerprint}: no run")
    for shard, (run,) in sorted(by_shard.items()):
        done = {key for key, result in run.results.items() if result.is_finished}
        planned = {cell.key for cell in plan.shards[shard - 1]} if plan else None
        left = len(planned - done) if planned is not None else int(run.plan["cells"]) - len(done)
        if left > 0:
            names = f": {format_names(sorted(cell for _, cell in planned - done), _SHOWN)}" if planned else ""
            ended = "" if run.is_finished else f" ({_how_it_ended(run)})"
            missing.append(f"shard {shard} of {count}: {left} cells have no complete result{names}; {run}{ended}")
    return missing


def _join(runs: Sequence[_Run]) -> tuple[dict[CellKey, tuple[_Run, CellResult]], list[str], set[CellKey]]:
    """Return one record per cell with its run, the conflicts, and the cells that several runs have.

    A record that is finished goes before one that is not; of two that disagree the worse one stays.
    """
    found: dict[CellKey, tuple[_Run, CellResult]] = {}
    conflicts, twice = [], set()
    for run in runs:
        for key, result in run.results.items():
            record = CellResult.from_json({**result.to_json(), "from_run": result.from_run or run.id})
            if key not in found:
                found[key] = run, record
                continue
            before, known = found[key]
            if known.is_finished != record.is_finished:
                found[key] = (run, record) if record.is_finished else (before, known)
                continue
            twice.add(key)
            if differences := _disagreements(known, record):
                conflicts.append(f"{record.cell} ({record.module}): {differences}, in {before} and {run}")
                found[key] = min((before, known), (run, record), key=lambda one: one[1].status.rank)
            else:
                _add_checks(known, record)
    return found, conflicts, twice


def _verdicts(result: CellResult) -> dict[tuple[str, str], Status]:
    return {(check.name, str(check.measures.get("point", ""))): check.status for check in result.checks}


def _disagreements(first: CellResult, second: CellResult) -> str:
    """Say which checks that both have ended differently; empty where none did."""
    one, other = _verdicts(first), _verdicts(second)
    different = [f"{key[0]} {one[key]} and {other[key]}" for key in one if key in other and one[key] != other[key]]
    return format_names(different, _SHOWN) if different else ""


def _add_checks(record: CellResult, other: CellResult) -> None:
    """Add the checks that only another run of the cell has."""
    known = _verdicts(record)
    record.checks += [
        check for check in other.checks if (check.name, str(check.measures.get("point", ""))) not in known
    ]


def _header(runs: Sequence[_Run], missing: list[str], conflicts: list[str]) -> dict[str, Any]:
    headers = [run.journal.header for run in runs]
    commits = {header.get("commit") for header in headers}
    devices = dict.fromkeys(device for run in runs for device in run.facts.get("devices", ()))
    absent = {
        name: reason
        for run in runs
        for name, reason in (run.facts.get("absent_devices") or {}).items()
        if name not in devices
    }
    ends = [run.journal.end.get("finished", "") for run in runs]
    starts = [str(run.facts.get("started", "")) for run in runs]
    header: dict[str, Any] = {
        "started": min(starts),
        "finished": max([*ends, *starts]),
        "machine": _common(header.get("machine", {}) for header in headers),
        "options": _common(header.get("options", {}) for header in headers),
        "versions": _versions(header.get("versions", {}) for header in headers),
        "commit": commits.pop() if len(commits) == 1 else None,
        "devices": list(devices),
        "absent_devices": absent,
        "pool": [pool for run in runs for pool in _pool(run)],
        "merged": [_about(run) for run in runs],
    }
    if plan := next((run.plan for run in runs if run.plan), None):
        header["plan"] = {"fingerprint": plan["fingerprint"], "shards": plan["shards"]}
    return header | ({"partial": missing} if missing else {}) | ({"conflicts": conflicts} if conflicts else {})


def _header_of(run: _Run) -> dict[str, Any]:
    started = str(run.facts.get("started", ""))
    return {
        "started": started,
        "finished": run.journal.end.get("finished") or started,
        "command": run.facts.get("command", ""),
        "machine": run.journal.header.get("machine", {}),
        "versions": run.journal.header.get("versions", {}),
        "commit": run.journal.header.get("commit"),
    }


def _about(run: _Run) -> dict[str, Any]:
    facts: dict[str, Any] = {name: run.facts[name] for name in ("started", "command", "plan") if name in run.facts}
    ended = run.journal.end.get("ended", "") or ("finished" if run.journal.is_complete else "ended early")
    finished = run.journal.end.get("finished", "")
    machine = run.journal.header.get("machine", {})
    counts = Counter(str(result.status) for result in run.results.values())
    return {"run": run.id, **facts, "finished": finished, "ended": ended, "cells": dict(counts), "machine": machine}


def _common(objects: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the fields that all objects have alike."""
    first, *others = list(objects)
    return {key: value for key, value in first.items() if all(key in one and one[key] == value for one in others)}


def _versions(runs: Iterable[Mapping[str, str | None]]) -> dict[str, str | None]:
    """Return the version of each package; several, where the runs had several."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for versions in runs:
        for name, version in versions.items():
            if version is not None:
                found[name][version] = None
            else:
                found[name].update({})
    return {name: ", ".join(several) or None for name, several in found.items()}


def _pool(run: _Run) -> list[Any]:
    """Return the statistics that the run's summary has; a killed run has none."""
    if run.path.name != JOURNAL:
        return []
    try:
        summary = json.loads(run.path.with_name(SUMMARY).read_text(encoding="utf-8"))
        return list(summary["run"].get("pool", ()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
