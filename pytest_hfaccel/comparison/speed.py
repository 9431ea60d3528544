"""Whether a model became slower: a rank test over recorded repetitions, and limits that the noise of the pair sets.

The number compared is the fastest run. Whatever else a machine does only adds time, so the fastest run moves least
between two runs of the same code, and a model that became slower has a slower one. Three things must hold for a change:

1. Ranks: the repetitions of one side are slower than those of the other (Mann-Whitney, Holm's correction over all
   measurements compared).
2. Size: the fastest runs differ by more than `Limits.least_change`, after what all measurements of the device have in
   common (their median) is taken out: a machine that is slower today is slower for all models.
3. Noise: they differ by more than the other measurements of the device do (`Limits.spreads` times their median absolute
   deviation), and by more than what the repetitions themselves leave open (`Limits.uncertainties` times how far a
   quarter of the repetitions is from the fastest one), and by more than a lack of CPU explains.

The repetitions of a measurement follow each other within a second: ranks alone would take every load of the machine for
a change. `benchmarks/comparison_rates.py` measures how often nothing is taken for something, and what is missed.

The tests are written out here because scipy, which has them, is no dependency of a run or of `hfaccel compare`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.benchmark.timing import BLOCK_MINIMA, CPU_SHARE, floor_distance
from pytest_hfaccel.comparison.runs import PointKey

SLOWER, FASTER, SAME, UNCLEAR = "slower", "faster", "same", "unclear"
_NORMAL_MAD = 1.4826
"""Times the median absolute deviation: the standard deviation, if the distribution were normal."""
_DISTURBED = 1.0
"""Distance between the quartiles of the calibration loop, as a share of its median, from which on the CPU was busy."""
_STARVED = math.log(1.5)
"""Lack of CPU time, as a log, from which on threads are taken to have waited for each other."""
_EXACT = 12
"""Up to so many values on each side the ranks' distribution is counted; above, the normal one is close."""


@dataclass(frozen=True)
class Limits:
    """What a change must exceed.

    Attributes:
        least_change: Share of the time below which nothing is a change.
        family_error: Probability that the rank tests of a whole comparison find something where nothing is.
        spreads: Times the robust standard deviation of the device's other measurements.
        uncertainties: Times the uncertainty of the two fastest runs.
        alone: `least_change` where a device has fewer than `enough` measurements to tell its noise from.
        enough: See `alone`.
    """

    least_change: float = 0.05
    family_error: float = 0.05
    spreads: float = 3.0
    uncertainties: float = 2.5
    alone: float = 0.07
    enough: int = 4


@dataclass(frozen=True)
class Timing:
    """A measurement of both sides.

    Attributes:
        model: The model.
        device: The device.
        dtype: The precision.
        weights: The kind of weights.
        batch: Samples.
        length: Tokens per sample.
        mode: `inference` or `training`.
        baseline_ms: The fastest run of the baseline; of history the median over its runs.
        run_ms: That of the run.
        change: How much slower the run is, as a share of the time: 0.1 for 10 %; negative where it is faster.
        own_change: The same without what all measurements of the device have in common.
        limit: What `own_change` must exceed to be a change, whichever its sign.
        p: Of the rank test.
        p_adjusted: The same, corrected for the number of measurements.
        verdict: `slower`, `faster`, `same`, or `unclear`: larger than the least change, but within the noise.
        comparable: Whether chip, threads and implementation are the same on both sides.
        note: What else there is to say, such as why it is not comparable.
    """

    model: str
    device: str
    dtype: str
    weights: str
    batch: int
    length: int
    mode: str
    baseline_ms: float
    run_ms: float
    change: float
    own_change: float = 0.0
    limit: float = 0.0
    p: float = 1.0
    p_adjusted: float = 1.0
    verdict: str = SAME
    comparable: bool = True
    note: str = ""

    @property
    def is_worse(self) -> bool:
        """Whether it counts as a regression."""
        return self.verdict == SLOWER and self.comparable

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""
        return asdict(self)


@dataclass(frozen=True)
class DeviceNoise:
    """What the measurements of a device have in common, and how far they are apart.

    Attributes:
        device: The device.
        measurements: How many were compared.
        shift: The median change, as a share: a machine, or a version, that is slower for all models.
        spread: Robust standard deviation of the changes around it; `None` where there are too few to tell.
        least_visible: The smallest change that half of its measurements could show.
        verdict: `slower` or `faster` where all of the device changed: by more than the least change, and nearly all
            measurements in the same direction (sign test); else `same`.
    """

    device: str
    measurements: int
    shift: float
    spread: float | None
    least_visible: float
    verdict: str = SAME

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""
        return asdict(self)


def repetitions_of(measured: Measurement) -> list[float]:
    """Return the recorded repetitions, in milliseconds; without them (older versions) what its quantiles say."""
    recorded = measured.details.get(BLOCK_MINIMA)
    if isinstance(recorded, list) and recorded:
        return [float(value) for value in recorded]
    latency = measured.latency
    known = (latency.min_ms, latency.p5_ms, latency.median_ms, latency.p95_ms, latency.p99_ms)
    return sorted(known[: max(1, min(latency.runs, len(known)))])


def compare_timings(
    baseline: Mapping[PointKey, Sequence[Measurement]],
    run: Mapping[PointKey, Sequence[Measurement]],
    limits: Limits = Limits(),
) -> tuple[list[Timing], list[DeviceNoise]]:
    """Compare what both sides have measured.

    Args:
        baseline: Measurements by what must be equal; of history those of several runs, the oldest first.
        run: Those of the run. Of several of the same key the last one counts.
        limits: What a change must exceed.

    Returns:
        One entry per measurement that both have, and what each device's noise is.
    """
    sides = {key: _Sides(baseline[key], run[key][-1]) for key in run if key in baseline}
    adjusted = _holm({key: pair.p for key, pair in sides.items()})
    by_device: dict[str, list[PointKey]] = {}
    for key in sides:
        by_device.setdefault(key[1], []).append(key)
    timings, noises = [], []
    for device, keys in by_device.items():
        logs = {key: sides[key].log_ratio for key in keys}
        known = len(keys) >= limits.enough
        shift = statistics.median(logs.values()) if known else 0.0
        spread = _NORMAL_MAD * statistics.median(abs(log - shift) for log in logs.values()) if known else None
        found = [_judge(sides[key], key, logs[key] - shift, spread, adjusted[key], limits) for key in keys]
        verdict = _of_all(list(logs.values()), shift, limits) if known else SAME
        visible = statistics.median(timing.limit for timing in found)
        noises.append(DeviceNoise(device, len(keys), math.expm1(shift), spread, visible, verdict))
        timings += found
    return timings, noises


class _Sides:
    """The repetitions of both sides of one measurement."""

    def __init__(self, earlier: Sequence[Measurement], measured: Measurement) -> None:
        self._latest, self._measured = earlier[-1], measured
        self._run = sorted(repetitions_of(measured))
        runs = [sorted(repetitions_of(one)) for one in earlier if _difference(one, measured) == ""]
        self._note = "" if runs else _difference(earlier[-1], measured)
        runs = runs or [sorted(repetitions_of(earlier[-1]))]
        fastest = [values[0] for values in runs]
        self._baseline_ms = statistics.median(fastest)
        self.log_ratio = math.log(self._run[0] / self._baseline_ms)
        # Of several runs: the one in the middle of what they say.
        self.p = statistics.median(rank_test(values, self._run) for values in runs)
        between = 0.0
        if len(runs) > 2:
            logs = [math.log(value) for value in fastest]
            between = _NORMAL_MAD * statistics.median(abs(log - math.log(self._baseline_ms)) for log in logs)
        within = math.hypot(
            *(
                math.log1p(distance)
                for distance in (statistics.median(map(floor_distance, runs)), floor_distance(self._run))
            )
        )
        self.noise = max(between, within)
        comparable = [one for one in earlier if _difference(one, measured) == ""] or list(earlier)
        self._starved = _starved(comparable[-1], measured), _starved(measured, comparable[-1])

    def noise_towards(self, own: float, uncertainties: float) -> float:
        """What a change in this direction must exceed because of the repetitions, as a log."""
        return max(uncertainties * self.noise, self._starved[own > 0])

    def timing(self, key: PointKey) -> Timing:
        change = math.expm1(self.log_ratio)
        return Timing(
            *key, self._baseline_ms, self._run[0], change, p=self.p, comparable=not self._note, note=self._note
        )


def _starved(slow: Measurement, fast: Measurement) -> float:
    """How much slower one may be only because its process had less of the CPU than the other one's, as a log.

    Runs that last longer than the scheduler's time slice are interrupted all of them: the fastest one, too. Zero unless
    the fixed piece of work that is timed beside a measurement was disturbed as well. Threads that share too few cores
    also wait for each other, at every operator: then no bound can be stated, and the result is infinite.
    """
    if slow.noise.iqr_share <= _DISTURBED:
        return 0.0
    shares = [one.details.get(CPU_SHARE) for one in (slow, fast)]
    if not all(isinstance(share, int | float) and share > 0.0 for share in shares):
        return 0.0
    # Among runs that were not disturbed is one that had a whole core.
    undisturbed = shares[1] if fast.noise.iqr_share > _DISTURBED else max(shares[1], 1.0)  # type: ignore[type-var]
    lack = max(0.0, math.log(undisturbed / shares[0]))  # type: ignore[operator]
    return math.inf if slow.threads > 1 and lack > _STARVED else lack


def _difference(one: Measurement, other: Measurement) -> str:
    for name, what in (("device_name", "another chip"), ("threads", "threads"), ("implementation", "implementation")):
        before, after = getattr(one, name), getattr(other, name)
        if before != after:
            return f"{what}: {before} -> {after}"
    return ""


def _judge(sides: _Sides, key: PointKey, own: float, spread: float | None, adjusted: float, limits: Limits) -> Timing:
    least = math.log1p(limits.least_change if spread is not None else limits.alone)
    limit = max(least, sides.noise_towards(own, limits.uncertainties), limits.spreads * (spread or 0.0))
    verdict = SAME
    if abs(own) > limit and adjusted <= limits.family_error:
        verdict = SLOWER if own > 0 else FASTER
    elif abs(own) > least:
        verdict = UNCLEAR
    limit = limit if math.isfinite(limit) else max(least, abs(own))  # all of the change may be a lack of CPU
    share = abs(math.expm1(math.copysign(limit, own)))  # twice as slow is +100 %, twice as fast is -50 %
    return replace(sides.timing(key), own_change=math.expm1(own), limit=share, p_adjusted=adjusted, verdict=verdict)


def _of_all(logs: Sequence[float], shift: float, limits: Limits) -> str:
    """Whether all of a device became slower or faster: a sign test over its measurements."""
    if abs(shift) <= math.log1p(limits.least_change):
        return SAME
    same = sum((log > 0) == (shift > 0) for log in logs)
    tail = sum(math.comb(len(logs), k) for k in range(same, len(logs) + 1)) / 2 ** len(logs)
    return (SLOWER if shift > 0 else FASTER) if 2 * tail <= limits.family_error else SAME


def rank_test(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the two-sided p of the Mann-Whitney test: both are drawn from the same distribution, whatever that is."""
    n, m = len(one), len(other)
    above = sum((a < b) + 0.5 * (a == b) for a in one for b in other)
    far = max(above, n * m - above)
    if n <= _EXACT and m <= _EXACT:
        counts = _rank_counts(n, m)
        return min(1.0, 2.0 * sum(counts[math.ceil(far) :]) / sum(counts))
    deviation = math.sqrt(n * m * (n + m + 1) / 12.0)
    return min(1.0, math.erfc(max(0.0, far - n * m / 2.0 - 0.5) / deviation / math.sqrt(2.0)))


@lru_cache(maxsize=256)
def _rank_counts(n: int, m: int) -> tuple[int, ...]:
    """In how many ways n and m values can be ordered so that U is 0, 1, ..., n * m."""
    if n == 0 or m == 0:
        return (1,)
    counts = [0] * (n * m + 1)
    for u, ways in enumerate(_rank_counts(n - 1, m)):  # the largest value is one of n: it is above all m others
        counts[u + m] += ways
    for u, ways in enumerate(_rank_counts(n, m - 1)):
        counts[u] += ways
    return tuple(counts)


def _holm(values: Mapping[PointKey, float]) -> dict[PointKey, float]:
    """Correct for the number of tests (S. Holm, Scandinavian Journal of Statistics 6, 1979)."""
    adjusted, worst = {}, 0.0
    for number, key in enumerate(sorted(values, key=values.__getitem__)):
        worst = max(worst, min(1.0, (len(values) - number) * values[key]))
        adjusted[key] = worst
    return adjusted
