"""The operator-level roofline: each traced operator takes as long as the device measured for one like it.

A roofline (Williams, Waterman, Patterson 2009, "Roofline: an insightful visual performance model") bounds a program by
peak speed and bandwidth. No operator reaches either, and each misses them in its own way; so the time of each operator
comes from the calibration, at its own size. Imports numpy: import this file late.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from pytest_hfaccel.core.devices import ONNX_KINDS
from pytest_hfaccel.predict.calibration.records import DeviceCalibration, TimedOperator
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
        self._is_onnx = calibration.kind in ONNX_KINDS

    def seconds(self, trace: ModelTrace) -> float:
        """Return the predicted seconds of a forward pass (of a training step)."""
        overhead = self.calibration.call_seconds + trace.launches * self.calibration.module_seconds
        return overhead + sum(self.breakdown(trace).values())

    def breakdown(self, trace: ModelTrace) -> dict[str, float]:
        """Return the predicted seconds by group of operators (`GROUPS`), without the overhead of calls."""
        groups = dict.fromkeys(GROUPS, 0.0)
        for operator in trace.operators:
            group, seconds = self._operator(operator, _ELEMENT[trace.dtype])
            groups[group] += operator.count * seconds
        return groups

    def _operator(self, operator: Operator, element: int) -> tuple[str, float]:
        if operator.is_view:
            copied = COPIED_VIEWS.get(operator.name) if self._is_onnx else None
            if copied is None:
                return "view", self.calibration.view_seconds
            return GROUP_OF_KIND.get(copied, copied), self._times[copied].at(prod(operator.out))
        if self._is_onnx and KIND_OF.get(operator.name) == "batch_norm":
            return "norm", 0.0  # merged into the weights of the convolution before it
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


COPIED_VIEWS = {"transpose": "permute", "permute": "permute", "split": "copy", "slice": "copy", "expand": "copy"}
"""Operators that are views in torch and copies in ONNX graphs, whose tensors have no strides -> the kind of calibration
whose time they take."""

MATRIX = {"addmm": 1, "mm": 0, "_int_mm": 0, "linear": 0}
"""Products of a matrix with weights, and the position of the first factor among the tensor arguments."""

BATCHED = {"bmm": 0, "baddbmm": 1, "_grouped_mm": 0}
"""Products of batches of matrices, and the position of the first factor."""

NOTHING = frozenset(
    {
        *("empty", "empty_like", "empty_strided", "new_empty", "new_zeros", "arange", "scalar_tensor", "lift_fresh"),
        *("full", "zeros", "ones", "detach", "alias", "_local_scalar_dense"),
    }
)
"""Operators whose time is that of the call: what they write is small, or written by the next one."""

_KINDS = {
    "gelu": "gelu gelu_backward silu silu_backward erf exp log sin cos pow sigmoid hardswish mish softplus elu "
    "hardsigmoid rsqrt sqrt reciprocal atan log1p expm1 _fft_c2c _fft_r2c _fft_c2r bucketize",
    "tanh": "tanh tanh_backward",
    "copy": "copy_ _to_copy cat embedding constant_pad_nd stack slice_backward select_backward slice_scatter "
    "embedding_dense_backward reflection_pad1d flip",
    "permute": "clone repeat roll im2col col2im unfold_backward _unsafe_view",
    "gather": "gather index index_put_ index_select scatter scatter_ sort topk scatter_add_ index_add_",
    "masked": "where masked_fill masked_fill_ tril triu",
    "layer_norm": "native_layer_norm native_layer_norm_backward native_group_norm native_group_norm_backward "
    "_fused_rms_norm linalg_vector_norm",
    "batch_norm": "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training "
    "native_batch_norm_backward cudnn_batch_norm",
    "softmax": "_softmax _log_softmax _safe_softmax _softmax_backward_data _log_softmax_backward_data cumsum",
    "mean": "mean sum amax amin var var_mean max min any all argmax argmin prod norm",
    "pool": "max_pool2d_with_indices avg_pool2d _adaptive_avg_pool2d avg_pool1d max_pool2d upsample_bilinear2d "
    "upsample_nearest2d upsample_bicubic2d upsample_linear1d grid_sampler_2d _upsample_bicubic2d_aa "
    "_upsample_bilinear2d_aa",
}

KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names.split()}
"""Kind of calibration by operator name; what is missing counts as an addition, or in place where it ends in `_`."""

GROUPS = ("matrix", "bmm", "attention", "conv", "depthwise", "norm", "softmax", "activation", "copy", "other", "view")
"""The groups of operators with a time of their own, in the order of the learned model's features."""

GROUP_OF_KIND = {
    "permute": "copy",
    "gather": "copy",
    "masked": "other",
    "linear": "matrix",
    "gelu": "activation",
    "tanh": "activation",
    "layer_norm": "norm",
    "batch_norm": "norm",
    "mean": "norm",
    "add": "other",
    "in_place": "other",
    "pool": "other",
}
"""Group by kind; a kind that is missing is a group of its own."""


_NEAR = 0.05
"""Added to squared distances (in doublings), so that a measured size does not outvote its neighbours alone: its own
time has noise, too."""

_ALIGNED = 16
"""Numbers of fp32 in a cache line of 64 bytes: rows of another length begin in the middle of one, and matrix products
that write them take half as long again (measured with vocabularies of 30,522 and 30,528 words)."""
_MISALIGNED = 2.0
"""How far apart aligned and misaligned rows are, in doublings."""


class Rates:
    """Floating-point operations per second of a kind of operator at any size.

    The logarithm of the rate is averaged over the nearest measured sizes, weighted by inverse squared distance on a
    logarithmic scale (Shepard 1968, "A two-dimensional interpolation function for irregularly-spaced data").

    Args:
        timed: The measured operators of the kind.
        axes: Which numbers of their `size` are the coordinates.
        neighbours: How many of the nearest count.
        row: Which number of their `size` is the length of the result's rows, where its alignment matters.
    """

    def __init__(
        self, timed: Sequence[TimedOperator], axes: Sequence[int], neighbours: int = 4, row: int | None = None
    ) -> None:
        self._axes = list(axes)
        self._row = row
        self._neighbours = min(neighbours, len(timed))
        self._at = np.array([self._place(one.size) for one in timed]).reshape(len(timed), -1)
        self._log_rates = np.log([one.flops / one.seconds for one in timed])

    def at(self, size: Sequence[int]) -> float:
        """Return the rate at a size, given in full as in `TimedOperator.size`."""
        distances = ((self._at - self._place(size)) ** 2).sum(axis=1)
        nearest = np.argpartition(distances, self._neighbours - 1)[: self._neighbours]
        weights = 1.0 / (distances[nearest] + _NEAR)
        return float(np.exp((weights * self._log_rates[nearest]).sum() / weights.sum()))

    def _place(self, size: Sequence[int]) -> NDArray[np.float64]:
        place = [np.log2(max(1, size[axis])) for axis in self._axes]
        if self._row is not None:
            place.append(_MISALIGNED if size[self._row] % _ALIGNED else 0.0)
        return np.array(place)


class Times:
    """Seconds of an operator that moves numbers, by how many it writes; beyond the largest size in proportion."""

    def __init__(self, timed: Sequence[TimedOperator]) -> None:
        by_size = sorted({one.size[0]: one.seconds for one in timed}.items())
        self._log_sizes = np.log([size for size, _ in by_size])
        self._log_seconds = np.log([seconds for _, seconds in by_size])

    def at(self, numbers: float) -> float:
        """Return the seconds for so many numbers."""
        log_size = float(np.log(max(1.0, numbers)))
        beyond = max(0.0, log_size - float(self._log_sizes[-1]))
        return float(np.exp(np.interp(log_size, self._log_sizes, self._log_seconds) + beyond))
