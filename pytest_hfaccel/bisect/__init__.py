"""Since when a cell fails: which release of a package, or which commit, changed how one of its checks ends.

| module | what it does |
|---|---|
| `releases.py` | lists the releases of a package on the user's package index |
| `environments.py` | installs a release, and what it needs, in front of everything else that is installed |
| `probes.py` | runs one check of a cell in such an environment, and keeps the outcome |
| `commits.py` | the same for the commits of a repository, with `git bisect` |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_hfaccel.bisect.probes import ALSO_BAD, Probe, Verdict
from pytest_hfaccel.core.errors import HfAccelError

Run = Callable[[str], Probe]


class NothingToSearch(HfAccelError):
    """The good end is not good, or the bad end is not bad."""


@dataclass(frozen=True)
class Found:
    """What a search has found.

    Attributes:
        probes: Everything that was run, by release or commit in their order.
        suspects: The first that is another than those before it. Several where the ones before the last of them could
            not be tried: it is one of these.
        was_fixed: Whether it goes from bad to good.
        also_bad: The status that counted as bad besides a failed check; empty for none.
    """

    probes: dict[str, Probe]
    suspects: list[str]
    was_fixed: bool
    also_bad: str = ""

    @property
    def first(self) -> str:
        """The first that is known to be another."""
        return self.suspects[-1]

    @property
    def last_before(self) -> str:
        """The last that is known to be as those before it."""
        wanted = Verdict.BAD if self.was_fixed else Verdict.GOOD
        earlier = list(self.probes)[: list(self.probes).index(self.first)]
        return [place for place in earlier if self.probes[place].verdict(self.also_bad) == wanted][-1]

    @property
    def bad(self) -> Probe:
        """The probe beside the change at which the check does not pass."""
        return self.probes[self.last_before if self.was_fixed else self.first]

    @property
    def good(self) -> Probe:
        """The probe beside the change at which the check passes."""
        return self.probes[self.first if self.was_fixed else self.last_before]

    def also_changed(self) -> dict[str, tuple[str, str]]:
        """Return the versions before and at the change of packages that a release brought with it, by name.

        Empty for what is as installed; the change may be theirs.
        """
        before, after = self.probes[self.last_before].changes, self.probes[self.first].changes
        names = sorted({*before, *after})
        return {
            name: (before.get(name, ""), after.get(name, "")) for name in names if before.get(name) != after.get(name)
        }


def search(places: Sequence[str], run: Run, *, good_first: bool, everywhere: bool = False) -> Found:
    """Find the first of some releases or commits at which the check ends otherwise than before.

    Args:
        places: Releases or commits in their order, at least two.
        run: Runs the check at one of them.
        good_first: Whether the first is said to be good and the last bad, or the other way round.
        everywhere: Whether to run it at all of them.

    Raises:
        NothingToSearch: The good end is not good, or the bad end not bad.
    """
    good, bad = (places[0], places[-1]) if good_first else (places[-1], places[0])
    ends = {bad: run(bad), good: run(good)}
    also_bad = require_ends(ends[good], ends[bad])
    probes = dict(ends)
    verdicts: dict[int, Verdict] = {
        0: ends[places[0]].verdict(also_bad),
        len(places) - 1: ends[places[-1]].verdict(also_bad),
    }

    def verdict(number: int) -> Verdict:
        if number not in verdicts:
            probes[places[number]] = run(places[number])
            verdicts[number] = probes[places[number]].verdict(also_bad)
        return verdicts[number]

    if everywhere:
        for number in range(len(places)):
            verdict(number)
    before, after = bisect(len(places), lambda number: _side(verdict(number), verdicts[0]))
    in_order = {place: probes[place] for place in places if place in probes}
    return Found(in_order, list(places[before + 1 : after + 1]), not good_first, also_bad)


def _side(verdict: Verdict, before: Verdict) -> bool | None:
    return None if verdict == Verdict.SKIP else verdict != before


def bisect(count: int, is_after: Callable[[int], bool | None]) -> tuple[int, int]:
    """Narrow down where a sequence changes.

    Args:
        count: Its length; the first element is known to be before the change, the last one after it.
        is_after: Whether an element is after the change; `None` where that cannot be told.

    Returns:
        The last element known to be before it and the first known to be after it: neighbours, unless nothing can be
        told of all those between them.
    """
    before, after = 0, count - 1
    unknown: set[int] = set()
    while open_ones := [number for number in range(before + 1, after) if number not in unknown]:
        middle = (before + after) / 2
        number = min(open_ones, key=lambda each: abs(each - middle))
        found = is_after(number)
        if found is None:
            unknown.add(number)
        elif found:
            after = number
        else:
            before = number
    return before, after


def require_ends(good: Probe, bad: Probe) -> str:
    """Return the status that counts as bad besides a failed check, by how the bad end ended; empty for none.

    Raises:
        NothingToSearch: The good end is not good, or the bad end not bad.
    """
    also_bad = bad.status if bad.status in ALSO_BAD else ""
    problems = []
    if good.verdict(also_bad) != Verdict.GOOD:
        problems.append(f"{good.at} is not good: {describe(good)}")
    if bad.verdict(also_bad) != Verdict.BAD:
        problems.append(f"{bad.at} is not bad: {describe(bad)}")
    if problems:
        problems += [
            f"{one.at}: {describe(one)}" for one in (good, bad) if not any(one.at in each for each in problems)
        ]
        raise NothingToSearch("\n".join(problems), hint="Name other ends with --good and --bad.")
    return also_bad


def describe(probe: Probe) -> str:
    """Return how a check ended, in one line: its status, its numbers, its reason."""
    numbers = ", ".join(f"{name.replace('rel_l2', 'rel-L2')} {value:.3g}" for name, value in probe.numbers().items())
    reason = " ".join(probe.reason.split())
    return probe.status + (f" ({numbers})" if numbers else "") + (f": {reason}" if reason else "")
