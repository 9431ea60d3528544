"""The hardware preferences of a model: read once, checked, and typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from typing import Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.spec import Device

AUTO = "auto"
KINDS = ("cpu", "cuda", "rocm", "mps", "xpu", "openvino", "webgpu", "webnn", "wasm")
"""The kinds of device a model of the pool can be asked for on."""

_PRECISIONS = {
    "fp64": ("float64", "double"),
    "fp32": ("float32", "float"),
    "fp16": ("float16", "half"),
    "bf16": ("bfloat16",),
}
"""Our name of a precision -> torch's names of it."""


@dataclass(frozen=True)
class HardwarePreferences:
    """Where and how a model should be held.

    Attributes:
        device: `auto`, or a device: `cpu`, `cuda`, `cuda:1`, `mps`, `openvino:GPU`, `webgpu`, ...
        priority_list: Devices to try in this order, after `device` where both are given.
        preferred_index: Which device of its kind, for those named without an index; index 0 where it is absent.
        hw_compatibility: Kind of device -> `{"compatible": bool, "memory_usage": {"peak": MB}}`, or a bool. Devices
            that are not compatible, or smaller than the peak, are passed over.
        force_device: Exactly this device, whatever the fields above say.
        force_low_memory: Treat this model as in low-memory mode.
        precision: `fp64`, `fp32`, `fp16` or `bf16`; empty: as the constructor made it.
        model_family: Family of the model, for the records.
        subfamily: Subfamily of the model, for the records.
        fallback_to_simulation: Accept a device that is emulated; it is labelled so. Nothing is simulated besides.
        browser_optimized: With `auto`, try the browser's devices first.
        description: A text for the records.
    """

    device: str = AUTO
    priority_list: tuple[str, ...] = ()
    preferred_index: int | None = None
    hw_compatibility: Mapping[str, Any] = field(default_factory=dict, hash=False)
    force_device: str = ""
    force_low_memory: bool = False
    precision: str = ""
    model_family: str = ""
    subfamily: str = ""
    fallback_to_simulation: bool = False
    browser_optimized: bool = False
    description: str = ""

    @classmethod
    def parse(cls, given: Mapping[str, Any] | HardwarePreferences | None) -> HardwarePreferences:
        """Read the dictionary a user gives; torch's devices and dtypes count as their names, `None` as "not given".

        Raises:
            ConfigError: A key, a type, a device or a precision that cannot be.
        """
        if isinstance(given, HardwarePreferences):
            return given
        if given is not None and not isinstance(given, Mapping):
            raise ConfigError(
                f"hardware_preferences: {given!r} is not a dictionary.", hint=f'Wanted: {{"device": {str(given)!r}}}.'
            )
        known = {each.name for each in fields(cls)}
        values = {}
        for key, value in (given or {}).items():
            if key not in known:
                raise _unknown_key(key, sorted(known))
            if value is not None:
                values[key] = _READERS.get(key, _text)(key, value)
        if values.get("force_device") == "true":
            values["force_device"] = values.get("device", AUTO)
            if values["force_device"] == AUTO:
                raise ConfigError("hardware_preferences['force_device'] is true, but 'device' names none.")
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Return what differs from the defaults, as plain JSON."""
        default = asdict(HardwarePreferences())
        found = {key: value for key, value in asdict(self).items() if value != default[key]}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}


def parse_device(text: str, key: str = "device") -> Device:
    """Read a device a model can be asked for on.

    Args:
        text: What the user wrote.
        key: The preference it was written in, for the message.

    Raises:
        ConfigError: It is none.
    """
    kind = text.strip().lower().partition(":")[0]
    if kind not in KINDS:
        near = get_close_matches(kind, KINDS, n=1)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"hardware_preferences[{key!r}]: {text!r} is not a device.{guess} "
            f"Allowed: {', '.join((AUTO, *KINDS))}, with ':<index or name>'."
        )
    try:
        return Device.parse(text)
    except ConfigError as error:
        raise ConfigError(f"hardware_preferences[{key!r}]: {error.message}") from None


def parse_precision(text: str) -> str:
    """Return our name of a precision; torch's names are understood, and `auto` is no precision.

    Raises:
        ConfigError: A model cannot be cast to it.
    """
    wanted = text.lower().removeprefix("torch.")
    if wanted in ("", AUTO):
        return ""
    for ours, theirs in _PRECISIONS.items():
        if wanted in (ours, *theirs):
            return ours
    raise ConfigError(
        f"hardware_preferences['precision']: a model cannot be cast to {text!r}. Allowed: {', '.join(_PRECISIONS)}.",
        hint="A quantized model is made by its constructor; leave 'precision' out for it.",
    )


def _unknown_key(key: str, known: list[str]) -> ConfigError:
    near = get_close_matches(key, known, n=1)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    return ConfigError(f"hardware_preferences: there is no {key!r}.{guess} Allowed: {', '.join(known)}.")


def _wrong(key: str, value: Any, wanted: str) -> ConfigError:
    return ConfigError(f"hardware_preferences[{key!r}] is {value!r}, not {wanted}.")


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(key, value, "a text")
    return value


def _flag(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(key, value, "True or False")
    return value


def _index(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _wrong(key, value, "the number of a device, counted from 0")
    return value


def _device(key: str, value: Any) -> str:
    text = str(value).strip()
    return AUTO if text.lower() == AUTO else parse_device(text, key).id if ":" in text else _kind(key, text)


def _kind(key: str, text: str) -> str:
    parse_device(text, key)
    return text.lower()


def _forced(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else ""
    return parse_device(str(value), key).id


def _devices(key: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
        raise _wrong(key, value, "a list of devices")
    return tuple(_device(key, each) for each in value)


def _compatibility(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(key, value, "a dictionary from kind of device to its profile")
    for kind, profile in value.items():
        if not isinstance(profile, (bool, Mapping)):
            raise _wrong(f"{key}.{kind}", profile, "True, False or a dictionary with 'compatible'")
    return {str(kind).lower(): profile for kind, profile in value.items()}


_READERS: dict[str, Any] = {
    "device": _device,
    "priority_list": _devices,
    "preferred_index": _index,
    "hw_compatibility": _compatibility,
    "force_device": _forced,
    "force_low_memory": _flag,
    "precision": lambda _, value: parse_precision(str(value)),
    "fallback_to_simulation": _flag,
    "browser_optimized": _flag,
}
