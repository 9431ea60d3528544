"""Which device a model goes to, and why not to another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.errors import BackendUnavailable
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.pool.preferences import AUTO, HardwarePreferences, parse_device

if TYPE_CHECKING:
    from pytest_hfaccel.hardware import HardwareReport, Presence

MB = 2**20

_BEST_FIRST = ("cuda", "rocm", "xpu", "mps", "cpu")
"""The kinds torch runs on, in the order in which `pytest_hfaccel.hardware` prefers them."""
_IN_BROWSER = ("webgpu", "webnn")
_INDEXED = ("cuda", "rocm", "xpu")


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
            f"{subject or 'the model'}: no device that was asked for can be had.\n"
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
        here = [device for kind in _BEST_FIRST for device in self.report.present() if device.kind == kind]
        others = [device for device in here if not device.matches(failed)]
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
        here = {device.kind for device in self.report.present()}
        yield from (kind for kind in _BEST_FIRST if kind in here)

    def _presence(self, device: Device) -> Presence:
        """What is known of a device: probed, and confirmed unless it is the CPU."""
        if device in self._found:
            return self._found[device]
        from pytest_hfaccel.hardware import Presence, confirm_devices

        probed = self.report.find(device) or Presence(device, False, "it is not looked for on this machine")
        if probed.present and device.kind != "cpu":
            # The runtime has the last word, but says nothing of kinds whose backend is not built in.
            confirmed = (self._confirm or confirm_devices)([device])
            if confirmed and not confirmed[0].present:
                probed = confirmed[0]
        self._found[device] = probed
        return probed

    def _advice(self, preferences: HardwarePreferences) -> str:
        here = ", ".join(device.id for device in self.report.present())
        simulated = " 'fallback_to_simulation' accepts an emulated device, but makes none up."
        return (
            f"This machine has: {here}. Name others to fall back to, as in {{'priority_list': ['cuda', 'cpu']}}, or "
            f"leave the choice to the pool with {{'device': 'auto'}}."
            + (simulated if preferences.fallback_to_simulation else "")
        )


def _with_index(text: str, index: int | None) -> list[Device]:
    """The devices a name stands for, wanted one first: without an index of its own, it takes the preferred one."""
    device = parse_device(text)
    if index and ":" not in text and device.kind in _INDEXED:
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
