"""Resources by name, as the ResourcePool guide has them: models with hardware preferences, tokenizers, any object."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.pool.cleanup import MAX_AGE_MINUTES, is_due, longest_unused, park_large
from pytest_hfaccel.pool.devices import Devices
from pytest_hfaccel.pool.error_report import ErrorReports
from pytest_hfaccel.pool.held import MODEL, RESOURCE, TOKENIZER, Held, ResourceKey, details_of
from pytest_hfaccel.pool.low_memory import LowMemoryMode, read_main_memory
from pytest_hfaccel.pool.models import Constructor, construct, construct_model, request_for, take
from pytest_hfaccel.pool.moving import bring_back, move, only_instance
from pytest_hfaccel.pool.placement import held_bytes, release_caches
from pytest_hfaccel.pool.preferences import HardwarePreferences
from pytest_hfaccel.pool.statistics import is_any_under_pressure, pool_statistics
from pytest_hfaccel.pool.table import ResourceTable

Preferences = Mapping[str, Any] | HardwarePreferences | None


class NamedResources:
    """Objects constructed once and found by name; what everybody has let go of is freed when it is dropped here.

    What a constructor returns is handed out without a lease, so it may be dropped at any time to make room: the
    caller's reference stays good, and the next request constructs a new one.

    Args:
        table: Where resources are kept.
        devices: The devices of this machine.
        error_reports: Directory for reports of models that could not be brought to a device; `None` for none.
    """

    def __init__(self, table: ResourceTable, devices: Devices | None, error_reports: Path | None) -> None:
        self._table = table
        self._devices = devices or Devices()
        self._errors = ErrorReports(error_reports)
        self._low_memory = LowMemoryMode()
        self._passed_over: dict[ResourceKey, Mapping[str, str]] = {}

    def get_resource(self, resource_type: str, resource_id: str, constructor: Constructor) -> Any:
        """Return what `constructor` makes, made at most once for a type and id.

        Raises:
            Exception: What `constructor` raised, to everybody who waited for it; a later request calls it again.
            LoadError: `constructor` returned `None`.
        """
        return self._simple(ResourceKey(RESOURCE, resource_type, resource_id), constructor)

    def get_tokenizer(self, model_type: str, model_name: str, constructor: Constructor) -> Any:
        """Return a model's tokenizer, made at most once for a type and name; raises what `get_resource` raises."""
        return self._simple(ResourceKey(TOKENIZER, model_type, model_name), constructor)

    def get_model(
        self,
        model_type: str,
        model_name: str,
        constructor: Constructor,
        hardware_preferences: Preferences = None,
    ) -> Any:
        """Return a model on the device preferred, made at most once per type, name, device and precision.

        A torch module is moved to the device and cast, and it is read back where it is. Anything else is taken as the
        constructor placed it.

        Args:
            model_type: Family or type of the model, in the caller's words.
            model_name: Name of the model.
            constructor: Makes it, anywhere; called without any lock held.
            hardware_preferences: See `HardwarePreferences`; without them, the best device for torch.

        Raises:
            Exception: What `constructor` raised, to everybody who waited for it; a later request calls it again.
            ConfigError: A preference that cannot be.
            BackendUnavailable: No device that was asked for can be had; with the reasons.
            LoadError: `constructor` returned `None`, or its model cannot run on the device.
            OutOfMemory: The device's memory, or the pool's budget for it, does not suffice.
        """
        preferences = HardwarePreferences.parse(hardware_preferences)
        device = preferences.force_device or preferences.device
        try:
            choice = self._devices.choose(preferences, model_name)
            device = choice.device.id
            key = ResourceKey(MODEL, model_type, model_name, choice.device, preferences.precision)
            self._passed_over[key] = choice.passed_over

            def make() -> Held:
                if (held := bring_back(self._table, key)) is not None:
                    return held
                if preferences.force_low_memory or self._low_memory.is_on:
                    self.cleanup_unused_resources()
                return construct_model(self._table, key, constructor, preferences, choice)

            return take(self._table, request_for(key, make)).value
        except Exception as error:
            self._report(error, model_name, device, preferences)
            raise

    def cleanup_unused_resources(self, max_age_minutes: float = MAX_AGE_MINUTES) -> int:
        """Drop what nobody has asked for recently; return how many resources that were.

        In low-memory mode 10 minutes are the most, while main memory is scarce 5; models over 100 MB stay half as long.
        In low-memory mode, models over 500 MB leave their accelerators for main memory before they are dropped. Cells
        that are leased stay.

        Args:
            max_age_minutes: Minutes a resource may stay unused; 0 drops everything that is not leased.

        Raises:
            ConfigError: `max_age_minutes` is negative.
        """
        low_memory = self._low_memory.is_on
        limit = longest_unused(max_age_minutes, low_memory=low_memory, scarce=read_main_memory().is_scarce)
        dropped = self._table.evict(is_due(limit))
        if park_large(self._table, low_memory=low_memory) or dropped:
            release_caches()
        return dropped

    def clear(self) -> int:
        """Drop everything that is not leased; return how many resources that were. The counters go on counting."""
        dropped = self._table.evict_idle()
        release_caches()
        return dropped

    def get_stats(self) -> dict[str, Any]:
        """Return what the pool holds, how often it was asked, and the memory around it, as plain JSON.

        `hits`, `misses`, `total_requests`, `hit_ratio` (0-1); `memory_usage` (bytes), `memory_usage_mb`,
        `cached_resources`, `cached_models`, `cached_tokenizers`; `timestamp`, `low_memory_mode`; `system_memory` and
        `cuda_memory`. The models of cells count as well. MB are 2**20 bytes.
        """
        return pool_statistics(self._table, low_memory=self._low_memory.is_on)

    def get_resource_details(self) -> list[dict[str, Any]]:
        """Return what is known of each resource, as plain JSON.

        `key`, `kind`, `type`, `name`, `device`, `precision`, `bytes`, `state`, `leases`, `unused_seconds`,
        `created_at`, `hardware_preferences`, `placement` (where it is, as torch says), `moved` (why it was moved, if it
        was) and `passed_over`: the devices that its last request wanted more, with the reasons against them.
        """
        return self._table.view(lambda entry: details_of(entry, self._passed_over))

    def move_model_to_device(
        self, model_type: str, model_name: str, device: str, *, from_device: str = "", precision: str | None = None
    ) -> Any:
        """Move a model of `get_model` to another device, and return it; it is that device's instance from then on.

        The object itself moves: whoever holds it finds it there. Where the device has an instance already, that one is
        returned, and the pool lets go of the other.

        Args:
            model_type: As for `get_model`.
            model_name: As for `get_model`.
            device: Where it goes.
            from_device: Which instance, where there are several.
            precision: Which instance, where there are several: the precision it was asked for (empty: none).

        Raises:
            ConfigError: There is no such model, or there are several.
            BackendUnavailable: The device cannot be had.
            LoadError: The model cannot run on the device, or is in use all the time.
            OutOfMemory: The device's memory, or the pool's budget for it, does not suffice; the model stays.
        """
        source, held = only_instance(self._table, model_type, model_name, from_device, precision)
        preferences = HardwarePreferences.parse({"force_device": device})
        try:
            target = source.on(self._devices.choose(preferences, model_name).device)
            if target == source:
                return held.value
            moved = move(self._table, source, target, f"moved from {source.device}")
        except Exception as error:
            self._report(error, model_name, preferences.force_device, preferences)
            raise
        release_caches()
        return moved.value

    def check_memory_pressure(self) -> bool:
        """Whether memory is short: less than 20 % of main memory available, or over 80 % of a GPU's allocated."""
        return is_any_under_pressure()

    def enable_low_memory_mode(self, enabled: bool = True) -> None:
        """Turn low-memory mode on or off, whatever `RESOURCE_POOL_LOW_MEMORY` and the available memory say."""
        self._low_memory.enable(enabled)

    def get_recommended_device(
        self, model_type: str = "", model_name: str = "", hardware_preferences: Preferences = None
    ) -> str:
        """Return the id of the device that `get_model` would take, e.g. `cuda:0`.

        The preferences decide, and what this machine has; type and name are for messages only. What a model needs, and
        where it runs best, is computed by `pytest_hfaccel.compat.hardware_model_integration`.

        Raises:
            ConfigError: A preference that cannot be.
            BackendUnavailable: No device that was asked for can be had; with the reasons.
        """
        preferences = HardwarePreferences.parse(hardware_preferences)
        return self._devices.choose(preferences, model_name or model_type).device.id

    def _simple(self, key: ResourceKey, constructor: Constructor) -> Any:
        def make() -> Held:
            value = construct(key, constructor)
            return Held(value, held_bytes(value))

        return take(self._table, request_for(key, make)).value

    def _report(self, error: Exception, model_name: str, device: str, preferences: HardwarePreferences) -> None:
        if isinstance(error, ConfigError):
            return  # a mistake of the caller's, not of the hardware
        self._errors.record(
            error,
            model_name,
            device,
            model_family=preferences.model_family,
            subfamily=preferences.subfamily,
            alternatives=self._devices.alternatives(device, preferences),
        )
