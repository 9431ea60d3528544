"""Bytes of a number by dtype, and what an operator moves when a pass recorded in fp32 runs at another dtype."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.tracing.trace import Operator


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
    """Return the bytes of a number at a dtype.

    Raises:
        ConfigError: There is no such dtype.
    """
    if dtype not in PRECISIONS:
        raise ConfigError(f"trace: {dtype!r} is not a dtype. Allowed: {', '.join(PRECISIONS)}.")
    return PRECISIONS[dtype]


def built_dtype(dtype: str, *, training: bool) -> str:
    """Return the dtype a model is built at to be traced at a dtype.

    Raises:
        ConfigError: There is no such dtype, or models are not trained at it.
    """
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
