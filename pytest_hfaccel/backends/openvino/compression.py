"""Weight-only int8: NNCF rounds the weights of a converted model to 8 bits, driven by transformers' own quantizer.

NNCF's int8 mode looks at the weights alone: it needs no calibration data and gives the same weights every time. All
that is not a weight of a product, an embedding or a convolution stays in fp32.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.errors import BackendUnavailable, LoadError
from pytest_hfaccel.upstream.openvino import send_no_telemetry

if TYPE_CHECKING:
    import openvino as ov

INT8 = "int8"
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
