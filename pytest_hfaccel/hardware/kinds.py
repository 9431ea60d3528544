"""The kinds of hardware by name, and the order in which they are preferred."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_hfaccel.core.errors import ConfigError

CPU = "cpu"
CUDA = "cuda"
ROCM = "rocm"
XPU = "xpu"
MPS = "mps"
OPENVINO = "openvino"
WEBGPU = "webgpu"
WEBNN = "webnn"
QUALCOMM = "qualcomm"

DEFAULT_PRIORITY = (CUDA, ROCM, XPU, MPS, OPENVINO, CPU)
"""The order of the detector's guide, which does not know XPU.

It stands with the GPUs that torch computes on, so before OpenVINO, which must convert a model first; Intel's GPUs and
Apple's (MPS) are never in one machine. What runs in a browser is chosen only by name.
"""

HARDWARE_TYPES = (*DEFAULT_PRIORITY, WEBGPU, WEBNN, QUALCOMM)
"""All kinds a detection answers for, preferred ones first."""


def require_kinds(names: Iterable[str], place: str) -> list[str]:
    """Return the names as a list.

    Args:
        names: Kinds of hardware.
        place: What they were given as, for the message.

    Raises:
        ConfigError: One of them is not a kind of hardware.
    """
    kinds = list(names)
    unknown = [name for name in kinds if name not in HARDWARE_TYPES]
    if unknown:
        names_given = ", ".join(map(repr, unknown))
        raise ConfigError(
            f"{place}: {names_given} is not a kind of hardware. Allowed: {', '.join(HARDWARE_TYPES)}.",
            hint="A device of a kind is chosen by its index (preferred_index), not by its name.",
        )
    return kinds
