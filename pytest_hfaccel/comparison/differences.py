"""Two runs -> what changed between them: verdicts, numbers, speed, memory, and what ran."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pytest_hfaccel.comparison.runs import ComparedRun
from pytest_hfaccel.comparison.speed import SLOWER, DeviceNoise, Limits, Timing, compare_timings
from pytest_hfaccel.core.config import COMPARED
from pytest_hfaccel.core.errors import shorten
from pytest_hfaccel.core.results import SCHEMA_VERSION, CellResult, CheckOutcome, Status
from pytest_hfaccel.reporting.plain import to_plain

KINDS = VERDICTS, MISSING, DRIFT, SPEED, MEMORY = COMPARED
"""What may become worse."""
COUNTED = (VERDICTS, DRIFT, SPEED, MEMORY)
"""What makes a comparison fail unless the user says something else."""

NEWLY_FAILING, NEWLY_PASSING, OTHER_FAILURE = "newly failing", "newly passing", "other failure"
NO_LONGER_TESTED, NEWLY_TESTED, OTHER_VERDICT = "no longer tested", "newly tested", "other verdict"

_PERTURBED = frozenset({"canary"})
"""Checks whose distances are those of models that were changed on purpose."""
_NO_DISTANCES = frozenset({"tolerance", "budget"})
"""Parts of measures that say what a distance may be, not what it is."""
_TESTED = frozenset({Status.PASSED, Status.XFAILED})
_ROUNDING = 1e-6
"""Below this a rel-L2 is the rounding of fp32."""
_DRIFT_FACTOR, _SHARE_OF_TOLERANCE = 2.0, 0.1
"""A drift at least doubles a distance and adds a tenth of the tolerance to it."""
_DRIFT_FACTOR_ALONE = 10.0
"""What it takes where the tolerance is not recorded."""
_MEMORY_SHARE, _MEMORY_BYTES = 0.05, 2**22
"""A peak changed by more than both: the allocators of a process round to mebibytes."""
_WEIGHTS_SHARE = 0.01


@dataclass(frozen=True)
class Place:
    """The check of a cell that a difference is about.

    Attributes:
        module: Model class module.
        cell: The cell.
        model: The model.
        architecture: Its class.
        device: The device; `class` for the checks that run once per model.
        dtype: The precision.
        weights: The kind of weights, of the run where both have one.
        check: The check, with its point where it ran at several: `performance b4-s32`; empty for the whole cell.
    """

    module: str
    cell: str
    model: str
    architecture: str
    device: str
    dtype: str
    weights: str
    check: str


@dataclass(frozen=True)
class Verdict:
    """How a check ended."""

    status: str
    stage: str
    cause: str
    reason: str


@dataclass(frozen=True)
class VerdictChange:
    """A check that ended differently, or that only one side has; then the other side is `None`."""

    change: str
    place: Place
    baseline: Verdict | None
    run: Verdict | None

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""
        sides = {"baseline": _as_json(self.baseline), "run": _as_json(self.run)}
        return {"change": self.change, **asdict(self.place), **sides}


@dataclass(frozen=True)
class Drift:
    """A distance from the reference that changed.

    Attributes:
        place: The check that measured it.
        leaf: Which of its distances: the output's name, or the name of the measure.
        baseline: rel-L2 of the baseline.
        run: That of the run.
        tolerance: The rel-L2 that was allowed; `None` where it was not recorded.
        is_worse: Whether it grew by more than rounding; see docs/comparing_runs.md.
    """

    place: Place
    leaf: str
    baseline: float
    run: float
    tolerance: float | None
    is_worse: bool

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""
        numbers = {name: getattr(self, name) for name in ("leaf", "baseline", "run", "tolerance")}
        return {**asdict(self.place), **numbers, "worse": self.is_worse}


@dataclass(frozen=True)
class MemoryChange:
    """A size that changed.

    Attributes:
        place: The cell.
        what: `weights` (the bytes that the loaded model says it holds) or `peak` (what it added to the memory of its
            device), with the point at which it was measured.
        baseline: Bytes of the baseline.
        run: Bytes of the run.
        is_worse: Whether it grew by more than its noise; see docs/comparing_runs.md.
    """

    place: Place
    what: str
    baseline: int
    run: int
    is_worse: bool

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""
        return {
            **asdict(self.place),
            "what": self.what,
            "baseline_bytes": self.baseline,
            "run_bytes": self.run,
            "worse": self.is_worse,
        }


@dataclass
class Comparison:
    """What changed from a baseline to a run.

    Attributes:
        baseline: The side that is the measure.
        run: The side that is judged.
        surroundings: What else is not the same: machine, versions, options, weights, an early end. Texts.
        verdicts: Checks that ended differently.
        drift: Distances that changed.
        timings: All speeds that both sides have measured.
        noise: What each device's noise is.
        memory: Sizes that changed.
    """

    baseline: ComparedRun
    run: ComparedRun
    surroundings: list[str] = field(default_factory=list)
    verdicts: list[VerdictChange] = field(default_factory=list)
    drift: list[Drift] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)
    noise: list[DeviceNoise] = field(default_factory=list)
    memory: list[MemoryChange] = field(default_factory=list)

    def worse(self, kinds: Collection[str] = KINDS) -> dict[str, int]:
        """Return how many differences are for the worse, by kind; kinds without any are left out."""
        changes = [one.change for one in self.verdicts]
        slower_devices = sum(one.verdict == SLOWER for one in self.noise)
        found = {
            VERDICTS: changes.count(NEWLY_FAILING),
            MISSING: changes.count(NO_LONGER_TESTED),
            DRIFT: sum(one.is_worse for one in self.drift),
            SPEED: sum(one.is_worse for one in self.timings) + slower_devices,
            MEMORY: sum(one.is_worse for one in self.memory),
        }
        return {kind: number for kind, number in found.items() if number and kind in kinds}

    def to_json(self, counted: Collection[str] = COUNTED) -> dict[str, Any]:
        """Return what `comparison.json` says; its schema is `comparison`."""
        data: dict[str, Any] = to_plain(
            {
                "schema": "pytest-hfaccel/comparison",
                "schema_version": SCHEMA_VERSION,
                "baseline": self.baseline.to_json(),
                "run": self.run.to_json(),
                "surroundings": self.surroundings,
                "fail_on": list(counted),
                "worse": self.worse(),
                "passed": not self.worse(counted),
                "verdicts": [one.to_json() for one in self.verdicts],
                "drift": [one.to_json() for one in self.drift],
                "speed": {
                    "devices": [one.to_json() for one in self.noise],
                    "measurements": [one.to_json() for one in self.timings],
                },
                "memory": [one.to_json() for one in self.memory],
            }
        )
        return data


def compare_runs(
    baseline: ComparedRun,
    run: ComparedRun,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> Comparison:
    """Compare a run with a baseline: cells by module and id, measurements by model, device, precision and point."""
    found = Comparison(baseline, run, _surroundings(baseline, run))
    for key in dict.fromkeys([*baseline.results, *run.results]):
        before, after = baseline.results.get(key), run.results.get(key)
        found.verdicts += _verdict_changes(before, after)
        if before is not None and after is not None and before.weights == after.weights:
            found.drift += _drifts(before, after)
            found.memory += _memory_changes(before, after)
    found.timings, found.noise = compare_timings(baseline.points, run.points, limits)
    return found


def _surroundings(baseline: ComparedRun, run: ComparedRun) -> list[str]:
    found = [f"{side.source}: {problem}" for side in (baseline, run) for problem in side.problems]
    found += [f"{side.source}: the run did not come to its end" for side in (baseline, run) if not side.is_complete]
    if baseline.is_history and not baseline.runs:
        found.append(f"{baseline.source}: there is no earlier run in this database")
    for what in ("machine", "versions", "options"):
        if what == "options" and baseline.is_history:
            continue
        before, after = _flat(baseline.header.get(what) or {}), _flat(run.header.get(what) or {})
        for name in dict.fromkeys([*before, *after]):
            is_same = before.get(name) == after.get(name)
            if not is_same and name not in _SAY_NOTHING and not (what == "machine" and _CHANGING.search(name)):
                found.append(f"{what}: {name}: {_shown(before.get(name))} -> {_shown(after.get(name))}")
    for key, result in run.results.items():
        before_weights = baseline.results[key].weights if key in baseline.results else result.weights
        if before_weights != result.weights:
            found.append(f"weights: {result.cell}: {before_weights} -> {result.weights}: no numbers are compared")
    return found


_SAY_NOTHING = frozenset(
    {"reports", "reports_mode", "database", "baseline", "baseline_fail_on", "resume", "keep_runs", "cache"}
)
"""Options that differ between any two runs, or that decide nothing."""
_CHANGING = re.compile(r"(?:^|\.)(?:available|free)_|^load_average$|^versions\.")
"""Facts of a machine that differ from one moment to the next; its versions are compared by themselves."""


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, list) and all(isinstance(one, Mapping) and "device" in one for one in item):
            found.update(_flat({str(one["device"]): one for one in item}, f"{prefix}{name}."))
        elif isinstance(item, Mapping):
            found.update(_flat(item, f"{prefix}{name}."))
        else:
            found[f"{prefix}{name}"] = item
    return found


def _shown(value: Any) -> str:
    return shorten("none" if value is None or value == [] else str(value), 80)


def _verdict_changes(before: CellResult | None, after: CellResult | None) -> Iterator[VerdictChange]:
    known = after or before
    assert known is not None  # noqa: S101 - one side has the cell
    if before is None or after is None:
        change = NEWLY_TESTED if before is None else NO_LONGER_TESTED
        yield VerdictChange(change, _place(known, ""), _verdict(before), _verdict(after))
        return
    old, new = _checks(before), _checks(after)
    for name, other_name in _pairs(old, new):
        one, other = _verdict(old.get(name)), _verdict(new.get(other_name))
        change = _change(one, other)
        if change:
            yield VerdictChange(change, _place(known, max(name, other_name, key=len)), one, other)


def _pairs(old: Mapping[str, CheckOutcome], new: Mapping[str, CheckOutcome]) -> Iterator[tuple[str, str]]:
    """Yield the names of each check on both sides; that of the other side where one has no such check.

    One that failed before it measured does not say at which point: it belongs to a point that the other side has alone.
    """
    alone: dict[str, list[str]] = {}
    for name, outcome in new.items():
        if name not in old:
            alone.setdefault(outcome.name, []).append(name)
    for name, outcome in old.items():
        has_point = "batch" in outcome.measures
        others = [other for other in alone.get(outcome.name, ()) if ("batch" in new[other].measures) != has_point]
        if name in new or not others:
            yield name, name
        else:
            alone[outcome.name].remove(others[0])
            yield name, others[0]
    for names in alone.values():
        yield from ((name, name) for name in names)


def _change(before: Verdict | None, after: Verdict | None) -> str:
    was = Status(before.status) if before else None
    now = Status(after.status) if after else None
    if was == now and before and after:
        same = (before.stage, before.cause) == (after.stage, after.cause)
        return "" if same or not was or not was.is_bad else OTHER_FAILURE
    if now is None or (now not in _TESTED and not now.is_bad):
        return NO_LONGER_TESTED if was is not None and (was in _TESTED or was.is_bad) else OTHER_VERDICT
    if now.is_bad:
        return OTHER_FAILURE if was is not None and was.is_bad else NEWLY_FAILING
    if was is None or (was not in _TESTED and not was.is_bad):
        return NEWLY_TESTED
    return NEWLY_PASSING if was.is_bad else OTHER_VERDICT


def _verdict(of: CellResult | CheckOutcome | None) -> Verdict | None:
    if of is None:
        return None
    cause = of.cause if isinstance(of, CheckOutcome) else next((c.cause for c in of.checks if c.cause), "")
    return Verdict(str(of.status), str(of.stage or ""), str(cause or ""), of.reason or "")


def _checks(result: CellResult) -> dict[str, CheckOutcome]:
    """Return the outcomes by check, and by point or number where a check has several."""
    found: dict[str, CheckOutcome] = {}
    for outcome in result.checks:
        name = outcome.name
        if "batch" in outcome.measures:
            length = outcome.measures.get("length") or 0
            name += f" b{outcome.measures['batch']}" + (f"-s{length}" if length else "")
        number, unique = 1, name
        while unique in found:
            number += 1
            unique = f"{name} #{number}"
        found[unique] = outcome
    return found


def _place(result: CellResult, check: str) -> Place:
    names = ("module", "cell", "model", "architecture", "device", "dtype", "weights")
    return Place(**{name: str(getattr(result, name)) for name in names}, check=check)


def _as_json(verdict: Verdict | None) -> dict[str, str] | None:
    return None if verdict is None else asdict(verdict)


def _drifts(before: CellResult, after: CellResult) -> Iterator[Drift]:
    old, new = _checks(before), _checks(after)
    for name in filter(new.__contains__, old):
        if old[name].name in _PERTURBED:
            continue
        earlier, later = dict(_distances(old[name].measures)), dict(_distances(new[name].measures))
        limits = new[name].measures.get("tolerance")
        tolerance = _number(limits.get("rel_l2")) if isinstance(limits, Mapping) else None
        for leaf in filter(later.__contains__, earlier):
            one, other = earlier[leaf], later[leaf]
            if _is_drift(one, other, tolerance):
                yield Drift(_place(after, name), leaf, one, other, tolerance, is_worse=not other <= one)


def _distances(measures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield each rel-L2 with the output it is of; the largest one is not named again beside its leaves."""
    leaves = measures.get("leaves")
    for name, value in measures.items():
        if isinstance(value, Mapping) and name not in _NO_DISTANCES:
            yield from _distances(value, prefix if name == "leaves" else f"{prefix}{name}.")
        elif name.endswith("rel_l2") and not leaves:
            number = _number(value)
            if number is not None:
                yield (prefix.rstrip(".") if name == "rel_l2" and prefix else f"{prefix}{name}"), number


def _number(value: Any) -> float | None:
    """A measure is what a check gave; a third party's may be anything. In a file infinity is a text."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _is_drift(before: float, after: float, tolerance: float | None) -> bool:
    small, large = sorted((before, after))
    if not math.isfinite(large):
        return math.isfinite(small)
    if tolerance:
        return large >= _DRIFT_FACTOR * small and large - small > _SHARE_OF_TOLERANCE * tolerance
    return large > _ROUNDING and large >= _DRIFT_FACTOR_ALONE * max(small, 0.1 * _ROUNDING)


def _memory_changes(before: CellResult, after: CellResult) -> Iterator[MemoryChange]:
    old, new = before.placement.get("bytes"), after.placement.get("bytes")
    if old and new and abs(new - old) > _WEIGHTS_SHARE * old:
        yield MemoryChange(_place(after, ""), "weights", old, new, new > old)
    earlier, later = dict(_peaks(before)), dict(_peaks(after))
    for point in earlier:
        if point not in later or earlier[point][1] != later[point][1]:  # read from something else: not comparable
            continue
        old, new = earlier[point][0], later[point][0]
        if abs(new - old) > max(_MEMORY_SHARE * old, _MEMORY_BYTES):
            yield MemoryChange(_place(after, ""), point, old, new, new > old)


def _peaks(result: CellResult) -> Iterator[tuple[str, tuple[int, str]]]:
    for check in result.checks:
        for one in check.measures.get("measurements", ()):
            if one.get("memory_bytes") is not None:
                length = f"-s{one['length']}" if one.get("length") else ""
                yield f"peak b{one['batch']}{length}", (one["memory_bytes"], one.get("memory_source", ""))
