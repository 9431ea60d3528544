"""Devices that are reached through a browser."""

from __future__ import annotations

from pytest_hfaccel.core.presence import Presence
from pytest_hfaccel.core.spec import Device


def probe_browser() -> list[Presence]:
    """Say why there are none."""
    reason = "no backend in this version runs models in a browser"
    return [Presence(Device(kind), False, reason) for kind in ("webgpu", "webnn", "wasm")]
