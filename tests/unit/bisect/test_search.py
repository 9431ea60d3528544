"""Which release or commit a search names, and what it counts as good and bad."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_hfaccel.bisect import NothingToSearch, bisect, search
from pytest_hfaccel.bisect.commits import exit_code
from pytest_hfaccel.bisect.probes import Probe, Verdict

RELEASES = [f"1.{number}" for number in range(9)]


def _statuses(*listed: str) -> tuple[Callable[[str], Probe], list[str]]:
    """Return what runs the check at a release, and a list of where it was run."""
    tried: list[str] = []

    def run(at: str) -> Probe:
        tried.append(at)
        return Probe(at, listed[RELEASES.index(at)], measures={"rel_l2": 0.5})

    return run, tried


@pytest.mark.parametrize("first_bad", range(1, 9))
def test_the_first_bad_release_is_found_in_few_runs(first_bad: int) -> None:
    run, tried = _statuses(*["passed"] * first_bad, *["failed"] * (9 - first_bad))
    found = search(RELEASES, run, good_first=True)
    assert (found.suspects, found.was_fixed) == ([RELEASES[first_bad]], False)
    assert (found.good.at, found.bad.at) == (RELEASES[first_bad - 1], RELEASES[first_bad])
    assert len(tried) == len(set(tried)) <= 5


@pytest.mark.parametrize("first_good", range(1, 9))
def test_where_the_older_end_is_bad_the_repair_is_found(first_good: int) -> None:
    run, _ = _statuses(*["xfailed"] * first_good, *["passed"] * (9 - first_good))
    found = search(RELEASES, run, good_first=False)
    assert (found.suspects, found.was_fixed) == ([RELEASES[first_good]], True)
    assert (found.good.at, found.bad.at) == (RELEASES[first_good], RELEASES[first_good - 1])


def test_what_could_not_be_tried_before_the_change_is_suspected_too() -> None:
    skipped = ["unavailable", "no environment", "not run"]
    run, _ = _statuses("passed", "passed", *skipped, "failed", "error", "failed", "failed")
    found = search(RELEASES, run, good_first=True)
    assert found.suspects == ["1.2", "1.3", "1.4", "1.5"]
    assert found.first == "1.5"
    assert found.good.at == "1.1"


def test_everywhere_runs_every_release_once() -> None:
    run, tried = _statuses(*["passed"] * 5, *["failed"] * 4)
    assert list(search(RELEASES, run, good_first=True, everywhere=True).probes) == RELEASES
    assert sorted(tried) == RELEASES


def test_an_error_is_bad_only_where_the_bad_end_ended_in_one() -> None:
    run, _ = _statuses("passed", "passed", "passed", *["error"] * 6)
    assert search(RELEASES, run, good_first=True).suspects == ["1.3"]
    run, _ = _statuses("passed", "passed", "passed", *["error"] * 5, "failed")
    assert search(RELEASES, run, good_first=True).suspects == ["1.3", "1.4", "1.5", "1.6", "1.7", "1.8"]


@pytest.mark.parametrize(
    ("statuses", "message"),
    [
        (("failed", "failed"), "1.0 is not good: failed (rel-L2 0.5)"),
        (("passed", "passed"), "1.8 is not bad: passed (rel-L2 0.5)"),
        (("gated", "unavailable"), "1.0 is not good: gated"),
    ],
)
def test_ends_that_are_not_what_they_are_said_to_be(statuses: tuple[str, str], message: str) -> None:
    run, tried = _statuses(statuses[0], *["passed"] * 7, statuses[1])
    with pytest.raises(NothingToSearch) as caught:
        search(RELEASES, run, good_first=True)
    assert message in str(caught.value)
    assert "1.8" in str(caught.value)
    assert sorted(tried) == ["1.0", "1.8"]


def test_what_a_release_brought_with_it_is_told() -> None:
    def run(at: str) -> Probe:
        older = {"tinygain": at, "tinyneed": "1.5"}
        return Probe(at, "passed" if at < "1.4" else "failed", changes=older if at < "1.4" else {"tinygain": at})

    changed = search(RELEASES, run, good_first=True).also_changed()
    assert changed == {"tinygain": ("1.3", "1.4"), "tinyneed": ("1.5", "")}


def test_all_between_the_ends_unknown() -> None:
    assert bisect(5, lambda _: None) == (0, 4)
    assert bisect(2, lambda _: pytest.fail("there is nothing between them")) == (0, 1)


def test_numbers_are_the_largest_error_of_each_name() -> None:
    assert Probe("1", "failed", measures={"row_0": {"rel_l2": 0.1}, "row_1": {"rel_l2": 0.7}, "rows": 2}).numbers() == {
        "rel_l2": 0.7
    }
    with_limits = {"rel_l2": 1e-7, "leaves": {"logits": {"rel_l2": 1e-7}}, "tolerance": {"rel_l2": 2e-5}}
    assert Probe("1", "passed", measures=with_limits).numbers() == {"rel_l2": 1e-7}
    assert Probe("1", "passed", measures={"exact": True, "tokens": 8}).numbers() == {"tokens": 8}


@pytest.mark.parametrize(
    ("status", "codes"), [("passed", (0, 1)), ("failed", (1, 0)), ("error", (125, 125)), ("gated", (125, 125))]
)
def test_exit_codes_are_those_of_git_bisect_run(status: str, codes: tuple[int, int]) -> None:
    probe = Probe("abc", status)
    assert (exit_code(probe, ""), exit_code(probe, "", good_first=False)) == codes
    assert exit_code(Probe("abc", "error"), "error") == 1
    assert probe.verdict() in Verdict
