"""What a model learns from: one measured point with its trace. Imports numpy: import this file late."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.predict.calibration.roofline import GROUPS, MATRIX, OperatorRoofline
from pytest_hfaccel.tracing.trace import ModelTrace

Array = NDArray[np.float64]

LARGE_BYTES = 32 * 2**20
"""Results from this size on get fresh pages from the system on every run (`M_MMAP_THRESHOLD_MAX`, mallopt(3))."""


@dataclass(frozen=True)
class Point:
    """A trace as the learned models see it.

    Attributes:
        trace: What the model does.
        groups: Roofline seconds by group of operators, in the order of `GROUPS`.
        launches: Operators that are not views.
        features: Numbers without units for the residual.
    """

    trace: ModelTrace
    groups: Array
    launches: int
    features: Array


@dataclass(frozen=True)
class Row:
    """A measured point.

    Attributes:
        point: The trace.
        seconds: Measured median latency.
        memory_bytes: Measured memory; `None` where it is not known.
        relatives: Group of architectures that vary each other: held out together.
    """

    point: Point
    seconds: float
    memory_bytes: int | None
    relatives: str


def point_of(trace: ModelTrace, roofline: OperatorRoofline) -> Point:
    """Describe a trace by the roofline of one device."""
    breakdown = roofline.breakdown(trace)
    groups = np.array([breakdown[group] for group in GROUPS])
    return Point(trace, groups, trace.launches, _features(trace, groups))


def _features(trace: ModelTrace, groups: Array) -> Array:
    total = float(groups.sum())
    moved = max(1, trace.moved_bytes)
    large = sum(one.count * one.written_bytes for one in trace.operators if one.written_bytes > LARGE_BYTES)
    return np.array(
        [
            *(groups / total),
            np.log(total),
            np.log(total / max(1, trace.launches)),
            np.log(max(1, trace.flops) / moved),
            large / moved,
            np.log(trace.batch),
            np.log2(_rows(trace)),
            np.log(max(1, trace.weight_bytes)),
        ]
    )


def _rows(trace: ModelTrace) -> float:
    """Rows of the matrix products, weighted by their work: few rows read weights for little work."""
    weighted, flops = 0.0, 1.0
    for one in trace.operators:
        if one.name in MATRIX and len(one.shapes) > MATRIX[one.name]:
            work = one.count * one.flops
            weighted += work * np.log2(max(1, prod(one.shapes[MATRIX[one.name]][:-1])))
            flops += work
    return float(2.0 ** (weighted / flops))


def features_of(points: Sequence[Point]) -> Array:
    """Stack the features of points: (points, features)."""
    return np.array([point.features for point in points])


_HEAD = re.compile(r"(For[A-Z]|LMHead|Model$|MT)")


def relatives_of(measurement: Measurement) -> str:
    """Return the group a row's architecture belongs to: what the row says, else its class without the head."""
    said = measurement.details.get("relatives")
    return str(said) if said else _HEAD.split(measurement.architecture)[0]
