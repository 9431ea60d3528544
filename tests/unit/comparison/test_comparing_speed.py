"""When a change of speed counts: the rank test, what a device has in common, and the limits that noise sets."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from scipy.stats import mannwhitneyu

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.comparison.runs import PointKey, point_key
from pytest_hfaccel.comparison.speed import Limits, Timing, compare_timings, rank_test
from tests.unit.history.store_samples import LATENCY, MEASURED

Points = dict[PointKey, list[Measurement]]
MODELS = [f"model-{number}" for number in range(8)]


def make_dice(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - it is noise


def measured(model: str, repetitions: list[float], **changes: object) -> Measurement:
    latency = replace(LATENCY, runs=len(repetitions), min_ms=min(repetitions))
    one = replace(MEASURED, model=model, latency=latency, details={"block_minima_ms": repetitions})
    return replace(one, **changes)  # type: ignore[arg-type]


def draw(dice: random.Random, milliseconds: float, noise: float, count: int = 32) -> list[float]:
    """Repetitions of a model: what disturbs them only adds time."""
    return [milliseconds * (1.0 + dice.expovariate(1.0 / noise)) for _ in range(count)]


def one_run(dice: random.Random, factor: Callable[[str], float] = lambda _: 1.0, noise: float = 0.02) -> Points:
    found: Points = {}
    for number, model in enumerate(MODELS):
        # Between runs, the same code is a little slower or faster, too.
        own = factor(model) * dice.gauss(1.0, 0.008)
        one = measured(model, draw(dice, (1.0 + number) * own, noise))
        found.setdefault(point_key(one), []).append(one)
    return found


def verdicts(timings: list[Timing]) -> dict[str, str]:
    return {one.model: one.verdict for one in timings if one.verdict != "same"}


@pytest.mark.parametrize(("n", "m"), [(3, 4), (7, 7), (12, 5), (32, 32), (20, 9)])
def test_the_rank_test_is_that_of_scipy(n: int, m: int) -> None:
    dice = make_dice(n * m)
    for shift in (0.0, 0.5, 1.5):
        one, other = [dice.gauss(0, 1) for _ in range(n)], [dice.gauss(shift, 1) for _ in range(m)]
        method = "exact" if max(n, m) <= 12 else "asymptotic"
        expected = mannwhitneyu(one, other, alternative="two-sided", method=method).pvalue
        assert rank_test(one, other) == pytest.approx(expected, rel=1e-9)


def test_the_rank_test_keeps_its_rate_whatever_the_distribution() -> None:
    dice = make_dice(0)
    heavy_tailed: list[Callable[[], float]] = [lambda: dice.paretovariate(1.0), lambda: dice.expovariate(1.0)]
    for draw_one in heavy_tailed:
        found = [rank_test([draw_one() for _ in range(9)], [draw_one() for _ in range(9)]) <= 0.05 for _ in range(1000)]
        assert sum(found) <= 65  # 50 are expected at most; 65 is two standard deviations more


def test_nothing_is_called_slower_where_nothing_changed() -> None:
    dice = make_dice(1)
    pairs = [compare_timings(one_run(dice), one_run(dice)) for _ in range(100)]
    flagged = sum(any(one.is_worse for one in timings) for timings, _ in pairs)
    assert flagged / len(pairs) <= Limits().family_error


def test_a_slowdown_of_ten_percent_is_found_and_nothing_else() -> None:
    dice = make_dice(2)
    for number in range(16):
        model = MODELS[number % 8]
        slowed = one_run(dice, lambda name, model=model: 1.1 if name == model else 1.0)  # type: ignore[misc]
        timings, noises = compare_timings(one_run(dice), slowed)
        assert verdicts(timings) == {model: "slower"}
        assert [one.verdict for one in noises] == ["same"]


def test_a_machine_that_is_slower_today_is_one_finding_not_eight() -> None:
    dice = make_dice(3)
    timings, (noise,) = compare_timings(one_run(dice), one_run(dice, lambda _: 1.3))
    assert (verdicts(timings), noise.verdict) == ({}, "slower")
    assert noise.shift == pytest.approx(0.3, abs=0.03)
    timings, (noise,) = compare_timings(one_run(dice), one_run(dice, lambda name: 1.3 if name != MODELS[4] else 1.5))
    assert verdicts(timings) == {MODELS[4]: "slower"}


def test_a_model_that_became_faster_is_no_regression() -> None:
    dice = make_dice(4)
    timings, _ = compare_timings(one_run(dice), one_run(dice, lambda name: 0.8 if name == MODELS[0] else 1.0))
    assert verdicts(timings) == {MODELS[0]: "faster"}
    assert not any(one.is_worse for one in timings)


def test_what_lies_within_the_noise_of_the_repetitions_is_unclear() -> None:
    dice = make_dice(5)
    loud = one_run(dice, noise=1.0)
    timings, (noise,) = compare_timings(loud, one_run(dice, lambda name: 1.2 if name == MODELS[0] else 1.0, noise=1.0))
    assert verdicts(timings).get(MODELS[0]) == "unclear"
    assert noise.least_visible > 0.2


def test_a_run_that_got_little_of_the_cpu_is_not_a_slower_model() -> None:
    def run(milliseconds: float, share: float, disturbed: float) -> Measurement:
        one = measured("MiniLM", draw(make_dice(9), milliseconds, 0.02), threads=1)
        details = {**one.details, "cpu_seconds_per_second": share}
        return replace(one, details=details, noise=replace(one.noise, iqr_share=disturbed))

    def verdict(before: Measurement, after: Measurement) -> str:
        return compare_timings({point_key(before): [before]}, {point_key(after): [after]})[0][0].verdict

    free, starved = run(9.8, 0.94, 0.1), run(44.3, 0.21, 7.2)  # as was measured
    assert (verdict(free, starved), verdict(starved, free)) == ("unclear", "unclear")
    assert verdict(free, run(60.0, 0.21, 7.2)) == "slower"  # more than the lack of CPU explains
    assert verdict(free, run(44.3, 0.21, 0.1)) == "slower"  # it waits by itself: nothing else was disturbed
    assert verdict(starved, run(55.0, 0.21, 7.2)) == "slower"  # both had as little


def test_threads_that_wait_for_each_other_on_a_busy_machine_are_not_a_slower_model() -> None:
    def verdict(share: float, disturbed: float, threads: int = 2) -> str:
        def run(milliseconds: float, share: float, disturbed: float) -> Measurement:
            one = measured("deit", draw(make_dice(10), milliseconds, 0.02), threads=threads)
            details = {**one.details, "cpu_seconds_per_second": share}
            return replace(one, details=details, noise=replace(one.noise, iqr_share=disturbed))

        before, after = run(0.695, 0.84, 1.5), run(755.8, share, disturbed)  # as was measured at a load of 9
        return compare_timings({point_key(before): [before]}, {point_key(after): [after]})[0][0].verdict

    assert verdict(0.21, 10.8) == "unclear"
    assert verdict(0.84, 10.8) == "slower"  # it had as much of the CPU as before
    assert verdict(0.21, 0.2) == "slower"  # nothing else was disturbed
    assert verdict(0.21, 10.8, threads=1) == "slower"  # one thread waits for nobody: the lack has a bound


def test_a_device_with_few_measurements_cannot_tell_its_noise() -> None:
    dice = make_dice(6)
    one = {key: of for key, of in one_run(dice).items() if key[0] in MODELS[:2]}
    other = {key: of for key, of in one_run(dice, lambda _: 1.1).items() if key[0] in MODELS[:2]}
    timings, (noise,) = compare_timings(one, other)
    assert verdicts(timings) == {MODELS[0]: "slower", MODELS[1]: "slower"}
    assert (noise.spread, noise.shift) == (None, 0.0)
    assert all(one.limit >= 0.07 for one in timings)


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"threads": 8}, "threads: 2 -> 8"),
        ({"device_name": "Intel Xeon"}, "another chip: AMD EPYC -> Intel Xeon"),
        ({"implementation": "emulated"}, "implementation: real -> emulated"),
    ],
)
def test_another_chip_is_compared_but_is_no_regression(changes: dict[str, object], note: str) -> None:
    dice = make_dice(7)
    before = measured("gpt2", draw(dice, 1.0, 0.01))
    after = measured("gpt2", draw(dice, 2.0, 0.01), **changes)
    ((timing,), _) = compare_timings({point_key(before): [before]}, {point_key(after): [after]})
    assert (timing.verdict, timing.comparable, timing.is_worse, timing.note) == ("slower", False, False, note)


def test_without_repetitions_the_quantiles_are_compared() -> None:
    old = replace(MEASURED, details={})
    slow = replace(LATENCY, min_ms=7.9, p5_ms=8.0, median_ms=8.1, p95_ms=9.0, p99_ms=9.5)
    ((timing,), _) = compare_timings({point_key(old): [old]}, {point_key(old): [replace(old, latency=slow)]})
    assert (timing.baseline_ms, timing.run_ms, timing.verdict) == (3.9, 7.9, "slower")


def test_history_counts_as_its_middle_and_sets_the_limit_by_its_own_spread() -> None:
    dice = make_dice(8)

    def run(milliseconds: float) -> Measurement:
        return measured("gpt2", draw(dice, milliseconds, 0.005))

    steady = [run(1.0) for _ in range(9)]
    restless = [run(0.8 + 0.05 * number) for number in range(9)]
    key = point_key(steady[0])
    assert compare_timings({key: steady}, {key: [run(1.15)]})[0][0].verdict == "slower"
    assert compare_timings({key: restless}, {key: [run(1.15)]})[0][0].verdict == "unclear"
