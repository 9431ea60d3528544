"""The resource pool of the original guide (`docs/resource_pool.md`): objects by name, in the model cache of the run.

What a constructor returns is handed out without a lease, so it may be dropped at any time to make room. Nothing is done
to it then: the caller's reference stays good, its memory comes back when the caller lets go, too, and the next request
constructs a new one.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.backends.base import Placement
from pytest_hfaccel.backends.memory import out_of_memory_raised
from pytest_hfaccel.compat.device_choice import Choice, Devices, HardwarePreferences, parse_device
from pytest_hfaccel.compat.error_reports import DIRECTORY, ErrorReports
from pytest_hfaccel.compat.model_placement import (
    LOW_MEMORY_MINUTES,
    MAX_AGE_MINUTES,
    MB,
    SCARCE_MINUTES,
    cuda_memory,
    is_low_memory_mode_on,
    is_scarce,
    is_torch_module,
    memory_statistics,
    nbytes_of,
    place,
    release_caches,
)
from pytest_hfaccel.core.devices import GPU_KINDS
from pytest_hfaccel.core.errors import ConfigError, LoadError, OutOfMemory
from pytest_hfaccel.core.spec import CPU, Device
from pytest_hfaccel.hardware.cpu import Memory, read_memory
from pytest_hfaccel.pool.budget import device_budget
from pytest_hfaccel.pool.cache import ModelCache
from pytest_hfaccel.pool.table import Budget, Entry, Request, State

if TYPE_CHECKING:
    from pytest_hfaccel.backends.base import LoadedModel
    from pytest_hfaccel.core.spec import Cell

Constructor = Callable[[], Any]
Preferences = Mapping[str, Any] | HardwarePreferences | None

MODEL, TOKENIZER, RESOURCE = "model", "tokenizer", "resource"
"""What the statistics tell apart. The models of cells, which have keys of their own, count as models."""

LARGE_BYTES = 100 * MB
"""Models above this are dropped at half that age."""
PARK_BYTES = 500 * MB
"""Models above this leave their accelerator in low-memory mode."""

JUST_USED_SECONDS = 60.0
"""A model asked for so recently may be running: it is not moved. An engineering margin; the guide has none."""


@dataclass(frozen=True)
class ResourceKey:
    """What makes two named resources interchangeable.

    Attributes:
        kind: `MODEL`, `TOKENIZER` or `RESOURCE`.
        type: Its type or family, in the caller's words.
        name: Its name.
        device: The device it was asked for on.
        precision: The precision it was asked for; empty: as constructed.
        parked_from: For a model that low-memory mode has parked in main memory: the device it is to return to. Such a
            model is not the CPU's instance, and no request gets it there.
    """

    kind: str
    type: str
    name: str
    device: Device = CPU
    precision: str = ""
    parked_from: Device | None = None

    def __str__(self) -> str:
        device = self.device.id if self.kind == MODEL else ""
        parked = f"(parked, from {self.parked_from})" if self.parked_from else ""
        return " ".join(part for part in (self.kind, self.type, self.name, device, self.precision, parked) if part)


@dataclass(frozen=True)
class Resource:
    """A named resource and what is known of it.

    Attributes:
        key: What it is found under.
        value: What its constructor returned.
        nbytes: Bytes it holds; 0 when it does not say.
        preferences: What its model was asked for with; `None` for what is not a model.
        placement: Where its model is; `None` for what does not say.
        moved: Why it was moved to where it is; empty for one that is where it was made.
        created_at: When it was constructed, ISO 8601, UTC.
    """

    key: ResourceKey
    value: Any
    nbytes: int
    preferences: HardwarePreferences | None = None
    placement: Placement | None = None
    moved: str = ""
    created_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def is_frugal(self) -> bool:
        """Whether low-memory mode was asked for, for this resource alone."""
        return self.preferences is not None and self.preferences.force_low_memory


class ResourcePool(ModelCache):
    """A model cache that also keeps objects by name: models with hardware preferences, tokenizers, anything.

    Args:
        load: Loads the model of a cell; `None` for a pool that leases no cells.
        budget: As for `ModelCache`.
        estimate: As for `ModelCache`.
        devices: The devices that `get_model` chooses from (default: this machine's).
        error_reports: Directory for reports of models that `get_model` could not bring to a device; `None` for none.
        clock: As for `ModelCache`.
        read_memory: Reads the main memory.
        place: Brings a model to a device; as `pytest_hfaccel.compat.model_placement.place`.
    """

    def __init__(
        self,
        load: Callable[[Cell], LoadedModel] | None = None,
        *,
        budget: Budget | None = None,
        estimate: Callable[[Cell], int] | None = None,
        devices: Devices | None = None,
        error_reports: Path | None = DIRECTORY,
        clock: Callable[[], float] = time.monotonic,
        read_memory: Callable[[], Memory] = read_memory,
        place: Callable[..., Placement | None] = place,
    ) -> None:
        super().__init__(load, budget=budget, estimate=estimate, clock=clock)
        self._devices = devices or Devices()
        self._errors = ErrorReports(error_reports)
        self._read_memory = read_memory
        self._low_memory_mode: bool | None = None
        self._place = place
        self._passed_over: dict[ResourceKey, Mapping[str, str]] = {}

    def get_resource(self, resource_type: str, resource_id: str, constructor: Constructor) -> Any:
        """Return what `constructor` makes, made at most once for a type and id.

        Raises:
            Exception: What `constructor` raised, to everybody who waited for it; a later request calls it again.
            LoadError: `constructor` returned `None`.
        """
        return self._get_simple(ResourceKey(RESOURCE, resource_type, resource_id), constructor)

    def get_tokenizer(self, model_type: str, model_name: str, constructor: Constructor) -> Any:
        """Return a model's tokenizer, made at most once for a type and name; raises what `get_resource` raises."""
        return self._get_simple(ResourceKey(TOKENIZER, model_type, model_name), constructor)

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
            ConfigError: An invalid preference.
            BackendUnavailable: No device that was asked for is available; with the reasons.
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

            def make() -> Resource:
                if parked := self._table.take_out(replace(key, device=CPU, parked_from=key.device)):
                    return self._relocate(parked, key, "brought back from main memory")
                if preferences.force_low_memory or self._is_low_memory:
                    self.cleanup_unused_resources()
                return self._construct_model(key, constructor, preferences, choice)

            return self._get(key, make)
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
        if max_age_minutes < 0:
            raise ConfigError(
                f"max_age_minutes: {max_age_minutes} is negative. Allowed: 0 (everything unused) and more."
            )
        limits: list[float] = [max_age_minutes]
        if self._is_low_memory:
            limits.append(LOW_MEMORY_MINUTES)
        if is_scarce(self._read_memory()):
            limits.append(SCARCE_MINUTES)
        now = self._table.clock()

        def is_due(entry: Entry) -> bool:
            resource = _resource_of(entry)
            minutes = min([*limits, LOW_MEMORY_MINUTES] if resource and resource.is_frugal else limits)
            if _kind_of(entry) == MODEL and entry.nbytes > LARGE_BYTES:
                minutes /= 2
            return now - entry.last_used >= 60 * minutes

        dropped = self._table.evict(is_due)
        if self._park_large() or dropped:
            release_caches()
        return dropped

    def clear(self) -> int:
        """Drop everything that is not leased; return how many resources that were. The counters go on counting."""
        dropped = self._table.evict()
        release_caches()
        return dropped

    def get_stats(self) -> dict[str, Any]:
        """Return what the pool holds, how often it was asked, and the memory around it, as plain JSON.

        The models of cells count as well, what is being made does not. MB are 2**20 bytes.
        """
        counted = self._table.stats()
        entries = self._table.view(lambda entry: (entry.state, _kind_of(entry), entry.nbytes))
        made = [(kind, nbytes) for state, kind, nbytes in entries if state is not State.LOADING]
        kinds = Counter(kind for kind, _ in made)
        nbytes = sum(size for _, size in made)
        return {
            "hits": counted["hits"],
            "misses": counted["misses"],
            "total_requests": counted["requests"],
            "hit_ratio": counted["hits"] / counted["requests"] if counted["requests"] else 0.0,
            "memory_usage": nbytes,
            "memory_usage_mb": nbytes / MB,
            "cached_resources": kinds[RESOURCE],
            "cached_models": kinds[MODEL],
            "cached_tokenizers": kinds[TOKENIZER],
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "low_memory_mode": self._is_low_memory,
            "system_memory": memory_statistics(self._read_memory()),
            "cuda_memory": cuda_memory(),
        }

    def get_resource_details(self) -> list[dict[str, Any]]:
        """Return what is known of each resource, as plain JSON.

        `placement` is where it is, as torch says; `moved` why it was moved, if it was; `passed_over` the devices that
        its last request wanted more, with the reasons against them.
        """
        return self._table.view(self._details)

    def move_model_to_device(
        self, model_type: str, model_name: str, device: str, *, from_device: str = "", precision: str | None = None
    ) -> Any:
        """Move a model of `get_model` to another device, and return it; it is that device's instance from then on.

        The object itself moves: whoever holds it finds it there. Where the device has an instance already, that one is
        returned, and the pool lets go of the other.

        Args:
            model_type: As for `get_model`, as is the name.
            model_name: Its name.
            device: Where it goes.
            from_device: Which instance, where there are several.
            precision: Which instance, where there are several: the precision it was asked for (empty: none).

        Raises:
            ConfigError: There is no such model, or there are several.
            BackendUnavailable: The device is not available.
            LoadError: The model cannot run on the device, or is being made or moved.
            OutOfMemory: The device's memory, or the pool's budget for it, does not suffice; the model stays.
        """
        resource = self._only_instance(model_type, model_name, from_device, precision)
        source = resource.key
        preferences = HardwarePreferences.parse({"force_device": device})
        try:
            target = replace(source, device=self._devices.choose(preferences, model_name).device, parked_from=None)
            if target == source:
                return resource.value
            value = self._move(source, target, f"moved from {source.device}")
        except Exception as error:
            self._report(error, model_name, preferences.force_device, preferences)
            raise
        release_caches()
        return value

    def check_memory_pressure(self) -> bool:
        """Whether memory is short: less than 20 % of main memory available, or over 80 % of a GPU's allocated."""
        return is_scarce(self._read_memory()) or any(gpu["under_pressure"] for gpu in cuda_memory()["devices"])

    def enable_low_memory_mode(self, enabled: bool = True) -> None:
        """Turn low-memory mode on or off, whatever `RESOURCE_POOL_LOW_MEMORY` and the available memory say."""
        self._low_memory_mode = enabled

    def get_recommended_device(
        self, model_type: str = "", model_name: str = "", hardware_preferences: Preferences = None
    ) -> str:
        """Return the id of the device that `get_model` would take, e.g. `cuda:0`.

        The preferences decide, and what this machine has; type and name are for messages only.

        Raises:
            ConfigError: An invalid preference.
            BackendUnavailable: No device that was asked for is available; with the reasons.
        """
        preferences = HardwarePreferences.parse(hardware_preferences)
        return self._devices.choose(preferences, model_name or model_type).device.id

    @property
    def _is_low_memory(self) -> bool:
        return is_low_memory_mode_on(self._read_memory()) if self._low_memory_mode is None else self._low_memory_mode

    def _get(self, key: ResourceKey, make: Callable[[], Resource], nbytes: int = 0, *, is_move: bool = False) -> Any:
        """Return the value of a named resource; `nbytes` of it are known to be taken, more show when it is made."""
        request = Request(
            key,
            key.device,
            make,
            size=lambda made: int(made.nbytes),
            estimate=lambda: nbytes,
            is_leased=False,
            is_move=is_move,
        )
        return self._table.acquire(request).outcome.result().value

    def _get_simple(self, key: ResourceKey, constructor: Constructor) -> Any:
        def make() -> Resource:
            value = _construct(key, constructor)
            return Resource(key, value, nbytes_of(value))

        return self._get(key, make)

    def _construct_model(
        self, key: ResourceKey, constructor: Constructor, preferences: HardwarePreferences, choice: Choice
    ) -> Resource:
        with out_of_memory_raised(choice.device.id, "load"):
            value = _construct(key, constructor)
        for _, other in self._resources():
            is_elsewhere = (other.key.device, other.key.precision) != (key.device, key.precision)
            if other.value is value and is_elsewhere and is_torch_module(value):
                raise LoadError(
                    f"the constructor of {str(key)!r} returned the object that the pool already has as "
                    f"{str(other.key)!r}",
                    hint="A constructor must make a new object each time: moving this one would move the other.",
                )
        placement = self._place(value, choice.device, key.precision, is_emulated=choice.is_emulated)
        return Resource(key, value, nbytes_of(value), preferences, placement)

    def _move(self, source: ResourceKey, target: ResourceKey, reason: str) -> Any:
        """Move a model to another device; from then on it is found under another key."""
        moved = False

        def make() -> Resource:
            nonlocal moved
            entry = self._table.take_out(source)
            if entry is None:
                raise LoadError(f"{str(source)!r} cannot be moved to {target.device}: it was dropped, or is in use")
            moved = True
            return self._relocate(entry, target, reason)

        nbytes = sum(self._table.view(lambda entry: entry.nbytes if entry.request.key == source else 0))
        value = self._get(target, make, nbytes, is_move=True)
        if not moved:  # the target has an instance of its own
            self._table.evict(lambda entry: entry.request.key == source)
        return value

    def _relocate(self, entry: Entry, target: ResourceKey, reason: str) -> Resource:
        """Move a model that was taken out; on an error it is put back, or given up when that fails as well."""
        resource: Resource = entry.outcome.result()
        try:
            placement = self._place(resource.value, target.device, target.precision)
        except BaseException as error:
            try:
                self._place(resource.value, entry.request.device, target.precision)
            except Exception:
                self._table.forget(entry)
                raise LoadError(
                    f"{entry.name!r} could not be moved to {target.device}, nor back; the pool has let go of it"
                ) from error
            self._table.restore(entry)
            raise
        self._table.forget(entry)
        return replace(resource, key=target, placement=placement, moved=reason)

    def _park_large(self) -> int:
        """Move large unused models from their GPUs to main memory in low-memory mode; return how many."""
        parked, is_low = 0, self._is_low_memory
        for entry, resource in self._resources():
            key, unused = resource.key, self._table.clock() - entry.last_used
            is_large = entry.nbytes > PARK_BYTES and key.device.kind in GPU_KINDS and resource.placement is not None
            if not is_large or unused < JUST_USED_SECONDS or not (is_low or resource.is_frugal):
                continue
            in_main_memory = replace(key, device=CPU, parked_from=key.device)
            # Without room in main memory, or used after all, it stays until it is due.
            with suppress(OutOfMemory, LoadError):
                self._move(key, in_main_memory, "parked in main memory by low-memory mode")
                parked += 1
        return parked

    def _only_instance(self, model_type: str, model_name: str, from_device: str, precision: str | None) -> Resource:
        source = parse_device(from_device, "from_device") if from_device else None
        wanted = (MODEL, model_type, model_name)
        named = [each for _, each in self._resources() if (each.key.kind, each.key.type, each.key.name) == wanted]
        matching = [
            each for each in named if source in (None, each.key.device) and precision in (None, each.key.precision)
        ]
        if len(matching) == 1:
            return matching[0]
        raise ConfigError(
            f"{model_type} {model_name}: {'several' if matching else 'no'} models are meant. "
            f"In the pool: {', '.join(str(each.key) for each in named) or 'none of that name'}.",
            hint="Name one instance with from_device and precision." if matching else None,
        )

    def _resources(self) -> list[tuple[Entry, Resource]]:
        """The named resources that are not being made, with their entries."""
        entries = self._table.view(lambda entry: entry)
        return [(entry, resource) for entry in entries if (resource := _resource_of(entry)) is not None]

    def _details(self, entry: Entry) -> dict[str, Any]:
        key, resource = entry.request.key, _resource_of(entry)
        unused = round(self._table.clock() - entry.last_used, 3)
        details = {**entry.to_json(), "kind": _kind_of(entry), "unused_seconds": unused}
        if isinstance(key, ResourceKey):
            details |= {"type": key.type, "name": key.name, "precision": key.precision or None}
            details["passed_over"] = dict(self._passed_over.get(key, {}))
        if resource is None:
            return details
        return details | {
            "created_at": resource.created_at,
            "hardware_preferences": resource.preferences.to_json() if resource.preferences else None,
            "placement": resource.placement.to_json() if resource.placement else None,
            "moved": resource.moved,
        }

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


_lock = threading.Lock()
_pools: list[ResourcePool] = []
"""The pools of the process, innermost last: a run within a run (pytester) has one of its own."""


def get_global_resource_pool() -> ResourcePool:
    """Return the pool of this process, the same to everybody; made at the first call.

    In a run of tests it is the run's pool, the `resource_pool` fixture. Its budget is `HFACCEL_POOL_MEMORY`.

    Raises:
        ConfigError: `HFACCEL_POOL_MEMORY` is not a budget.
    """
    with _lock:
        return _innermost() or _push(ResourcePool(budget=device_budget(os.environ.get("HFACCEL_POOL_MEMORY", ""))))


def open_run_pool(load: Callable[[Cell], LoadedModel], budget: Budget) -> ResourcePool:
    """Return the pool for a run of tests, which is the process's until it is closed.

    Somebody may have asked for the process's pool before, e.g. in a `conftest.py`: the run then uses that one.
    """
    with _lock:
        pool = _innermost()
        if pool is None or pool.has_loader:
            return _push(ResourcePool(load, budget=budget))
        pool.serve(load, budget)
        return pool


def _innermost() -> ResourcePool | None:
    _pools[:] = [pool for pool in _pools if not pool.is_closed]
    return _pools[-1] if _pools else None


def _push(pool: ResourcePool) -> ResourcePool:
    _pools.append(pool)
    return pool


def _construct(key: ResourceKey, constructor: Constructor) -> Any:
    value = constructor()
    if value is None:
        raise LoadError(f"the constructor of {str(key)!r} returned None")
    return value


def _resource_of(entry: Entry) -> Resource | None:
    """The named resource of an entry; `None` while it is made, and for the models of cells."""
    value = entry.outcome.result() if entry.outcome.done() and not entry.outcome.exception() else None
    return value if isinstance(value, Resource) else None


def _kind_of(entry: Entry) -> str:
    key = entry.request.key
    return key.kind if isinstance(key, ResourceKey) else MODEL
