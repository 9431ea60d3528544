"""Chooses the device of a named model of a resource pool, from the caller's preferences and this machine's devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.devices import BEST_FIRST, BUILT_IN, TORCH_KINDS, kind_named
from pytest_hfaccel.core.errors import BackendUnavailable, ConfigError
from pytest_hfaccel.core.spec import Device

if TYPE_CHECKING:
    from pytest_hfaccel.core.presence import HardwareReport, Presence

AUTO = "auto"
KINDS = tuple(kind.name for kind in BUILT_IN.values() if kind.is_searched)
"""The kinds of device a model of the pool can be asked for on."""

MB = 2**20
_BEST_FIRST = tuple(kind for kind in BEST_FIRST if kind in TORCH_KINDS)
_IN_BROWSER = ("webgpu", "webnn")

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
        known = {each.name for each in fields(cls)}
        values = {}
        for key, value in (preferences or {}).items():
            if key not in known:
                raise _unknown_key(key, sorted(known))
            if value is not None:
                values[key] = _READERS.get(key, _TEXT)(key, value)
        if values.get("force_device") == "true":
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

    def __init__(
        self,
        probe: Callable[[], HardwareReport] | None = None,
        confirm: Callable[[Iterable[Device]], list[Presence]] | None = None,
    ) -> None:
        self._probe, self._confirm = probe, confirm
        self._report: HardwareReport | None = None
        self._found: dict[Device, Presence] = {}

    @property
    def report(self) -> HardwareReport:
        """What was found at first use."""
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
            objection = self.objection(device, preferences)
            if not objection:
                return Choice(device, _is_emulated(self._presence(device)), passed_over)
            passed_over[device.id] = objection
        raise BackendUnavailable(
            f"{subject or 'the model'}: no device that was asked for is available.\n"
            + "\n".join(f"  {device}: {reason}" for device, reason in passed_over.items()),
            stage="load",
            hint=self._advice(preferences),
        )

    def objection(self, device: Device, preferences: HardwarePreferences) -> str:
        """Why a device cannot be taken; empty when it can."""
        presence = self._presence(device)
        if not presence.present:
            return presence.reason
        if _is_emulated(presence) and not preferences.fallback_to_simulation:
            return f"is emulated ({presence.reason}), and 'fallback_to_simulation' is not set"
        return "" if preferences.force_device else _incompatible(presence, preferences.hw_compatibility)

    def alternatives(self, failed: str, preferences: HardwarePreferences) -> list[str]:
        """Return the devices that torch could run the model on instead, best first.

        Args:
            failed: Id or kind of the device that it cannot have.
            preferences: What was wanted.
        """
        present = [device for kind in _BEST_FIRST for device in self.report.present() if device.kind == kind]
        others = [device for device in present if not device.matches(failed)]
        return [each.id for each in others if not _incompatible(self._presence(each), preferences.hw_compatibility)]

    def _wanted(self, preferences: HardwarePreferences) -> Iterator[Device]:
        if preferences.force_device:
            yield parse_device(preferences.force_device)
            return
        named = [*([] if preferences.device == AUTO else [preferences.device]), *preferences.priority_list] or [AUTO]
        for name in named:
            for text in self._automatic(preferences) if name == AUTO else [name]:
                yield from _with_index(text, preferences.preferred_index)

    def _automatic(self, preferences: HardwarePreferences) -> Iterator[str]:
        yield from _IN_BROWSER if preferences.browser_optimized else ()
        kinds = {device.kind for device in self.report.present()}
        yield from (kind for kind in _BEST_FIRST if kind in kinds)

    def _presence(self, device: Device) -> Presence:
        """What is known of a device: probed, and confirmed unless it is the CPU."""
        if device in self._found:
            return self._found[device]
        from pytest_hfaccel.core.presence import Presence
        from pytest_hfaccel.hardware import confirm_devices

        probed = self.report.find(device) or Presence(device, False, "it is not looked for on this machine")
        if probed.present and device.kind != "cpu":
            # The runtime has the last word, but says nothing of kinds whose backend is not built in.
            confirmed = (self._confirm or confirm_devices)([device])
            if confirmed and not confirmed[0].present:
                probed = confirmed[0]
        self._found[device] = probed
        return probed

    def _advice(self, preferences: HardwarePreferences) -> str:
        present = ", ".join(device.id for device in self.report.present())
        simulated = " 'fallback_to_simulation' accepts an emulated device, but makes none up."
        return (
            f"This machine has: {present}. Name others to fall back to, as in {{'priority_list': ['cuda', 'cpu']}}, or "
            f"leave the choice to the pool with {{'device': 'auto'}}."
            + (simulated if preferences.fallback_to_simulation else "")
        )


def _with_index(text: str, index: int | None) -> list[Device]:
    """The devices a name stands for, wanted one first: without an index of its own, it takes the preferred one."""
    device = parse_device(text)
    if index and ":" not in text and kind_named(device.kind).is_indexed:
        return [Device(device.kind, str(index)), device]
    return [device]


def _is_emulated(presence: Presence) -> bool:
    return presence.details.get("implementation") == "emulated"


def _incompatible(presence: Presence, compatibility: Mapping[str, Any]) -> str:
    profile = compatibility.get(presence.device.kind, {})
    if profile is False or (isinstance(profile, Mapping) and profile.get("compatible") is False):
        return "'hw_compatibility' says that the model does not run there"
    peak = profile.get("memory_usage", {}).get("peak") if isinstance(profile, Mapping) else None
    if isinstance(peak, (int, float)) and presence.memory_bytes is not None and peak * MB > presence.memory_bytes:
        return f"has {presence.memory_bytes // MB} MB, and the model takes {peak} MB by 'hw_compatibility'"
    return ""


def parse_device(text: str, key: str = "device") -> Device:
    """Read a device a model can be asked for on.

    Args:
        text: What the user wrote.
        key: The preference it was written in, for the message.

    Raises:
        ConfigError: There is no such device.
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


def _instance_of(allowed: type, wanted: str) -> Callable[[str, Any], Any]:
    def read(key: str, value: Any) -> Any:
        if not isinstance(value, allowed):
            raise _wrong(key, value, wanted)
        return value

    return read


def _index(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _wrong(key, value, "the number of a device, counted from 0")
    return value


def _device(key: str, value: Any) -> str:
    text = str(value).strip()
    if text.lower() == AUTO:
        return AUTO
    device = parse_device(text, key)
    return device.id if ":" in text else device.kind


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


_TEXT, _FLAG = _instance_of(str, "a text"), _instance_of(bool, "True or False")
_READERS: dict[str, Any] = {
    "device": _device,
    "priority_list": _devices,
    "preferred_index": _index,
    "hw_compatibility": _compatibility,
    "force_device": _forced,
    "force_low_memory": _FLAG,
    "precision": lambda _, value: parse_precision(str(value)),
    "fallback_to_simulation": _FLAG,
    "browser_optimized": _FLAG,
}
