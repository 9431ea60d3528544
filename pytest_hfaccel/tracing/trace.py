"""The operators of one forward pass: plain data, without a device."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Operator:
    """An operator of torch's on tensors of certain shapes, and how often it runs.

    Attributes:
        name: The operator without its namespace and overload: `addmm`, `convolution`, `gelu`.
        shapes: Shapes of its first three tensor arguments.
        out: Shape of its first tensor result; empty where it has none.
        flops: Floating-point operations of one execution (a multiplication and an addition count as two).
        read_bytes: Bytes of its tensor arguments, each counted once; of a table only the rows that are looked up.
        written_bytes: Bytes of its results.
        is_view: Whether it returns a view and moves nothing.
        groups: Groups of a convolution, else 1.
        count: Executions.
    """

    name: str
    shapes: tuple[tuple[int, ...], ...]
    out: tuple[int, ...]
    flops: int
    read_bytes: int
    written_bytes: int
    is_view: bool = False
    groups: int = 1
    count: int = 1


@dataclass(frozen=True)
class ModelTrace:
    """What a model does in one forward pass - in training mode, in one step: forward, backward and optimizer.

    Attributes:
        architecture: transformers class name.
        batch: Samples.
        length: Tokens per sample of its text inputs, as traced: at most the positions the model has.
        dtype: dtype of weights and activations.
        training: Whether this is a training step.
        parameters: Number of parameters, shared ones counted once.
        weight_bytes: Bytes of parameters and buffers.
        multiplied_bytes: Bytes of the weights that go into matrix products and convolutions, each counted once.
        activation_bytes: Most bytes alive at once besides weights and inputs.
        output_bytes: Bytes of the outputs.
        operators: In the order of their first execution.
    """

    architecture: str
    batch: int
    length: int
    dtype: str
    training: bool
    parameters: int
    weight_bytes: int
    multiplied_bytes: int
    activation_bytes: int
    output_bytes: int
    operators: tuple[Operator, ...]

    @property
    def flops(self) -> int:
        """Floating-point operations of the pass."""
        return sum(operator.count * operator.flops for operator in self.operators)

    @property
    def moved_bytes(self) -> int:
        """Bytes read and written by operators that are not views."""
        return sum(
            operator.count * (operator.read_bytes + operator.written_bytes)
            for operator in self.operators
            if not operator.is_view
        )

    @property
    def launches(self) -> int:
        """Executions of operators that are not views."""
        return sum(operator.count for operator in self.operators if not operator.is_view)

    @property
    def mix(self) -> dict[str, int]:
        """Executions by operator name, the most frequent first."""
        counts: dict[str, int] = {}
        for operator in self.operators:
            counts[operator.name] = counts.get(operator.name, 0) + operator.count
        return dict(sorted(counts.items(), key=lambda item: -item[1]))

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ModelTrace:
        """Rebuild a trace from what `to_json` returned."""
        operators = tuple(
            Operator(**{**one, "shapes": tuple(map(tuple, one["shapes"])), "out": tuple(one["out"])})
            for one in data["operators"]
        )
        return cls(**{**data, "operators": operators})
