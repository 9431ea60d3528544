"""The precision OpenVINO really computes at, read back from what it compiled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import openvino as ov

from pytest_hfaccel.backends.base import INT8
from pytest_hfaccel.backends.openvino.device import capabilities, compile_options, core, read_property
from pytest_hfaccel.core.errors import BackendUnavailable, LoadError
from pytest_hfaccel.core.spec import Device

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


HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", INT8: "f32"}
"""OpenVINO's names of our dtypes: the precision of its arithmetic. At int8 only the weights have 8 bits."""

_NAMES = {hint: dtype for dtype, hint in HINTS.items() if dtype != INT8}
_PROBE_SIZE = 16


def hint_of(dtype: str, device: Device) -> str:
    """Return OpenVINO's name of a dtype.

    Raises:
        BackendUnavailable: This backend does not run at that dtype.
    """
    if dtype not in HINTS:
        raise BackendUnavailable(
            f"{device}: the OpenVINO backend cannot run at {dtype}. Allowed: {', '.join(HINTS)}.", stage="compile"
        )
    return HINTS[dtype]


def effective_dtype(compiled: Any, asked: str) -> str:
    """Return the dtype a compiled model computes at; asked for int8, that of the weights of its matrix products.

    Devices that choose among others (AUTO) hide the property; there the executed graph's own nodes are asked.

    Args:
        compiled: The compiled model.
        asked: The dtype that was asked for.
    """
    if asked == INT8:
        return dtype_of_products(compiled)
    readback = read_property(compiled, "INFERENCE_PRECISION_HINT")
    if readback is not None:
        name = str(readback.get_type_name())
        return _NAMES.get(name, name)
    found = {_NAMES[name] for name in runtime_precisions(compiled) if name in _NAMES}
    if asked in found:
        return asked
    return found.pop() if len(found) == 1 else "mixed"


def runtime_precisions(compiled: Any) -> dict[str, int]:
    """Count the executed graph's nodes by the precision they run at; constants are not counted."""
    counts: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ordered_ops():
        facts = node.get_rt_info()
        if "runtimePrecision" in facts and facts["layerType"].value != "Const":
            counts[str(facts["runtimePrecision"].value)] += 1
    return dict(counts)


def require_precision(compiled: Any, device: Device, asked: str) -> None:
    """Make sure that a compiled model computes at the asked dtype.

    Raises:
        BackendUnavailable: The runtime fell back to another precision.
    """
    real = effective_dtype(compiled, asked)
    if real != asked and asked == INT8:
        raise BackendUnavailable(
            f"{device}: asked for int8, but the weights of matrix products in the executed graph are {real}: "
            f"{product_weights(compiled) or 'none'} (elements by type).",
            stage="compile",
            hint="A model without matrix products, or a device whose plugin unpacks their weights, has no int8.",
        )
    if real != asked:
        raise BackendUnavailable(
            f"{device}: asked for {asked}, but the runtime would compute at {real} without saying so. Capabilities of "
            f"the device: {', '.join(capabilities(device)) or 'not told'}.",
            stage="compile",
            hint=f"Test it at {real} (--hf-dtype {real}), or on a device whose capabilities include {asked.upper()}.",
        )


@lru_cache(maxsize=64)
def confirm_precision(device: Device, dtype: str) -> None:
    """Compile and run one matrix product on a device at a dtype, which takes milliseconds where a model takes seconds.

    For int8 it is one at the precision of its arithmetic: whether weights stay small is asked of the model itself.

    Raises:
        BackendUnavailable: The device would compute at another precision.
        LoadError: The device cannot compile or run at all.
    """
    import numpy as np
    from openvino import opset14 as ops

    ones = np.ones((_PROBE_SIZE, _PROBE_SIZE), dtype=np.float32)
    parameter = ops.parameter(list(ones.shape), ov.Type.f32)
    probe = ov.Model([ops.matmul(parameter, ops.constant(ones), False, False)], [parameter], "probe")
    try:
        compiled = core().compile_model(probe, device.target, compile_options(device, hint_of(dtype, device)))
        total = float(next(iter(compiled(ones).values())).sum())
    except RuntimeError as error:
        raise LoadError(
            f"{device}: a product of two matrices cannot be compiled or run: {_last_line(error)}", stage="compile"
        ) from error
    require_precision(compiled, device, _NAMES[hint_of(dtype, device)])
    if total != _PROBE_SIZE**3:
        raise LoadError(
            f"{device}: a product of two matrices of ones sums to {total}, not {_PROBE_SIZE**3}", stage="compile"
        )


def _last_line(error: Exception) -> str:
    """Return the line of OpenVINO's message that says something: the first ones name its source files."""
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
