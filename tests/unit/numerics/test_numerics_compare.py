"""Comparing outputs with a reference, on tensors small enough to work out by hand."""

from __future__ import annotations

import pytest
import torch

from pytest_hfaccel.numerics.compare import LeafDifference, compare, difference, judge, largest_passing
from pytest_hfaccel.numerics.tolerances import Tolerance

pytestmark = pytest.mark.slow

_ROW = Tolerance(rel_l2=1e-3, rtol=1e-3, atol=1e-3)
_NAN, _INF = float("nan"), float("inf")


def _of(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_the_numbers_are_those_of_their_definitions() -> None:
    found = difference("logits", _of(3.0, 4.5), _of(3.0, 4.0), _ROW)
    assert found.rel_l2 == pytest.approx(0.5 / 5.0)
    assert found.max_abs == pytest.approx(0.5)
    assert found.max_rel == pytest.approx(0.125)
    assert found.cosine == pytest.approx(27.0 / (5.0 * 29.25**0.5))
    assert found.outside == 0.5


def test_pearson_is_recorded_but_decides_nothing() -> None:
    comparison = compare({"x": 2 * _of(1.0, 2.0, 3.0) + 5}, {"x": _of(1.0, 2.0, 3.0)}, _ROW)
    assert comparison.verdicts[0].difference.pearson == pytest.approx(1.0)
    assert not comparison.ok


def test_an_error_within_the_tolerance_passes_with_its_numbers() -> None:
    comparison = compare({"x": _of(1.0001, 2.0)}, {"x": _of(1.0, 2.0)}, _ROW)
    assert comparison.ok
    assert comparison.measures()["rel_l2"] == pytest.approx(1e-4 / 5**0.5)


def test_one_bad_element_fails_although_the_leaf_as_a_whole_is_close() -> None:
    reference = torch.ones(10_000, dtype=torch.float64)
    actual = reference.clone()
    actual[7] += 0.05
    comparison = compare({"x": actual}, {"x": reference}, _ROW)
    assert comparison.verdicts[0].difference.rel_l2 < _ROW.rel_l2
    assert "0.01% of the elements outside" in comparison.text()


def test_an_element_near_zero_may_carry_the_rounding_of_large_ones() -> None:
    assert compare({"x": _of(1000.0, 0.5)}, {"x": _of(1000.0, 0.0)}, _ROW).ok
    assert not compare({"x": _of(1.0, 0.5)}, {"x": _of(1.0, 0.0)}, _ROW).ok


def test_the_text_names_missing_and_unexpected_outputs_and_the_worst_leaf_first() -> None:
    reference = {"a": _of(1.0), "b": _of(1.0), "gone": _of(1.0)}
    comparison = compare({"a": _of(1.1), "b": _of(3.0), "new": _of(1.0)}, reference, _ROW)
    lines = comparison.text().splitlines()
    assert lines[:2] == ["missing output 'gone'", "unexpected output 'new'"]
    assert lines[2].startswith("b: rel-L2 2 > 0.001")
    assert lines[3].startswith("a: rel-L2 0.1 > 0.001")


def test_no_outputs_at_all_are_not_a_match() -> None:
    comparison = compare({}, {}, _ROW)
    assert not comparison.ok
    assert comparison.text() == "there are no outputs to compare"


@pytest.mark.parametrize(
    ("actual", "reference", "problem"),
    [
        (_of(1.0, _NAN), _of(1.0, 2.0), "NaN at 1 positions, in the reference at 0"),
        (_of(1.0, _NAN), _of(1.0, _NAN), "NaN at 1 positions, in the reference at 1"),
        (_of(1.0, 2.0), _of(1.0, _NAN), "NaN at 0 positions, in the reference at 1"),
        (_of(1.0, _INF), _of(1.0, 7e4), "+inf at 1 positions"),
        (_of(1.0, -_INF), _of(1.0, 2.0), "-inf or a fill value at 1 positions"),
        (_of(1.0, 0.0), _of(1.0, -_INF), "-inf or a fill value at 0 positions"),
        (_of(1.0), _of(1.0, 2.0), "shape (1,), reference (2,)"),
        (torch.tensor([1, 2]), torch.tensor([1, 3]), "1 of 2 integers differ"),
    ],
)
def test_what_cannot_be_measured_fails_with_its_reason(
    actual: torch.Tensor, reference: torch.Tensor, problem: str
) -> None:
    comparison = compare({"x": actual}, {"x": reference}, _ROW)
    assert not comparison.ok
    assert problem in comparison.text()


def test_a_distance_that_is_no_number_is_no_match() -> None:
    assert not judge(LeafDifference("logits", rel_l2=float("nan")), Tolerance(1e-5)).ok


def test_infinity_at_the_same_positions_agrees() -> None:
    both = _of(1.0, _INF, -_INF)
    assert compare({"x": both}, {"x": both.clone()}, _ROW).ok


@pytest.mark.parametrize("fill", [-65504.0, -1e9, torch.finfo(torch.float32).min, -_INF])
def test_fill_values_mean_never_in_every_dtype_and_leave_the_numbers_alone(fill: float) -> None:
    reference = _of(1.0, torch.finfo(torch.float64).min)
    comparison = compare({"x": _of(1.0, fill)}, {"x": reference}, _ROW)
    assert comparison.ok
    assert comparison.measures()["rel_l2"] == 0.0


def test_cosine_decides_for_int8() -> None:
    row = Tolerance(rel_l2=10.0, cosine=0.995, second_chance=False)
    assert compare({"x": _of(1.0, 0.05)}, {"x": _of(1.0, 0.0)}, row).ok
    assert "cosine" in compare({"x": _of(1.0, 0.2)}, {"x": _of(1.0, 0.0)}, row).text()


def test_another_best_answer_fails_where_the_row_asks_for_it() -> None:
    row = Tolerance(rel_l2=10.0, top1=0.9)
    actual, reference = torch.eye(2), torch.eye(2).flip(0)
    assert "same argmax at 0.0%" in compare({"logits": actual}, {"logits": reference}, row).text()
    assert compare({"hidden": actual}, {"hidden": reference}, row).ok


def _rounding(rel_l2: float, max_abs: float) -> dict[str, LeafDifference]:
    return {"x": LeafDifference("x", rel_l2=rel_l2, max_abs=max_abs)}


def test_three_times_the_rounding_of_the_cpu_is_excused() -> None:
    actual, reference = {"x": _of(1.005)}, {"x": _of(1.0)}
    assert not compare(actual, reference, _ROW).ok
    excused = compare(actual, reference, _ROW, lambda: _rounding(2e-3, 2e-3))
    assert excused.ok
    assert excused.measures()["second_chance"] == ["x"]
    refused = compare(actual, reference, _ROW, lambda: _rounding(1e-3, 1e-3))
    assert "on the CPU this dtype has rel-L2 0.001" in refused.text()


def test_no_rounding_excuses_more_than_twenty_times_the_tolerance() -> None:
    assert not compare({"x": _of(1.03)}, {"x": _of(1.0)}, _ROW, lambda: _rounding(1.0, 1.0)).ok


def test_values_below_the_absolute_tolerance_are_mostly_rounding() -> None:
    actual, reference = {"x": _of(6e-4)}, {"x": _of(3e-4)}
    assert not compare(actual, reference, _ROW).ok
    assert compare(actual, reference, _ROW, lambda: _rounding(1.0, 3e-4)).ok
    assert not compare(actual, reference, _ROW, lambda: _rounding(0.1, 3e-5)).ok


def test_the_largest_passing_error_knows_the_second_chance() -> None:
    assert largest_passing(1e-9, _ROW) == _ROW.rel_l2
    assert largest_passing(1e-2, _ROW) == pytest.approx(3e-2)
    assert largest_passing(1e-2, Tolerance(rel_l2=1e-3, second_chance=False)) == 1e-3


def test_rounding_is_measured_only_when_needed() -> None:
    def must_not_run() -> dict[str, LeafDifference]:
        raise AssertionError("asked for the rounding error of outputs that are close enough")

    assert compare({"x": _of(1.0)}, {"x": _of(1.0)}, _ROW, must_not_run).ok
