"""Whether a model's requirements leave a kind of hardware to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_hfaccel.core.presence import HardwareReport
from pytest_hfaccel.hardware.answers import present_of
from pytest_hfaccel.hardware.kinds import HARDWARE_TYPES, require_kinds

MB = 2**20


def fitting_kinds(report: HardwareReport, requirements: Mapping[str, Any]) -> list[str]:
    """Return the kinds of hardware that are there and do for a model, preferred ones first.

    Args:
        report: Confirmed devices.
        requirements: By kind of hardware: `memory_required` (MB of 2**20 bytes, of one device),
            `memory_usage: {"peak": MB}` (the same, as hardware profiles have it), `compatible` (`False` excludes the
            kind), or `False` alone. A kind without an entry has no requirements.

    Raises:
        ConfigError: A key is not a kind of hardware.
    """
    require_kinds(requirements, "model_requirements")
    return [kind for kind in HARDWARE_TYPES if _fits(report, kind, requirements.get(kind, {}))]


def _fits(report: HardwareReport, kind: str, required: Any) -> bool:
    found = present_of(report, kind)
    if not found or required is False:
        return False
    if not isinstance(required, Mapping):
        return True
    if required.get("compatible") is False:
        return False
    wanted_mb = required.get("memory_required", required.get("memory_usage", {}).get("peak", 0))
    # A device whose memory is not known is not excluded: the load decides.
    return any(presence.memory_bytes is None or wanted_mb * MB <= presence.memory_bytes for presence in found)
