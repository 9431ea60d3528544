"""The detector: what hardware this machine has, and which of it to take."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any

from pytest_hfaccel.core.presence import HardwareReport
from pytest_hfaccel.hardware.answers import absence_reasons, availability, details_of
from pytest_hfaccel.hardware.asking import Confirm, Probe, ask_runtimes
from pytest_hfaccel.hardware.fitting import fitting_kinds
from pytest_hfaccel.hardware.kinds import CPU, CUDA, DEFAULT_PRIORITY, require_kinds
from pytest_hfaccel.hardware.summary import format_summary
from pytest_hfaccel.hardware.torch_devices import torch_device_of


class HardwareDetector:
    """What hardware this machine has, found out at first use; may be used by several threads.

    A kind of hardware is available only when its runtime was loaded and has computed something. That takes seconds
    where there is more than a CPU; with a cache, milliseconds from the second time on.

    Args:
        cache_file: File in which the runtimes' answers are kept.
        force_refresh: Ask the runtimes whatever that file says.
        probe: Looks for devices by cheap signs (default: `probe_devices`).
        confirm: Has devices compute something (default: `confirm_devices`).
    """

    def __init__(
        self,
        cache_file: str | os.PathLike[str] | None = None,
        force_refresh: bool = False,
        *,
        probe: Probe | None = None,
        confirm: Confirm | None = None,
    ) -> None:
        self._cache_file, self._force_refresh = cache_file, force_refresh
        self._probe, self._confirm = probe, confirm
        self._lock = Lock()
        self._report: HardwareReport | None = None
        self._not_taken: dict[str, str] = {}

    @property
    def report(self) -> HardwareReport:
        """Every device that was looked for; present are those whose runtime answered."""
        with self._lock:
            if self._report is None:
                self._report = ask_runtimes(
                    self._cache_file, force_refresh=self._force_refresh, probe=self._probe, confirm=self._confirm
                )
            return self._report

    def get_available_hardware(self) -> dict[str, bool]:
        """Return every kind of hardware and whether it is available."""
        return availability(self.report)

    def get_hardware_details(self) -> dict[str, dict[str, Any]]:
        """Return `device_count` and `devices` of each kind that is available (see `details_of`)."""
        return {kind: details_of(self.report, kind) for kind, here in self.get_available_hardware().items() if here}

    def get_cuda_details(self) -> dict[str, Any]:
        """Return `available`, `device_count`, `devices` and `reason`, which is empty when CUDA is available."""
        reason = "" if self.is_available(CUDA) else self.get_errors()[CUDA]
        return {"available": not reason, **details_of(self.report, CUDA), "reason": reason}

    def get_errors(self) -> dict[str, str]:
        """Return why something is not available or was not taken: by kind of hardware, or by device id."""
        absent = absence_reasons(self.report)
        with self._lock:
            return {**self._not_taken, **absent}

    def is_available(self, hardware_type: str) -> bool:
        """Whether a kind of hardware is available.

        Raises:
            ConfigError: There is no such kind.
        """
        (kind,) = require_kinds([hardware_type], "hardware_type")
        return self.get_available_hardware()[kind]

    def get_best_available_hardware(self) -> str:
        """Return the kind of hardware that is preferred where nothing else is said (`DEFAULT_PRIORITY`)."""
        return self.get_hardware_by_priority()

    def get_hardware_by_priority(self, priority_list: Sequence[str] | None = None) -> str:
        """Return the first kind that is available; `cpu` when none of them is.

        Args:
            priority_list: Kinds of hardware, wanted ones first (default: `DEFAULT_PRIORITY`).

        Raises:
            ConfigError: One of them is not a kind of hardware.
        """
        kinds = require_kinds(DEFAULT_PRIORITY if priority_list is None else priority_list, "priority_list")
        here = self.get_available_hardware()
        return next((kind for kind in kinds if here[kind]), CPU)

    def get_torch_device(self) -> str:
        """Return torch's device for the best hardware: `cuda:0` (also on ROCm), `xpu:0`, `mps` or `cpu`."""
        return self.get_torch_device_with_priority()

    def get_device_with_index(self, preferred_index: int = 0) -> str:
        """Return torch's device for the best hardware.

        Args:
            preferred_index: Which of several; where it is not there, the first is taken and `get_errors` says so.
        """
        return self.get_torch_device_with_priority(preferred_index=preferred_index)

    def get_torch_device_with_priority(
        self, priority_list: Sequence[str] | None = None, preferred_index: int = 0
    ) -> str:
        """Return torch's device for the first kind that is available; `cpu` when none of them is.

        Args:
            priority_list: Kinds of hardware, wanted ones first (default: `DEFAULT_PRIORITY`).
            preferred_index: Which of several; where it is not there, the first is taken and `get_errors` says so.

        Raises:
            ConfigError: One of the names is not a kind of hardware.
        """
        kind = self.get_hardware_by_priority(priority_list)
        device = torch_device_of(self.report, kind, preferred_index)
        if device.not_taken:
            with self._lock:
                self._not_taken[device.not_taken] = device.reason
        return device.name

    def get_compatible_hardware_types(self, model_requirements: Mapping[str, Any]) -> list[str]:
        """Return the kinds that are available and do for a model, preferred ones first.

        Args:
            model_requirements: By kind, e.g. `{"cuda": {"memory_required": 4000}, "mps": {"compatible": False}}`;
                MB of 2**20 bytes (see `fitting_kinds`).

        Raises:
            ConfigError: A key is not a kind of hardware.
        """
        return fitting_kinds(self.report, model_requirements)

    def print_summary(self, detailed: bool = False) -> None:
        """Print what is available and which of it is preferred.

        Args:
            detailed: Also print each device, and what is not available with the reason.
        """
        best, torch_device = self.get_best_available_hardware(), self.get_torch_device()
        text = format_summary(self.get_hardware_details(), self.get_errors(), best, torch_device, detailed=detailed)
        print(text)  # noqa: T201 - to print is what it is for
