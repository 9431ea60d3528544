"""Between recordings at consecutive batches: every size is the polynomial through the recorded ones (Newton's form).

Shapes, bytes and operations of a model are such polynomials as long as it runs the same operators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from pytest_hfaccel.tracing.recording import Recording
from pytest_hfaccel.tracing.trace import Operator

_AMOUNTS = ("flops", "read_bytes", "written_bytes", "read_floats", "written_floats", "read_weights")


def joined(recordings: Sequence[Recording]) -> tuple[Recording, ...]:
    """Join operators that are equal in all recordings, and leave of the curves what can be the highest point.

    Args:
        recordings: Recordings at consecutive batches, whose operators correspond one to one.
    """
    counts: dict[tuple[Operator, ...], int] = {}
    for together in zip(*(recording.operators for recording in recordings), strict=True):
        counts[together] = counts.get(together, 0) + 1
    points = _highest(zip(*(recording.curve for recording in recordings), strict=True))
    return tuple(
        replace(
            recording,
            operators=tuple(replace(together[index], count=count) for together, count in counts.items()),
            curve=tuple(point[index] for point in points),
        )
        for index, recording in enumerate(recordings)
    )


def _highest(points: Iterable[tuple[tuple[int, int], ...]]) -> list[tuple[tuple[int, int], ...]]:
    """Leave out moments at which less was alive than at another one, at the first batch and in growth."""
    kept: list[tuple[tuple[int, int], ...]] = []
    for point in sorted(set(points), key=_growths, reverse=True):
        if not any(all(a >= b for a, b in zip(_growths(other), _growths(point), strict=True)) for other in kept):
            kept.append(point)
    return kept


def _growths(point: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    # At any dtype a number takes more than nothing: what is alive is a sum of these with positive factors.
    floats = [count for _, count in point]
    others = [nbytes - 4 * count for nbytes, count in point]
    return (*_differences(others), *_differences(floats))


def interpolated(recordings: Sequence[Recording], batch: int) -> Recording:
    """Return the recording that a batch size would have given.

    Args:
        recordings: What `joined` returned.
        batch: Samples, at least as many as in the first of them.
    """
    start = recordings[0]

    def grown(*values: int) -> int:
        return _newton(_differences(values), batch - start.batch)

    operators = zip(*(recording.operators for recording in recordings), strict=True)
    return Recording(
        subject=start.subject,
        batch=batch,
        operators=tuple(_grown(together, grown) for together in operators),
        curve=tuple(_grown_all(point, grown) for point in zip(*(one.curve for one in recordings), strict=True)),
        output=_grown_all([one.output for one in recordings], grown),
    )


def _grown(together: Sequence[Operator], grown: Callable[..., int]) -> Operator:
    shapes = zip(*(operator.shapes for operator in together), strict=True)
    changes: dict[str, Any] = {name: grown(*(getattr(one, name) for one in together)) for name in _AMOUNTS}
    changes["shapes"] = tuple(_grown_all(same, grown) for same in shapes)
    changes["out"] = _grown_all([operator.out for operator in together], grown)
    return replace(together[0], **changes)


def _grown_all(together: Iterable[Sequence[int]], grown: Callable[..., int]) -> Any:
    return tuple(map(grown, *together))


def _differences(values: Sequence[int]) -> tuple[int, ...]:
    """Newton's forward differences of values at consecutive batches."""
    found = []
    while values:
        found.append(values[0])
        values = [after - before for before, after in pairwise(values)]
    return tuple(found)


def _newton(differences: Sequence[int], steps: int) -> int:
    """Newton's polynomial `steps` batches after the first one; exact, as binomial coefficients are whole numbers."""
    value, coefficient = 0, 1
    for order, difference in enumerate(differences):
        value += coefficient * difference
        coefficient = coefficient * (steps - order) // (order + 1)
    return value
