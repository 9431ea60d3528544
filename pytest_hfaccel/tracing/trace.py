"""What a model does in one pass, as plain data: its operators, and their bytes at another dtype."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from pytest_hfaccel.core.errors import ConfigError


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
        read_floats: Floating-point numbers among what it reads: the rest of the bytes stays when the dtype changes.
        written_floats: Floating-point numbers among what it writes.
        read_weights: Numbers among `read_floats` that are weights of a matrix product: one byte each at int8.
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
    read_floats: int = 0
    written_floats: int = 0
    read_weights: int = 0


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
        activation_bytes: Peak of bytes alive, weights and inputs not counted; in training gradients and the
            optimizer's state are among them.
        output_bytes: Bytes of the outputs.
        operators: In the order of their first execution.
        buffer_bytes: Bytes of the buffers among `weight_bytes`.
        stored_buffer_bytes: Bytes of those buffers that a checkpoint holds.
        optimizer_bytes: Bytes of the optimizer's state among `activation_bytes`; 0 without training.
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
    buffer_bytes: int = 0
    stored_buffer_bytes: int = 0
    optimizer_bytes: int = 0

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


def counted(operators: Iterable[Operator]) -> tuple[Operator, ...]:
    """Join equal operators on equal shapes into one with the sum of their counts, in the order of the first."""
    counts: dict[Operator, int] = {}
    for operator in operators:
        one = operator if operator.count == 1 else replace(operator, count=1)
        counts[one] = counts.get(one, 0) + operator.count
    return tuple(one if count == 1 else replace(one, count=count) for one, count in counts.items())


@dataclass(frozen=True)
class Precision:
    """Bytes of one number of the activations, and of one number of the weights of matrix products."""

    activation: int
    weight: int


PRECISIONS = {
    "fp32": Precision(4, 4),
    "bf16": Precision(2, 2),
    "fp16": Precision(2, 2),
    # Weight-only quantisation, what "int8" means for transformers on the runtimes of this package: the matrices are
    # stored in a byte per number and brought to fp32 inside the product; biases and activations stay fp32.
    "int8": Precision(4, 1),
    "fp64": Precision(8, 8),
}

_RECORDED = PRECISIONS["fp32"]


def precision_of(dtype: str) -> Precision:
    """Return the bytes of a number at a dtype; `ConfigError` where there is no such dtype."""
    if dtype not in PRECISIONS:
        raise ConfigError(f"trace: {dtype!r} is not a dtype. Allowed: {', '.join(PRECISIONS)}.")
    return PRECISIONS[dtype]


def built_dtype(dtype: str, *, training: bool) -> str:
    """Return the dtype a model is built at to be traced at a dtype; `ConfigError` where it cannot be."""
    if precision_of(dtype) != PRECISIONS["int8"]:
        return dtype
    if training:
        allowed = ", ".join(name for name in PRECISIONS if name != dtype)
        raise ConfigError(f"trace: models are not trained at {dtype!r}. Allowed: {allowed}.")
    return "fp32"


def converted(operator: Operator, precision: Precision) -> Operator:
    """Return an operator that was recorded in fp32 as it runs at another precision; integers stay what they are."""
    if precision == _RECORDED or operator.is_view:
        return operator
    weights, others = operator.read_weights, operator.read_floats - operator.read_weights
    return replace(
        operator,
        read_bytes=operator.read_bytes + bytes_more(others, weights, precision),
        written_bytes=operator.written_bytes + bytes_more(operator.written_floats, 0, precision),
    )


def bytes_more(numbers: int, weights: int, precision: Precision) -> int:
    """Return by how many bytes numbers and weights of matrix products are larger than in fp32 (mostly negative)."""
    return numbers * (precision.activation - _RECORDED.activation) + weights * (precision.weight - _RECORDED.weight)
