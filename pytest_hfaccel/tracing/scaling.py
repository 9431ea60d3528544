"""Traces at any batch size from a few recorded ones: what a model does grows with the batch as a polynomial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_hfaccel.core.errors import LoadError
from pytest_hfaccel.tracing.interpolation import interpolated, joined
from pytest_hfaccel.tracing.recording import Recording
from pytest_hfaccel.tracing.trace import ModelTrace, Operator

Record = Callable[[int], Recording]


@dataclass(frozen=True)
class ScalableTrace:
    """What a model does at any batch size.

    Between batches whose operators are the same, shapes, bytes and operations are interpolated by the polynomial
    through the recorded ones: affine from two, of degree two from three (similarities between all pairs of a batch).

    Attributes:
        first: The recording at batch 1, where models may run other operators than on real batches.
        growing: Recordings at consecutive batches, whose operators correspond one to one; equal ones are joined. Empty
            where they do not correspond.
    """

    first: Recording
    growing: tuple[Recording, ...]

    @property
    def is_scalable(self) -> bool:
        """Whether batches that were not recorded can be computed; else each is to be traced by itself."""
        return bool(self.growing)

    def has(self, batch: int, dtype: str) -> bool:
        """Whether `at` has an answer. Training steps have another optimizer state at another dtype."""
        subject = self.first.subject
        convertible = dtype == subject.dtype or (subject.dtype == "fp32" and not subject.training)
        return convertible and (batch == self.first.batch or self.is_scalable)

    def at(self, batch: int, dtype: str = "fp32") -> ModelTrace:
        """Return the trace at a batch size and dtype, in a few milliseconds.

        Args:
            batch: Samples, at least 1.
            dtype: That of the recording; for forward passes recorded in fp32 any.

        Raises:
            LoadError: What runs at this batch cannot be told; `has` says so beforehand.
            ConfigError: There is no such dtype.
        """
        if not self.has(batch, dtype):
            subject = self.first.subject
            raise LoadError(
                f"{subject.architecture}: its trace in {subject.dtype} tells nothing about batch {batch} in {dtype}.",
                hint="pytest_hfaccel.tracing.traces.trace_of traces such a case by itself.",
            )
        if batch == self.first.batch:
            return self.first.trace(dtype)
        return interpolated(self.growing, batch).trace(dtype)

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""
        return {"first": self.first.to_json(), "growing": [one.to_json() for one in self.growing]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ScalableTrace:
        """Rebuild a trace from what `to_json` returned."""
        return cls(Recording.from_json(data["first"]), tuple(map(Recording.from_json, data["growing"])))


def scalable_trace(record: Record) -> ScalableTrace:
    """Record as few batches as suffice: 1 and 2, also 3 where batch 1 runs other operators, one more for squares.

    Args:
        record: Records a pass at a batch size.

    Raises:
        LoadError: `record` raised it.
    """
    first, second = record(1), record(2)
    growing = [first, second]
    if not _correspond(growing):
        growing = [second, record(3)]
    if not _correspond(growing):
        return ScalableTrace(joined([first])[0], ())
    if _has_squares(*growing):
        growing.append(record(growing[-1].batch + 1))
    return ScalableTrace(joined([first])[0], joined(growing) if _correspond(growing) else ())


def _correspond(recordings: Sequence[Recording]) -> bool:
    return len({tuple(map(_form, recording.operators)) for recording in recordings}) == 1


def _form(operator: Operator) -> tuple[Any, ...]:
    """What of an operator is the same at all batch sizes."""
    ranks = tuple(map(len, operator.shapes))
    return operator.name, operator.is_view, operator.groups, ranks, len(operator.out)


def _has_squares(one: Recording, two: Recording) -> bool:
    """Whether a tensor grows with the batch along two axes: its size then grows with the square."""
    return any(
        sum(size != larger for size, larger in zip(small, large, strict=True)) > 1
        for first, second in zip(one.operators, two.operators, strict=True)
        for small, large in zip((*first.shapes, first.out), (*second.shapes, second.out), strict=True)
    )
