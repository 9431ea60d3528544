"""The weights of a converted model: rounded to 8 bits by NNCF, or one of them made wrong for the canary."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov
from openvino import opset14 as ops

from pytest_hfaccel.backends.exported import ConstantMerged
from pytest_hfaccel.core.errors import BackendUnavailable, LoadError
from pytest_hfaccel.upstream.openvino import send_no_telemetry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pytest_hfaccel.backends.base import WeightChange

    Array = NDArray[np.float32]


MODE = "int8_asym"
"""NNCF's default for 8 bits, named so that a change of the default does not go unnoticed: one scale and one zero point
per output channel."""

_INSTALL = "pip install 'pytest-hfaccel[openvino]' installs it."


def require_nncf(device: str) -> None:
    """Make sure that weights can be compressed here.

    Raises:
        BackendUnavailable: NNCF is not installed.
    """
    if find_spec("nncf") is None:
        raise BackendUnavailable(
            f"{device}: int8 needs NNCF, which rounds the weights, and it is not installed.",
            stage="convert",
            hint=_INSTALL,
        )


def compress(program: ov.Model, architecture: str) -> ov.Model:
    """Round a converted model's weights to 8 bits; the model given is used up.

    Args:
        program: The converted model, its weights in fp32.
        architecture: The model's class, for messages.

    Raises:
        LoadError: NNCF could not.
    """
    send_no_telemetry()
    with _quiet():
        import nncf
        from transformers.exporters import NNCFOpenVINOQuantizer, NNCFWeightCompressionConfig
        from transformers.exporters.configs import ExportFormat

        quantizer = NNCFOpenVINOQuantizer(NNCFWeightCompressionConfig(mode=nncf.CompressWeightsMode(MODE)))
        try:
            return quantizer.quantize(program, {}, ExportFormat.OPENVINO)
        except Exception as error:
            raise LoadError(
                f"{architecture}: NNCF cannot round the weights to 8 bits: {type(error).__name__}: {error}",
                stage="convert",
            ) from error


def compression_facts() -> dict[str, Any]:
    """Return what made the weights: the package, its version and its mode."""
    from importlib.metadata import version

    return {"package": f"nncf {version('nncf')}", "mode": MODE}


@contextlib.contextmanager
def _quiet() -> Any:
    """Keep NNCF's tables and progress bars out of the test run.

    Its handler keeps the stdout of the moment it is imported; that of a captured test is closed later. So the import
    happens in here, too.
    """
    logger = logging.getLogger("nncf")
    level = logger.level
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


_ROUNDING = 1e-6
"""Relative difference that one fp32 multiplication can make, with room."""


def edit_constant(program: ov.Model, weights: Mapping[str, Any], change: WeightChange) -> ov.Model:
    """Return a copy of a converted model with one weight changed.

    Args:
        program: The converted model; it is left as it is.
        weights: The transformers model's parameters and buffers by name (torch tensors on the CPU).
        change: Which weight to change.

    Raises:
        ConstantMerged: No constant, or no single parameter, has these values.
    """
    original = weights[change.parameter].detach().numpy()
    if _is_ambiguous(weights, change.parameter):
        raise ConstantMerged(f"another weight has the same values as {change.parameter}")
    place = np.unravel_index(change.index, original.shape)
    changed = original.copy()
    changed[place] += change.delta
    copy = program.clone()
    found = _replacements(copy, original, changed)
    if not found:
        raise ConstantMerged(f"no constant has the values of {change.parameter}")
    for node, values in found:
        _replace(node, values)
    copy.validate_nodes_and_infer_types()
    return copy


def holds_weight(program: ov.Model, weights: Mapping[str, Any], name: str) -> bool:
    """Return whether `edit_constant` can change a weight.

    Args:
        program: The converted model.
        weights: The transformers model's parameters and buffers by name (torch tensors on the CPU).
        name: The weight's name.
    """
    original = weights[name].detach().numpy()
    return not _is_ambiguous(weights, name) and bool(_replacements(program, original, original))


def _replacements(program: ov.Model, original: Array, changed: Array) -> list[tuple[Any, Array]]:
    """Return the constants that hold a weight, each with its new values."""
    constants = [op for op in program.get_ordered_ops() if op.get_type_name() == "Constant"]
    for values_of in (_equal, _proportional):
        replacements = [(node, values_of(node, original, changed)) for node in constants if _can_hold(node, original)]
        found = [(node, values) for node, values in replacements if values is not None]
        if found:
            return found
    return []


def _can_hold(node: Any, original: Array) -> bool:
    return bool(node.get_byte_size() == original.nbytes and node.get_element_type() == ov.Type.f32)


def _equal(node: Any, original: Array, changed: Array) -> Array | None:
    """Return the new values of a constant that is the weight: as it is, transposed or in another shape."""
    found = node.data
    for old, new in ((original, changed), (original.T, changed.T)):
        if np.array_equal(found.ravel(), old.ravel()):
            return new.reshape(found.shape)
    return None


def _proportional(node: Any, original: Array, changed: Array) -> Array | None:
    """Return the new values of a constant that is the weight times a number the converter merged into it."""
    found = node.data
    for old, new in ((original, changed), (original.T, changed.T)):
        largest = int(np.abs(old).argmax())
        if old.ravel()[largest] == 0 or np.ptp(old) == 0:
            return None
        scale = found.ravel()[largest] / old.ravel()[largest]
        if np.allclose(found.ravel(), scale * old.ravel(), rtol=_ROUNDING, atol=0):
            scaled: Array = (scale * new).reshape(found.shape)
            return scaled
    return None


def _replace(node: Any, values: Array) -> None:
    constant = ops.constant(values.astype(np.float32), dtype=node.get_element_type())
    constant.set_friendly_name(node.get_friendly_name())
    node.output(0).replace(constant.output(0))


def _is_ambiguous(weights: Mapping[str, Any], name: str) -> bool:
    wanted = weights[name]
    return any(
        other.data_ptr() != wanted.data_ptr() and other.shape == wanted.shape and bool((other == wanted).all())
        for key, other in weights.items()
        if key != name
    )
