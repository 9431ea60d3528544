"""What was recorded of one pass: plain data, from which traces are made."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pytest_hfaccel.tracing.precision import bytes_more, converted, precision_of
from pytest_hfaccel.tracing.trace import ModelTrace, Operator, counted, operator_from_json
from pytest_hfaccel.tracing.weights import Weights


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
        curve: Bytes and floating-point numbers alive besides weights and inputs, after each operator.
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

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Recording:
        """Rebuild a recording from what `to_json` returned."""
        subject = {**data["subject"], "weights": Weights(**data["subject"]["weights"])}
        return cls(
            subject=Subject(**subject),
            batch=data["batch"],
            operators=tuple(operator_from_json(one) for one in data["operators"]),
            curve=tuple((nbytes, floats) for nbytes, floats in data["curve"]),
            output=(data["output"][0], data["output"][1]),
        )
