"""The weights of a converted model: rounded to 8 bits by NNCF, or one of them made wrong for the canary."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov
from openvino import opset14 as ops

from pytest_hfaccel.backends.exported import constants
from pytest_hfaccel.core.errors import BackendUnavailable, LoadError
from pytest_hfaccel.upstream import errors_only
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
    with contextlib.redirect_stdout(io.StringIO()), errors_only("nncf"):
        yield


def edit_constant(program: ov.Model, weights: Mapping[str, Any], change: WeightChange) -> ov.Model:
    """Return a copy of a converted model with one weight changed; see `ExportedRuntime.edit_constant`."""
    copy = program.clone()
    for node, values in constants.replacements_for(change, weights, _constants_in_fp32(copy), _values):
        constant = ops.constant(values.astype(np.float32), dtype=node.get_element_type())
        constant.set_friendly_name(node.get_friendly_name())
        node.output(0).replace(constant.output(0))
    copy.validate_nodes_and_infer_types()
    return copy


def holds_weight(program: ov.Model, weights: Mapping[str, Any], name: str) -> bool:
    """Return whether `edit_constant` can change a weight."""
    return constants.holds_weight(name, weights, _constants_in_fp32(program), _values)


def _constants_in_fp32(program: ov.Model) -> list[Any]:
    return [
        node
        for node in program.get_ordered_ops()
        if node.get_type_name() == "Constant" and node.get_element_type() == ov.Type.f32
    ]


def _values(node: Any) -> Array:
    values: Array = node.data
    return values
