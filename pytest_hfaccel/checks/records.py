"""Comparing the results of pipelines: nested lists, records with scores, texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pytest_hfaccel.checks.compare import compare
from pytest_hfaccel.checks.tolerances import Tolerance

# Boxes are cut down to whole pixels, so that rounding can move a corner by one.
_PIXELS = 1


def problems_between(found: Any, expected: Any, tolerance: Tolerance) -> list[str]:
    """Return how a pipeline's result differs from the expected one, one line each; empty when it does not.

    Args:
        found: The pipeline's result: text, nested lists of numbers, or records (dicts), with or without `score`.
        expected: The same, computed directly.
        tolerance: Limits for numbers and scores.
    """
    broken = [side for side, result in (("its", found), ("the direct", expected)) if not _is_finite(result)]
    if broken:
        return [f"{side} result holds NaN or infinity: {found!r} instead of {expected!r}" for side in broken]
    if _is_record_list(expected):
        return _records(found, expected, tolerance)
    if isinstance(expected, Sequence) and not isinstance(expected, str):
        return _arrays(found, expected, tolerance)
    return [] if found == expected else [f"{found!r} instead of {expected!r}"]


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


def _arrays(found: Any, expected: Any, tolerance: Tolerance) -> list[str]:
    import torch

    want = torch.tensor(expected, dtype=torch.float64)
    got = torch.tensor(found, dtype=torch.float64)
    comparison = compare({"result": got}, {"result": want}, tolerance)
    return [] if comparison.ok else [comparison.text()]


def _records(found: Any, expected: list[Mapping[str, Any]], tolerance: Tolerance) -> list[str]:
    if not _is_record_list(found) or len(found) != len(expected):
        return [f"{found!r} instead of {expected!r}"]
    room = (tolerance.atol or tolerance.rel_l2) + (tolerance.rtol or 0.0)  # scores are at most 1
    if all("label" in record or "token" in record for record in expected) and not _has_boxes(expected):
        return _ranking(found, expected, room)
    return [
        f"record {index}: {one!r} instead of {other!r}"
        for index, (one, other) in enumerate(zip(found, expected, strict=True))
        if not _same_record(one, other, room)
    ]


def _has_boxes(records: list[Mapping[str, Any]]) -> bool:
    return any("box" in record for record in records)


def _ranking(found: list[Mapping[str, Any]], expected: list[Mapping[str, Any]], room: float) -> list[str]:
    """Compare by label, not by rank: rounding may swap neighbours, and the last may be replaced by its equal."""
    wanted = {_identity(record): record for record in expected}
    cut = min((float(record["score"]) for record in expected), default=0.0)
    problems = []
    for record in found:
        other = wanted.get(_identity(record))
        score = float(other["score"]) if other else cut
        if abs(float(record["score"]) - score) > room or (other and not _same_record(record, other, room)):
            problems.append(f"{record!r} instead of {other or f'a score of at most {cut:.4g}'!r}")
    scores = [float(record["score"]) for record in found]
    if scores != sorted(scores, reverse=True):
        problems.append(f"the scores are not in descending order: {scores}")
    return problems


def _identity(record: Mapping[str, Any]) -> Any:
    return record["label"] if "label" in record else record["token"]


def _same_record(found: Mapping[str, Any], expected: Mapping[str, Any], room: float) -> bool:
    return found.keys() == expected.keys() and all(_same(key, found[key], expected[key], room) for key in expected)


def _same(key: str, found: Any, expected: Any, room: float) -> bool:
    if key == "score":
        return abs(float(found) - float(expected)) <= room
    if key == "box":
        return found.keys() == expected.keys() and all(abs(found[k] - expected[k]) <= _PIXELS for k in expected)
    return bool(found == expected)
