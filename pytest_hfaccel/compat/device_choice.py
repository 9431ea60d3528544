"""Chooses the device of a named model of a resource pool, from the caller's preferences and this machine's devices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.devices import BEST_FIRST, BUILT_IN, TORCH_KINDS, kind_named
from pytest_hfaccel.core.errors import BackendUnavailable, ConfigError
from pytest_hfaccel.core.presence import HardwareReport, Presence
from pytest_hfaccel.core.spec import Device

if TYPE_CHECKING:
    from pytest_hfaccel.hardware.confirm import Confirm, Probe

AUTO = "auto"
MB = 2**20
_KINDS = tuple(kind.name for kind in BUILT_IN.values() if kind.is_searched)
_BEST_FIRST = tuple(kind for kind in BEST_FIRST if kind in TORCH_KINDS)
_IN_BROWSER = ("webgpu", "webnn")
_PRECISIONS = ("fp64", "fp32", "fp16", "bf16")
_TORCH_PRECISIONS = {
    "float64": "fp64",
    "double": "fp64",
    "float32": "fp32",
    "float": "fp32",
    "float16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
}


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
    def parse(cls, preferences: Mapping[str, Any] | HardwarePreferences | None) -> HardwarePreferences:
        """Read the dictionary a user gives; torch's devices and dtypes count as their names, `None` as "not given".

        Raises:
            ConfigError: An unknown key, or an invalid type, device or precision.
        """
        if isinstance(preferences, HardwarePreferences):
            return preferences
        if preferences is not None and not isinstance(preferences, Mapping):
            raise ConfigError(
                f"hardware_preferences: {preferences!r} is not a dictionary.",
                hint=f'Wanted: {{"device": {str(preferences)!r}}}.',
            )
        known = sorted(each.name for each in fields(cls))
        values = {}
        for key, value in (preferences or {}).items():
            if key not in known:
                allowed = f"{_suggestion(key, known)} Allowed: {', '.join(known)}."
                raise ConfigError(f"hardware_preferences: there is no {key!r}.{allowed}")
            if value is not None:
                values[key] = _read(key, value)
        if values.get("force_device") is True:
            values["force_device"] = values.get("device", AUTO)
            if values["force_device"] == AUTO:
                raise ConfigError("hardware_preferences['force_device'] is true, but 'device' names none.")
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Return what differs from the defaults, as plain JSON."""
        default = asdict(HardwarePreferences())
        changed = {key: value for key, value in asdict(self).items() if value != default[key]}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in changed.items()}


@dataclass(frozen=True)
class Choice:
    """A device for a model.

    Attributes:
        device: The device.
        is_emulated: Whether it is a real runtime on a software adapter.
        passed_over: Device ids that were wanted more, each with the reason why it was not taken.
    """

    device: Device
    is_emulated: bool = False
    passed_over: Mapping[str, str] = field(default_factory=dict)


class Devices:
    """The devices of this machine, looked for once; those with a runtime of their own confirmed at first use.

    Args:
        probe: Looks for them (default: `pytest_hfaccel.hardware.probe_devices`).
        confirm: Has devices compute something (default: `pytest_hfaccel.hardware.confirm_devices`).
    """

    def __init__(self, probe: Probe | None = None, confirm: Confirm | None = None) -> None:
        self._probe, self._confirm = probe, confirm
        self._report: HardwareReport | None = None
        self._presences: dict[Device, Presence] = {}

    @property
    def report(self) -> HardwareReport:
        """What was seen at first use."""
        if self._report is None:
            from pytest_hfaccel.hardware import probe_devices

            self._report = (self._probe or probe_devices)()
        return self._report

    def choose(self, preferences: HardwarePreferences, subject: str = "the model") -> Choice:
        """Return the first device wanted that is there, answers and fits.

        Args:
            preferences: What is wanted.
            subject: What it is for, in the message.

        Raises:
            BackendUnavailable: None of them does; with the reason for each.
        """
        passed_over: dict[str, str] = {}
        for device in self._wanted(preferences):
            presence = self._presence(device)
            objection = _objection(presence, preferences)
            if not objection:
                return Choice(device, is_emulated(presence), passed_over)
            passed_over[device.id] = objection
        present = ", ".join(device.id for device in self.report.present())
        simulated = " 'fallback_to_simulation' accepts an emulated device, but makes none up."
        raise BackendUnavailable(
            f"{subject or 'the model'}: no device that was asked for is available.\n"
            + "\n".join(f"  {device}: {reason}" for device, reason in passed_over.items()),
            stage="load",
            hint=f"This machine has: {present}. Name others to fall back to, as in "
            "{'priority_list': ['cuda', 'cpu']}, or leave the choice to the pool with {'device': 'auto'}."
            + (simulated if preferences.fallback_to_simulation else ""),
        )

    def alternatives(self, failed: str, preferences: HardwarePreferences) -> list[str]:
        """Return the devices that torch could run the model on instead, best first.

        Args:
            failed: Id or kind of the device that it cannot have.
            preferences: What was wanted.
        """
        present = [device for kind in _BEST_FIRST for device in self.report.present() if device.kind == kind]
        others = [device for device in present if not device.matches(failed)]
        return [each.id for each in others if not incompatibility(self._presence(each), preferences.hw_compatibility)]

    def _wanted(self, preferences: HardwarePreferences) -> Iterator[Device]:
        if preferences.force_device:
            yield parse_device(preferences.force_device)
            return
        named = [*([] if preferences.device == AUTO else [preferences.device]), *preferences.priority_list] or [AUTO]
        present = {device.kind for device in self.report.present()}
        in_browser = _IN_BROWSER if preferences.browser_optimized else ()
        automatic = [*in_browser, *(kind for kind in _BEST_FIRST if kind in present)]
        for text in (text for name in named for text in (automatic if name == AUTO else [name])):
            device = parse_device(text)
            if preferences.preferred_index and ":" not in text and kind_named(device.kind).is_indexed:
                yield Device(device.kind, str(preferences.preferred_index))
            yield device

    def _presence(self, device: Device) -> Presence:
        """What is known of a device: probed, and confirmed unless it is the CPU."""
        if device not in self._presences:
            from pytest_hfaccel.hardware import confirm_devices

            presence = self.report.find(device) or Presence(device, False, "it is not looked for on this machine")
            if presence.present and device.kind != "cpu":
                # The runtime has the last word, but says nothing of kinds whose backend is not built in.
                absent = (answer for answer in (self._confirm or confirm_devices)([device]) if not answer.present)
                presence = next(absent, presence)
            self._presences[device] = presence
        return self._presences[device]


def parse_device(text: str, key: str = "device") -> Device:
    """Read a device a model can be asked for on.

    Args:
        text: What the user wrote.
        key: The preference it was written in, for the message.

    Raises:
        ConfigError: There is no such device.
    """
    kind = text.strip().lower().partition(":")[0]
    if kind not in _KINDS:
        raise ConfigError(
            f"hardware_preferences[{key!r}]: {text!r} is not a device.{_suggestion(kind, _KINDS)} "
            f"Allowed: {', '.join((AUTO, *_KINDS))}, with ':<index or name>'."
        )
    try:
        return Device.parse(text)
    except ConfigError as error:
        raise ConfigError(f"hardware_preferences[{key!r}]: {error.message}") from None


def _suggestion(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _read(key: str, value: Any) -> Any:
    """Return the value of a preference as `HardwarePreferences` has it; `force_device` may be True."""

    def required(kind: type | tuple[type, ...], wanted: str) -> Any:
        if not isinstance(value, kind):
            raise ConfigError(f"hardware_preferences[{key!r}] is {value!r}, not {wanted}.")
        return value

    match key:
        case "device":
            return _device_name(key, value)
        case "priority_list":
            return tuple(_device_name(key, each) for each in required((list, tuple), "a list of devices"))
        case "preferred_index":
            is_index = isinstance(value, int) and not isinstance(value, bool) and value >= 0
            return required(int if is_index else (), "the number of a device, counted from 0")
        case "hw_compatibility":
            return _compatibility(required(Mapping, "a dictionary from kind of device to its profile"))
        case "force_device":
            return (value or "") if isinstance(value, bool) else parse_device(str(value), key).id
        case "precision":
            return _precision(str(value))
        case "force_low_memory" | "fallback_to_simulation" | "browser_optimized":
            return required(bool, "True or False")
        case _:
            return required(str, "a text")


def _device_name(key: str, value: Any) -> str:
    text = str(value).strip()
    if text.lower() == AUTO:
        return AUTO
    device = parse_device(text, key)
    return device.id if ":" in text else device.kind


def _precision(text: str) -> str:
    """Our name of a precision; torch's names are understood, and `auto` is no precision."""
    wanted = text.lower().removeprefix("torch.")
    precision = "" if wanted == AUTO else _TORCH_PRECISIONS.get(wanted, wanted)
    if precision and precision not in _PRECISIONS:
        raise ConfigError(
            f"hardware_preferences['precision']: a model cannot be cast to {text!r}. Allowed: "
            f"{', '.join(_PRECISIONS)}.",
            hint="A quantized model is made by its constructor; leave 'precision' out for it.",
        )
    return precision


def _compatibility(profiles: Mapping[str, Any]) -> dict[str, Any]:
    for kind, profile in profiles.items():
        if not isinstance(profile, (bool, Mapping)):
            raise ConfigError(
                f"hardware_preferences['hw_compatibility.{kind}'] is {profile!r}, not True, False or a dictionary with "
                "'compatible'."
            )
    return {str(kind).lower(): profile for kind, profile in profiles.items()}


def _objection(presence: Presence, preferences: HardwarePreferences) -> str:
    """Why a device cannot be taken; empty when it can."""
    if not presence.present:
        return presence.reason
    if is_emulated(presence) and not preferences.fallback_to_simulation:
        return f"is emulated ({presence.reason}), and 'fallback_to_simulation' is not set"
    return "" if preferences.force_device else incompatibility(presence, preferences.hw_compatibility)


def is_emulated(presence: Presence) -> bool:
    """Whether a device is a real runtime on a software adapter."""
    return presence.details.get("implementation") == "emulated"


def incompatibility(presence: Presence, compatibility: Mapping[str, Any]) -> str:
    """Return why a device does not suit a model, by what the caller says of its kind; empty where it does.

    Args:
        presence: The device.
        compatibility: Kind of device -> whether the model runs there, or a profile: `compatible`, `memory_required` (MB
            of one device), `memory_usage: {"peak": MB}`. A device whose memory is not known suits.
    """
    profile = compatibility.get(presence.device.kind, {})
    if isinstance(profile, bool):
        profile = {"compatible": profile}
    if profile.get("compatible") is False:
        return "'hw_compatibility' says that the model does not run there"
    peak = profile.get("memory_required", profile.get("memory_usage", {}).get("peak"))
    if isinstance(peak, (int, float)) and presence.memory_bytes is not None and peak * MB > presence.memory_bytes:
        return f"has {presence.memory_bytes // MB} MB, and the model takes {peak} MB by 'hw_compatibility'"
    return ""
