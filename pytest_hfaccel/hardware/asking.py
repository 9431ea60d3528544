"""Asking the runtimes, once for as long as nothing changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from pytest_hfaccel.core.presence import HardwareReport, Presence
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware.answers import confirmed_report, devices_to_confirm
from pytest_hfaccel.hardware.cache import ConfirmationCache
from pytest_hfaccel.hardware.cache_key import cache_key
from pytest_hfaccel.hardware.confirm import confirm_devices
from pytest_hfaccel.hardware.probe import probe_devices

Probe = Callable[[], HardwareReport]
Confirm = Callable[[Iterable[Device]], list[Presence]]


def ask_runtimes(
    cache_file: str | os.PathLike[str] | None = None,
    *,
    force_refresh: bool = False,
    probe: Probe | None = None,
    confirm: Confirm | None = None,
) -> HardwareReport:
    """Return the devices of this machine, each present only if its runtime answered.

    Args:
        cache_file: File in which answers are kept; none are without it.
        force_refresh: Ask whatever the file says, and write it anew.
        probe: Looks for devices by cheap signs (default: `probe_devices`).
        confirm: Has devices compute something (default: `confirm_devices`).
    """
    probed = (probe or probe_devices)()
    seen = [presence.device for presence in devices_to_confirm(probed)]
    cache = None if cache_file is None else ConfirmationCache(cache_file)
    key = cache_key(probed)
    known = cache.read(key) if cache is not None and not force_refresh else []
    answers = {answer.device: answer for answer in known if answer.present}
    unasked = [device for device in seen if device not in answers]
    if unasked:
        answers.update((answer.device, answer) for answer in (confirm or confirm_devices)(unasked))
    if cache is not None and (unasked or force_refresh):
        cache.write(key, [answer for answer in answers.values() if answer.present])
    return confirmed_report(probed, answers.values())
