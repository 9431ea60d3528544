"""The second step: the runtimes are loaded, and each device computes something."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pytest_hfaccel.core.errors import BackendUnavailable, HfAccelError
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware.presence import Presence


def confirm_devices(devices: Iterable[Device]) -> list[Presence]:
    """Compute a small matrix product in fp32 on each device. Loads the runtimes, which takes seconds.

    Returns:
        One entry per device: present if the product was right, else with the reason. A device of a kind whose backend
        is not built in (`fake`, third-party kinds) is left out: only its backend knows it.
    """
    return [_confirm(device) for device in devices if device.kind in _CONFIRMERS]


def _confirm(device: Device) -> Presence:
    try:
        facts = _CONFIRMERS[device.kind](device)
    except ImportError as error:
        return Presence(device, False, f"its runtime cannot be imported: {error}")
    except HfAccelError as error:
        return Presence(device, False, error.message)
    known = {key: value for key, value in facts.items() if key not in ("name", "memory_bytes")}
    reason = "computed a matrix product in fp32"
    return Presence(device, True, reason, str(facts.get("name", "")), facts.get("memory_bytes"), known)


def _by_torch(device: Device) -> dict[str, Any]:
    from pytest_hfaccel.backends.torch.devices import confirm_device

    return confirm_device(device, "fp32")


def _by_openvino(device: Device) -> dict[str, Any]:
    from pytest_hfaccel.backends.openvino.device import device_facts, require_device
    from pytest_hfaccel.backends.openvino.precision import confirm_precision

    require_device(device)
    confirm_precision(device, "fp32")
    return device_facts(device)


def _by_nobody(device: Device) -> dict[str, Any]:
    raise BackendUnavailable(f"no backend in this version runs models on {device.kind}")


_CONFIRMERS: dict[str, Callable[[Device], dict[str, Any]]] = {
    **dict.fromkeys(("cpu", "cuda", "rocm", "mps", "xpu"), _by_torch),
    "openvino": _by_openvino,
    **dict.fromkeys(("webgpu", "webnn", "wasm"), _by_nobody),
}
