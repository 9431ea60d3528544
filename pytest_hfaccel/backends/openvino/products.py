"""The weights of matrix products in what OpenVINO really runs, counted by their type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

_PRODUCTS = frozenset({"FullyConnected", "MatMul", "Gemm"})
"""Layers of an executed graph that multiply matrices. Convolutions are not among them: NNCF compresses their weights,
and the CPU plugin unpacks them again when it compiles."""

_CARRIERS = frozenset({"Reorder", "Transpose", "Reshape", "Convert"})
"""Layers that hand a weight on in another form."""

EIGHT_BITS = frozenset({"i8", "u8"})


def product_weights(compiled: Any) -> dict[str, int]:
    """Count the elements of the weights of matrix products in an executed graph by OpenVINO's name of their type.

    A constant that is a vector (a bias, the scales of channels, rotary frequencies) is not a matrix of weights.

    Args:
        compiled: The compiled model.
    """
    counts: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ordered_ops():
        if _layer(node) in _PRODUCTS:
            for constant in _constants(node):
                counts[constant.get_element_type().get_type_name()] += _elements(constant)
    return {name: count for name, count in counts.items() if count}


def dtype_of_products(compiled: Any) -> str:
    """Return `int8` where every weight of a matrix product has 8 bits, `mixed` where some have; else what they are."""
    found = product_weights(compiled)
    small = sum(count for name, count in found.items() if name in EIGHT_BITS)
    if small and small == sum(found.values()):
        return "int8"
    return "mixed" if small else "/".join(sorted(found)) or "no product of matrices"


def _constants(node: Any) -> Iterator[Any]:
    for port in node.inputs():
        producer = port.get_source_output().get_node()
        while _layer(producer) in _CARRIERS:
            producer = producer.input(0).get_source_output().get_node()
        if _layer(producer) == "Const":
            yield producer


def _elements(constant: Any) -> int:
    """The number of elements of a matrix; 0 for a vector or a number."""
    shape = constant.get_output_partial_shape(0)
    if shape.is_dynamic:
        return 0
    sizes = [size for size in shape.to_shape() if size > 1]
    count = 1
    for size in sizes:
        count *= size
    return count if len(sizes) > 1 else 0


def _layer(node: Any) -> str:
    facts = node.get_rt_info()
    return str(facts["layerType"].value) if "layerType" in facts else ""
