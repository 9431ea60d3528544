"""A comparison for people: lines for the terminal, Markdown for the comment on a pull request."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from pytest_hfaccel.comparison.differences import (
    COUNTED,
    NEWLY_FAILING,
    NO_LONGER_TESTED,
    Comparison,
    Drift,
    MemoryChange,
    Verdict,
    VerdictChange,
)
from pytest_hfaccel.comparison.runs import ComparedRun
from pytest_hfaccel.comparison.speed import FASTER, SAME, SLOWER, UNCLEAR, DeviceNoise, Timing
from pytest_hfaccel.core.errors import first_line, format_bytes, shorten

_SHOWN = 20
"""Entries of a section that are shown; the JSON has all."""
_REASON = 120
_ORDER = (NEWLY_FAILING, "other failure", NO_LONGER_TESTED, "newly passing", "other verdict", "newly tested")

Section = tuple[str, list[str]]


def text_of(comparison: Comparison, counted: Collection[str] = COUNTED) -> str:
    """Return the comparison as lines of text."""
    lines = [f"{_side(comparison.baseline)}  ->  {_side(comparison.run)}"]
    for heading, entries in _sections(comparison):
        lines += ["", heading, *(f"  {entry}" for entry in _shortened(entries))]
    return "\n".join([*lines, "", headline_of(comparison, counted)])


def markdown_of(comparison: Comparison, counted: Collection[str] = COUNTED) -> str:
    """Return the comparison as Markdown; what is not for the worse is folded."""
    worse = [
        ("Newly failing", _verdicts(comparison, {NEWLY_FAILING})),
        ("No longer tested", _verdicts(comparison, {NO_LONGER_TESTED})),
        ("Numeric drift", [_drift(one) for one in comparison.drift if one.is_worse]),
        ("Slower", [*_devices(comparison, {SLOWER}), *_timings(comparison, {SLOWER})]),
        ("More memory", [_memory(one) for one in comparison.memory if one.is_worse]),
    ]
    lines = [f"### {headline_of(comparison, counted)}", ""]
    lines += [f"`{_side(comparison.baseline)}` → `{_side(comparison.run)}`", ""]
    for heading, entries in worse:
        if entries:
            lines += [f"**{heading} ({len(entries)})**", "", *_items(entries), ""]
    listed = {entry for _, entries in worse for entry in entries}
    for heading, entries in _sections(comparison):
        others = [entry for entry in entries if entry not in listed]
        if others:
            lines += [f"<details><summary>{heading}</summary>", "", *_items(others), "", "</details>", ""]
    return "\n".join(lines)


def headline_of(comparison: Comparison, counted: Collection[str] = COUNTED) -> str:
    """Return the result in one line: what is worse, and whether that counts."""
    worse = comparison.worse()
    told = ", ".join(f"{number} {_NAMES[kind][number > 1]}" for kind, number in worse.items())
    if not worse:
        compared = sum(key in comparison.baseline.results for key in comparison.run.results)
        return f"Nothing is worse: {compared} cells and {len(comparison.timings)} measurements compared"
    if not counted:
        return f"Worse: {told}"
    return f"{'Worse' if comparison.worse(counted) else 'Nothing that counts is worse'}: {told}"


_NAMES = {
    "verdicts": ("check newly failing", "checks newly failing"),
    "missing": ("check or cell no longer tested", "checks or cells no longer tested"),
    "drift": ("number drifted", "numbers drifted"),
    "speed": ("measurement slower", "measurements slower"),
    "memory": ("size grown", "sizes grown"),
}


def _sections(comparison: Comparison) -> Iterator[Section]:
    for change in _ORDER:
        entries = _verdicts(comparison, {change})
        if entries:
            yield f"{change} ({len(entries)})", entries
    worse = [_drift(one) for one in comparison.drift if one.is_worse]
    better = [_drift(one) for one in comparison.drift if not one.is_worse]
    for heading, entries in (
        ("numeric drift", worse),
        ("closer to the reference", better),
        ("slower", [*_devices(comparison, {SLOWER}), *_timings(comparison, {SLOWER})]),
        ("faster", [*_devices(comparison, {FASTER}), *_timings(comparison, {FASTER})]),
        ("speed changed, but within the noise of these runs", _timings(comparison, {UNCLEAR})),
        ("more memory", [_memory(one) for one in comparison.memory if one.is_worse]),
        ("less memory", [_memory(one) for one in comparison.memory if not one.is_worse]),
    ):
        if entries:
            yield f"{heading} ({len(entries)})", entries
    if comparison.noise:
        yield "speed by device", [_noise(one) for one in comparison.noise]
    if comparison.surroundings:
        yield "not the same in both", comparison.surroundings


def _verdicts(comparison: Comparison, changes: Collection[str]) -> list[str]:
    return [_verdict_change(one) for one in comparison.verdicts if one.change in changes]


def _verdict_change(one: VerdictChange) -> str:
    name = " ".join(filter(None, [one.place.cell, one.place.check]))
    reason = shorten(first_line(one.run.reason), _REASON) if one.run else ""
    change = f"{name} ({one.place.module}): {_ended(one.baseline)} -> {_ended(one.run)}"
    return f"{change}: {reason}" if reason else change


def _ended(verdict: Verdict | None) -> str:
    if verdict is None:
        return "not run"
    where = ", ".join(filter(None, [verdict.stage, verdict.cause]))
    return f"{verdict.status} ({where})" if where else verdict.status


def _drift(one: Drift) -> str:
    allowed = f", allowed {one.tolerance:.2g}" if one.tolerance else ""
    leaf = "" if one.leaf == "rel_l2" else f" {one.leaf}"
    return f"{one.place.cell} {one.place.check}{leaf}: rel-L2 {one.baseline:.2g} -> {one.run:.2g}{allowed}"


def _timings(comparison: Comparison, verdicts: Collection[str]) -> list[str]:
    found = [one for one in comparison.timings if one.verdict in verdicts]
    return [_timing(one) for one in sorted(found, key=lambda one: -abs(one.own_change))]


def _timing(one: Timing) -> str:
    point = f"b{one.batch}" + (f"-s{one.length}" if one.length else "")
    what = f"{one.model} [{one.weights}] {one.device} {one.dtype} {point}"
    change = f"{what}: {one.baseline_ms:.4g} -> {one.run_ms:.4g} ms, {one.change:+.1%}"
    if abs(one.own_change - one.change) >= 0.005:
        change += f" ({one.own_change:+.1%} beside the others)"
    limit = f"limit {one.limit:.1%}, p {one.p_adjusted:.2g}"
    return f"{change}; {limit}" + (f"; not comparable: {one.note}" if one.note else "")


def _devices(comparison: Comparison, verdicts: Collection[str]) -> list[str]:
    return [f"all of {one.device}: {one.shift:+.1%}" for one in comparison.noise if one.verdict in verdicts]


def _noise(one: DeviceNoise) -> str:
    spread = f"spread {one.spread:.1%}" if one.spread is not None else "too few measurements to tell the noise"
    shift = f"median change {one.shift:+.1%}, " if one.spread is not None else ""
    note = "" if one.verdict == SAME else f" ({one.verdict} as a whole)"
    return (
        f"{one.device}: {one.measurements} measurements, {shift}{spread}; changes from {one.least_visible:.1%} on can "
        f"be seen{note}"
    )


def _memory(one: MemoryChange) -> str:
    share = one.run / one.baseline - 1.0 if one.baseline else 0.0
    return (
        f"{one.place.cell} {one.what}: {format_bytes(one.baseline)} -> {format_bytes(one.run)}"
        f"{f', {share:+.1%}' if one.baseline else ''}"
    )


def _side(side: ComparedRun) -> str:
    if side.is_history:
        return f"{side.source} ({side.runs} runs)"
    commit = str(side.header.get("commit") or "")[:8]
    return f"{side.id}{f' ({commit})' if commit else ''}"


def _shortened(entries: Sequence[str]) -> list[str]:
    more = len(entries) - _SHOWN
    return [*entries[:_SHOWN], *([f"... and {more} more (--json has all)"] if more > 0 else [])]


def _items(entries: Sequence[str]) -> list[str]:
    # In a comment, a reason must not become a mention, an image or a tag.
    return [f"- `{entry.replace('`', chr(39))}`" for entry in _shortened(entries)]
