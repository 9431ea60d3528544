"""Check `pipeline`: `transformers.pipeline` gives what the processor and the model give when used directly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from pytest_hfaccel.checks.base import CheckContext, built_in, passed_unless, skipped
from pytest_hfaccel.checks.pipeline_expected import EXPECTED
from pytest_hfaccel.core.results import CheckOutcome
from pytest_hfaccel.core.tasks import task_of
from pytest_hfaccel.numerics.compare import compare
from pytest_hfaccel.numerics.tolerances import Tolerance, tolerance_of

# Boxes are cut down to whole pixels, so that rounding can move a corner by one.
_PIXELS = 1


@built_in("pipeline", applies=lambda cell: task_of(cell.model).pipeline is not None)
def pipeline(context: CheckContext) -> CheckOutcome:
    """The task's pipeline on this device equals pre-processing, forward or generate, and post-processing by hand."""
    arguments = context.sample.pipeline
    if arguments is None:
        return skipped("the sample has no input for the pipeline")
    task = task_of(context.cell.model).pipeline or ""
    direct = EXPECTED[task]
    options = {**context.sample.pipeline_kwargs, **direct.options}
    # Some pipelines take their arguments apart: give them copies.
    actual = direct.compared(context.pipe(*deepcopy(arguments), **deepcopy(options)))
    expected = direct.compute(context, arguments, options)
    problems = problems_between(actual, expected, tolerance_of(context.cell))
    return passed_unless("\n".join(problems), task=task, result=_excerpt(actual))


def _excerpt(result: object, length: int = 200) -> str:
    text = repr(result)
    return text if len(text) <= length else f"{text[:length]}..."


def problems_between(actual: Any, expected: Any, tolerance: Tolerance) -> list[str]:
    """Return how a pipeline's result differs from the expected one, one line each; empty when it does not.

    Args:
        actual: The pipeline's result: text, nested lists of numbers, or records (dicts), with or without `score`.
        expected: The same, computed directly.
        tolerance: Limits for numbers and scores.
    """
    broken = [side for side, result in (("its", actual), ("the direct", expected)) if not _is_finite(result)]
    if broken:
        return [f"{side} result contains NaN or infinity: {actual!r} instead of {expected!r}" for side in broken]
    if _is_record_list(expected):
        return _records(actual, expected, tolerance)
    if isinstance(expected, Sequence) and not isinstance(expected, str):
        return _arrays(actual, expected, tolerance)
    return [] if actual == expected else [f"{actual!r} instead of {expected!r}"]


def _is_finite(result: Any) -> bool:
    if isinstance(result, float):
        return math.isfinite(result)
    if isinstance(result, Mapping):
        return all(map(_is_finite, result.values()))
    if isinstance(result, Sequence) and not isinstance(result, str):
        return all(map(_is_finite, result))
    return True


def _is_record_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, Mapping) for item in value)


def _arrays(actual: Any, expected: Any, tolerance: Tolerance) -> list[str]:
    import torch

    leaf, reference = (torch.tensor(result, dtype=torch.float64) for result in (actual, expected))
    comparison = compare({"result": leaf}, {"result": reference}, tolerance)
    return [] if comparison.ok else [comparison.text()]


def _records(actual: Any, expected: list[Mapping[str, Any]], tolerance: Tolerance) -> list[str]:
    if not _is_record_list(actual) or len(actual) != len(expected):
        return [f"{actual!r} instead of {expected!r}"]
    allowed = (tolerance.atol or tolerance.rel_l2) + (tolerance.rtol or 0.0)  # scores are at most 1
    is_ranking = all("label" in record or "token" in record for record in expected)
    if is_ranking and not any("box" in record for record in expected):
        return _ranking(actual, expected, allowed)
    return [
        f"record {index}: {one!r} instead of {other!r}"
        for index, (one, other) in enumerate(zip(actual, expected, strict=True))
        if not _same_record(one, other, allowed)
    ]


def _ranking(actual: list[Mapping[str, Any]], expected: list[Mapping[str, Any]], allowed: float) -> list[str]:
    """Compare by label, not by rank: rounding may swap neighbours, and the last may be replaced by its equal."""
    by_identity = {_identity(record): record for record in expected}
    cut = min((float(record["score"]) for record in expected), default=0.0)
    problems = []
    for record in actual:
        other = by_identity.get(_identity(record))
        score = float(other["score"]) if other else cut
        if abs(float(record["score"]) - score) > allowed or (other and not _same_record(record, other, allowed)):
            problems.append(f"{record!r} instead of {other or f'a score of at most {cut:.4g}'!r}")
    scores = [float(record["score"]) for record in actual]
    if scores != sorted(scores, reverse=True):
        problems.append(f"the scores are not in descending order: {scores}")
    return problems


def _identity(record: Mapping[str, Any]) -> Any:
    return record["label"] if "label" in record else record["token"]


def _same_record(actual: Mapping[str, Any], expected: Mapping[str, Any], allowed: float) -> bool:
    return actual.keys() == expected.keys() and all(_same(key, actual[key], expected[key], allowed) for key in expected)


def _same(key: str, actual: Any, expected: Any, allowed: float) -> bool:
    if key == "score":
        return abs(float(actual) - float(expected)) <= allowed
    if key == "box":
        return actual.keys() == expected.keys() and all(abs(actual[k] - expected[k]) <= _PIXELS for k in expected)
    return bool(actual == expected)
