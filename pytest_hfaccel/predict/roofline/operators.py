"""The operator-level roofline: each traced operator takes as long as the device measured for one like it.

A roofline (Williams, Waterman, Patterson 2009, "Roofline: an insightful visual performance model") bounds a program by
peak speed and bandwidth. No operator reaches either, and each misses them in its own way; so the time of each operator
comes from the calibration, at its own size. Imports numpy: import this file late.
"""

from __future__ import annotations

from math import prod

from pytest_hfaccel.predict.calibration.records import DeviceCalibration
from pytest_hfaccel.predict.roofline.interpolation import Rates, Times
from pytest_hfaccel.predict.roofline.kinds import BATCHED, GROUP_OF_KIND, GROUPS, KIND_OF, MATRIX, NOTHING
from pytest_hfaccel.tracing.trace import ModelTrace, Operator

_MOVING = ("add", "in_place", "copy", "permute", "gather", "masked", "gelu", "tanh")
_REDUCING = ("layer_norm", "batch_norm", "softmax", "mean")
_POOL_FACTOR = 3.0
"""Pooling and resizing read several numbers for each they write: so many times an activation of that size."""
_ELEMENT = {"fp64": 8, "fp32": 4, "bf16": 2, "fp16": 2, "int8": 4}
"""Bytes of a number in memory; int8 stores weights in one byte and computes on fp32 activations."""


class OperatorRoofline:
    """Predicts the time of a forward pass from its operators and a device's calibration."""

    def __init__(self, calibration: DeviceCalibration) -> None:
        self.calibration = calibration
        self._linear = Rates(calibration.of_kind("linear"), (0, 1, 2), row=1)
        self._bmm = Rates(calibration.of_kind("bmm"), (0, 1, 2), 3)
        self._attention = Rates(calibration.of_kind("attention"), (0, 1, 2), 3)
        self._conv = Rates(calibration.of_kind("conv"), (0, 1, 2), 3)
        self._depthwise = Rates(calibration.of_kind("depthwise"), (0, 1), 2)
        self._times = {kind: Times(calibration.of_kind(kind)) for kind in (*_MOVING, *_REDUCING)}
        self._least = self._times["add"].at(1)

    def seconds(self, trace: ModelTrace) -> float:
        """Return the predicted seconds of a forward pass (of a training step)."""
        overhead = self.calibration.call_seconds + trace.launches * self.calibration.module_seconds
        return overhead + sum(self.breakdown(trace).values())

    def breakdown(self, trace: ModelTrace) -> dict[str, float]:
        """Return the predicted seconds by group of operators (`kinds.GROUPS`), without the overhead of calls."""
        groups = dict.fromkeys(GROUPS, 0.0)
        for operator in trace.operators:
            group, seconds = self._operator(operator, _ELEMENT[trace.dtype])
            groups[group] += operator.count * seconds
        return groups

    def _operator(self, operator: Operator, element: int) -> tuple[str, float]:
        if operator.is_view:
            return "view", self.calibration.view_seconds
        if operator.flops:
            group, rate = self._computing(operator)
            return group, operator.flops / rate + (0.0 if group == "matrix" else self._least)
        return self._moving(operator, element)

    def _computing(self, operator: Operator) -> tuple[str, float]:
        """Return the group, and the rate in floating-point operations per second."""
        name, shapes = operator.name, operator.shapes
        if name in MATRIX and len(shapes) > MATRIX[name] + 1:
            first, second = shapes[MATRIX[name]], shapes[MATRIX[name] + 1]
            return "matrix", self._linear.at((prod(first[:-1]), second[-1], first[-1]))
        if name in BATCHED and len(shapes) > BATCHED[name] + 1:
            first, second = shapes[BATCHED[name]], shapes[BATCHED[name] + 1]
            return "bmm", self._bmm.at((first[-2], second[-1], first[-1]))
        if "attention" in name:
            query = shapes[0]
            return "attention", self._attention.at((query[-2], query[-1], prod(query[:-2])))
        if "convolution" in name and len(shapes) > 1:
            return self._convolution(operator)
        return "matrix", self.calibration.peak_flops

    def _convolution(self, operator: Operator) -> tuple[str, float]:
        window, out = operator.shapes[1], operator.out
        depth, columns = prod(window[1:]), max(1, window[0] // operator.groups)
        if columns == 1 and operator.groups > 1:
            return "depthwise", self._depthwise.at((prod(out), depth))
        return "conv", self._conv.at((max(1, prod(out) // window[0]), columns, depth))

    def _moving(self, operator: Operator, element: int) -> tuple[str, float]:
        if operator.name in NOTHING:
            return "other", self._least
        in_place = operator.name.endswith("_") and operator.name not in KIND_OF
        kind = KIND_OF.get(operator.name, "in_place" if in_place else "add")
        read, written = operator.read_bytes / element, operator.written_bytes / element
        group = GROUP_OF_KIND.get(kind, kind)
        if kind == "pool":
            return group, _POOL_FACTOR * self._times["gelu"].at(max(read, written))
        if kind == "mean":
            return group, self._times["mean"].at(read)
        if kind == "add":
            return group, self._times["add"].at(max(read / 2, written))
        return group, self._times[kind].at(written)
