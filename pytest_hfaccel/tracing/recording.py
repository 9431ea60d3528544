"""What was recorded of passes at a few batch sizes, and the traces that follow from it at any batch size and dtype.

As long as a model runs the same operators, its shapes, bytes and operations are polynomials in the batch size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from math import comb
from typing import Any

from pytest_hfaccel.core.errors import LoadError
from pytest_hfaccel.tracing.trace import (
    ModelTrace,
    Operator,
    bytes_more,
    converted,
    counted,
    precision_of,
)


@dataclass(frozen=True)
class Weights:
    """Parameters and buffers of a model.

    Attributes:
        parameters: Number of parameters, shared ones counted once.
        nbytes: Bytes of parameters and buffers.
        buffer_bytes: Bytes of the buffers.
        stored_buffer_bytes: Bytes of those buffers that a checkpoint holds.
    """

    parameters: int
    nbytes: int
    buffer_bytes: int
    stored_buffer_bytes: int


def weights_of(model: Any) -> Weights:
    """Count what a torch model holds, on any device: real, fake or meta."""
    parameters, buffers = list(model.parameters()), dict(model.named_buffers())
    stored = model.state_dict().keys()
    return Weights(
        parameters=sum(int(parameter.numel()) for parameter in parameters),
        nbytes=sum(map(tensor_bytes, (*parameters, *buffers.values()))),
        buffer_bytes=sum(map(tensor_bytes, buffers.values())),
        stored_buffer_bytes=sum(tensor_bytes(buffer) for name, buffer in buffers.items() if name in stored),
    )


def tensor_bytes(tensor: Any) -> int:
    """Return the bytes of a tensor's numbers."""
    return int(tensor.numel() * tensor.element_size())


@dataclass(frozen=True)
class Subject:
    """What was recorded, and what is the same at all batch sizes.

    Attributes:
        architecture: transformers class name.
        length: Tokens per sample of its text inputs.
        dtype: dtype of the recording.
        training: Whether a training step was recorded.
        weights: What the model holds.
        multiplied_bytes: Bytes of the weights that go into matrix products and convolutions.
        multiplied_matrices: Numbers in those weights that are matrices.
        multiplied_vectors: Numbers in the others, the biases.
        optimizer_bytes: Bytes of the optimizer's state.
    """

    architecture: str
    length: int
    dtype: str
    training: bool
    weights: Weights
    multiplied_bytes: int
    multiplied_matrices: int
    multiplied_vectors: int
    optimizer_bytes: int


@dataclass(frozen=True)
class Recording:
    """One pass at one batch size.

    Attributes:
        subject: What was recorded.
        batch: Samples.
        operators: In the order of execution.
        curve: Bytes and floating-point numbers alive after each operator, weights and inputs not counted.
        output: Bytes and floating-point numbers of the outputs.
    """

    subject: Subject
    batch: int
    operators: tuple[Operator, ...]
    curve: tuple[tuple[int, int], ...]
    output: tuple[int, int]

    def trace(self, dtype: str) -> ModelTrace:
        """Return the trace of this pass.

        Args:
            dtype: That of the recording, or another one if the recording is of a forward pass in fp32: bytes then
                follow the size of a number.

        Raises:
            ConfigError: There is no such dtype.
        """
        subject, weights = self.subject, self.subject.weights
        precision = precision_of("fp32" if dtype == subject.dtype else dtype)
        matrices = subject.multiplied_matrices
        others = weights.parameters - matrices
        return ModelTrace(
            architecture=subject.architecture,
            batch=self.batch,
            length=subject.length,
            dtype=dtype,
            training=subject.training,
            parameters=weights.parameters,
            weight_bytes=weights.nbytes + bytes_more(others, matrices, precision),
            multiplied_bytes=subject.multiplied_bytes + bytes_more(subject.multiplied_vectors, matrices, precision),
            activation_bytes=max(nbytes + bytes_more(floats, 0, precision) for nbytes, floats in self.curve),
            output_bytes=self.output[0] + bytes_more(self.output[1], 0, precision),
            operators=counted(converted(operator, precision) for operator in self.operators),
            buffer_bytes=weights.buffer_bytes,
            stored_buffer_bytes=weights.stored_buffer_bytes,
            optimizer_bytes=subject.optimizer_bytes,
        )

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Recording:
        """Rebuild a recording from its plain-JSON form."""
        subject = {**data["subject"], "weights": Weights(**data["subject"]["weights"])}
        operators = (
            Operator(**{**one, "shapes": tuple(map(tuple, one["shapes"])), "out": tuple(one["out"])})
            for one in data["operators"]
        )
        bytes_, floats = data["output"]
        curve = tuple((nbytes, floats) for nbytes, floats in data["curve"])
        return cls(Subject(**subject), data["batch"], tuple(operators), curve, (bytes_, floats))


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
            LoadError: What runs at this batch is not known; see `has`.
            ConfigError: There is no such dtype.
        """
        if not self.has(batch, dtype):
            subject = self.first.subject
            raise LoadError(
                f"{subject.architecture}: its trace in {subject.dtype} says nothing about batch {batch} in {dtype}.",
                hint="pytest_hfaccel.tracing.traces.trace_of traces such a case by itself.",
            )
        if batch == self.first.batch:
            return self.first.trace(dtype)
        return _interpolated(self.growing, batch).trace(dtype)

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ScalableTrace:
        """Rebuild a trace from what `to_json` returned."""
        return cls(Recording.from_json(data["first"]), tuple(map(Recording.from_json, data["growing"])))


def scalable_trace(record: Callable[[int], Recording]) -> ScalableTrace:
    """Record as few batches as suffice: 1 and 2, also 3 where batch 1 runs other operators, one more for squares.

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
    """Whether the operators differ in nothing but sizes."""
    forms = {
        tuple((one.name, one.is_view, one.groups, tuple(map(len, one.shapes)), len(one.out)) for one in each.operators)
        for each in recordings
    }
    return len(forms) == 1


def _has_squares(one: Recording, two: Recording) -> bool:
    """Whether a tensor grows with the batch along two axes."""
    return any(
        sum(size != larger for size, larger in zip(small, large, strict=True)) > 1
        for first, second in zip(one.operators, two.operators, strict=True)
        for small, large in zip((*first.shapes, first.out), (*second.shapes, second.out), strict=True)
    )


_AMOUNTS = ("flops", "read_bytes", "written_bytes", "read_floats", "written_floats", "read_weights")


def joined(recordings: Sequence[Recording]) -> tuple[Recording, ...]:
    """Join operators that are equal in all recordings, and leave of the curves what can be the highest point."""
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

    def growths(point: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
        # At any dtype a number takes more than nothing: what is alive is a sum of these with positive factors.
        floats = [count for _, count in point]
        return (*_differences([nbytes - 4 * count for nbytes, count in point]), *_differences(floats))

    highest: list[tuple[tuple[int, int], ...]] = []
    for point in sorted(set(points), key=growths, reverse=True):
        if not any(all(a >= b for a, b in zip(growths(other), growths(point), strict=True)) for other in highest):
            highest.append(point)
    return highest


def _interpolated(recordings: Sequence[Recording], batch: int) -> Recording:
    """Return the recording that a batch size would have given."""
    start = recordings[0]

    def grown(*values: int) -> int:
        # Newton's form of the polynomial through the recorded values: exact, in whole numbers.
        steps = batch - start.batch
        return sum(comb(steps, order) * difference for order, difference in enumerate(_differences(values)))

    def each(together: Iterable[Sequence[int]]) -> Any:
        return tuple(map(grown, *together))

    def operator(together: Sequence[Operator]) -> Operator:
        changes: dict[str, Any] = {name: grown(*(getattr(one, name) for one in together)) for name in _AMOUNTS}
        shapes = zip(*(one.shapes for one in together), strict=True)
        return replace(together[0], **changes, shapes=tuple(map(each, shapes)), out=each(one.out for one in together))

    return Recording(
        subject=start.subject,
        batch=batch,
        operators=tuple(map(operator, zip(*(one.operators for one in recordings), strict=True))),
        curve=tuple(map(each, zip(*(one.curve for one in recordings), strict=True))),
        output=each(one.output for one in recordings),
    )


def _differences(values: Sequence[int]) -> tuple[int, ...]:
    """Newton's forward differences of values at consecutive batches."""
    differences = []
    while values:
        differences.append(values[0])
        values = [after - before for before, after in pairwise(values)]
    return tuple(differences)
