"""When a timing ends, with a clock of the test's own: nothing here depends on how fast this machine is."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from itertools import chain, repeat

import pytest

from pytest_hfaccel.benchmark.timing import (
    TimingBudget,
    block_minima,
    enclosing_rank,
    floor_distance,
    latency_of,
    median_interval,
    relative_error,
    time_runs,
    timed_runs,
    undisturbed,
    warm_up_runs,
)


class Work:
    """Takes the given seconds, one run after the other, on a clock of its own."""

    def __init__(self, seconds: Iterator[float]) -> None:
        self.now = 0.0
        self.runs = 0
        self._seconds = seconds

    def __call__(self) -> None:
        self.now += next(self._seconds)
        self.runs += 1

    def clock(self) -> float:
        return self.now


def steady(seconds: float) -> Work:
    return Work(repeat(seconds))


@pytest.mark.parametrize(("count", "rank"), [(5, 0), (6, 1), (8, 1), (9, 2), (20, 6), (50, 18), (100, 40)])
def test_ranks_are_those_of_the_tables(count: int, rank: int) -> None:
    """Conover's table of the sign test, and the usual examples: 95 % for n = 100 lies between ranks 40 and 61."""
    assert enclosing_rank(count) == rank


def test_the_interval_of_a_median_is_made_of_order_statistics() -> None:
    assert median_interval([float(number) for number in range(1, 101)]) == (40.0, 61.0)
    assert median_interval([3.0, 1.0, 2.0]) == (1.0, 3.0), "too few for a rank: the extremes"
    assert relative_error([10.0] * 9) == 0.0
    assert relative_error([9.0, 10.0, 10.0, 10.0, 10.0, 11.0]) == pytest.approx(0.1)
    assert relative_error([0.0, 0.0]) == 0.0


def test_warm_up_goes_on_until_two_windows_agree() -> None:
    falling = Work(chain([0.9, 0.5, 0.5, 0.1, 0.1, 0.1], repeat(0.1)))
    assert warm_up_runs(falling, TimingBudget(warm_up_seconds=60.0), falling.clock) == 9
    assert falling.runs == 9


def test_a_window_of_the_warm_up_takes_long_enough_for_the_clock_to_rise() -> None:
    quick = steady(0.001)
    assert warm_up_runs(quick, TimingBudget(), quick.clock) == 2 * 20


def test_a_warm_up_that_never_settles_ends_after_its_time() -> None:
    growing = Work(0.5 * 1.5**number for number in range(1000))
    assert warm_up_runs(growing, TimingBudget(warm_up_seconds=3.0), growing.clock) == 4


def test_the_user_fixes_both_numbers() -> None:
    work = steady(9.0)
    latency = time_runs(work, TimingBudget(warm_up=5, runs=20), work.clock)
    assert (latency.warm_up, latency.runs, work.runs) == (5, 20, 25)


def test_runs_end_when_the_median_is_known() -> None:
    work = steady(0.1)
    assert len(timed_runs(work, TimingBudget(), work.clock)) == 7


def test_noise_asks_for_more_runs() -> None:
    noisy = Work(chain.from_iterable(repeat((0.010, 0.013, 0.010, 0.010, 0.012, 0.010, 0.011))))
    budget = TimingBudget(relative_error=0.02, max_seconds=1e9)
    times = timed_runs(noisy, budget, noisy.clock)
    assert 7 < len(times) < budget.max_runs
    assert relative_error(times) <= 0.02


def test_noise_that_does_not_end_meets_a_limit() -> None:
    def work() -> Work:
        return Work(chain.from_iterable(repeat((0.01, 0.02))))

    slow, quick = work(), work()
    assert len(timed_runs(slow, TimingBudget(relative_error=0.001, max_seconds=0.3), slow.clock)) == 20
    assert len(timed_runs(quick, TimingBudget(relative_error=0.001, max_seconds=1e9, max_runs=50), quick.clock)) == 50


def test_runs_that_are_too_slow_are_made_three_times() -> None:
    work = steady(100.0)
    assert len(timed_runs(work, TimingBudget(max_seconds=1.0), work.clock)) == 3


def test_the_user_fixes_the_least_number_of_runs() -> None:
    work = steady(0.001)
    assert len(timed_runs(work, TimingBudget(least_runs=40, least_seconds=0.0), work.clock)) == 40


def test_quick_runs_are_repeated_for_half_a_second_at_least() -> None:
    work, few = steady(0.01), steady(0.01)
    assert 0.5 <= sum(timed_runs(work, TimingBudget(), work.clock)) < 0.6
    assert len(timed_runs(few, TimingBudget(max_runs=20), few.clock)) == 20


def test_runs_go_on_until_the_fastest_one_is_known() -> None:
    """A machine whose disturbances leave one run in forty alone for a second, and then all of them."""
    disturbed = chain.from_iterable(repeat((0.010, *[0.0130] * 39), 2))
    work = Work(chain(disturbed, repeat(0.010)))
    times = timed_runs(work, TimingBudget(relative_error=1.0), work.clock)
    assert 1.03 < sum(times) < 1.5
    assert floor_distance(block_minima(times)) <= 0.02


def test_a_floor_that_is_never_known_meets_a_limit() -> None:
    def work() -> Work:
        return Work(chain.from_iterable(repeat((0.010, *[0.0130] * 399))))

    first, second = work(), work()
    assert 2.0 <= sum(timed_runs(first, TimingBudget(), first.clock)) < 2.3
    assert sum(timed_runs(second, TimingBudget(floor_seconds=0.0), second.clock)) < 0.6


def test_how_well_the_fastest_run_is_known() -> None:
    assert floor_distance([5.0, 1.0, 2.0, 3.0, 4.0]) == 1.0, "the second of five"
    assert floor_distance([1.0]) == 0.0


def test_repetitions_are_kept_as_the_fastest_of_successive_blocks() -> None:
    seconds = [0.001 * (2 + at // 4 + (at % 4)) for at in range(128)]
    assert block_minima(seconds) == [2.0 + block for block in range(32)]
    assert block_minima([0.00123456789, 0.5]) == [1.2346, 500.0]


def test_the_latency_is_in_milliseconds_and_ordered() -> None:
    found = latency_of([0.001 * number for number in range(1, 102)], warm_up=4)
    assert (found.runs, found.warm_up) == (101, 4)
    assert found.min_ms == pytest.approx(1.0)
    assert found.p5_ms == pytest.approx(6.0)
    assert found.median_ms == pytest.approx(51.0)
    assert found.mean_ms == pytest.approx(51.0)
    assert found.iqr_ms == pytest.approx(50.0)
    assert found.p95_ms == pytest.approx(96.0)
    assert found.p99_ms == pytest.approx(100.0)
    assert found.relative_error == pytest.approx((61.0 - 41.0) / 2 / 51.0)


def test_one_run_has_a_latency() -> None:
    found = latency_of([0.25], warm_up=0)
    assert (found.median_ms, found.p99_ms, found.iqr_ms) == (250.0, 250.0, 0.0)


def test_nothing_of_python_disturbs_what_is_timed() -> None:
    def tracer(*_: object) -> Callable[..., None]:
        return lambda *_: None

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        with undisturbed():
            inside = (gc.isenabled(), sys.gettrace())
        outside = (gc.isenabled(), sys.gettrace())
    finally:
        sys.settrace(before)
    assert inside == (False, None)
    assert outside == (True, tracer)
