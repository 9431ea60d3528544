"""The second step: the runtimes are loaded, and each device computes something."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_hfaccel.backends import Backends
from pytest_hfaccel.core.errors import HfAccelError
from pytest_hfaccel.core.presence import Presence
from pytest_hfaccel.core.spec import Device


def confirm_devices(devices: Iterable[Device], backends: Backends | None = None) -> list[Presence]:
    """Compute a small matrix product in fp32 on each device. Loads the runtimes, which takes seconds.

    Args:
        devices: The devices.
        backends: Whom to ask (default: the built-in ones and those from entry points).

    Returns:
        One entry per device: present if the product was right, else with the reason. A device whose backend cannot
        confirm it (`fake`, some third-party kinds) is left out.
    """
    backends = Backends() if backends is None else backends
    answers = (_confirm(device, backends) for device in devices)
    return [answer for answer in answers if answer is not None]


def _confirm(device: Device, backends: Backends) -> Presence | None:
    try:
        confirm = getattr(backends.for_kind(device.kind), "confirm", None)
        if confirm is None:
            return None
        facts = confirm(device)
    except ImportError as error:
        return Presence(device, False, f"its runtime cannot be imported: {error}")
    except HfAccelError as error:
        return Presence(device, False, error.message)
    details = {key: value for key, value in facts.items() if key not in ("name", "memory_bytes")}
    reason = "computed a matrix product in fp32"
    return Presence(device, True, reason, str(facts.get("name", "")), facts.get("memory_bytes"), details)
