"""What the pool keeps of a named resource: the key it is found under, and the facts that go with it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from pytest_hfaccel.backends.base import Placement
from pytest_hfaccel.core.spec import CPU, Device
from pytest_hfaccel.pool.entry import Entry
from pytest_hfaccel.pool.preferences import HardwarePreferences

MODEL, TOKENIZER, RESOURCE = "model", "tokenizer", "resource"
"""What the statistics tell apart. The models of cells, which have keys of their own, count as models."""


@dataclass(frozen=True)
class ResourceKey:
    """What makes two named resources interchangeable.

    Attributes:
        kind: `MODEL`, `TOKENIZER` or `RESOURCE`.
        type: Its type or family, in the caller's words.
        name: Its name.
        device: The device it was asked for on.
        precision: The precision it was asked for; empty: as constructed.
        home: For a model that low-memory mode has parked in main memory: the device it is to return to. Such a model is
            not the CPU's instance, and nobody is handed it there.
    """

    kind: str
    type: str
    name: str
    device: Device = CPU
    precision: str = ""
    home: Device | None = None

    def on(self, device: Device) -> ResourceKey:
        """The key of the same model as the instance of another device."""
        return replace(self, device=device, home=None)

    def parked(self) -> ResourceKey:
        """The key of the same model while it is parked in main memory."""
        return replace(self, device=CPU, home=self.device)

    def __str__(self) -> str:
        device = self.device.id if self.kind == MODEL else ""
        home = f"(parked, from {self.home})" if self.home else ""
        return " ".join(part for part in (self.kind, self.type, self.name, device, self.precision, home) if part)


@dataclass(frozen=True)
class Held:
    """A named resource and what is known of it.

    Attributes:
        value: What its constructor returned.
        nbytes: Bytes it holds; 0 when it does not say.
        preferences: What its model was asked for with; `None` for what is not a model.
        placement: Where its model is; `None` for what does not say.
        moved: Why it was moved to where it is; empty for one that is where it was made.
        created_at: When it was constructed, ISO 8601, UTC.
    """

    value: Any
    nbytes: int
    preferences: HardwarePreferences | None = None
    placement: Placement | None = None
    moved: str = ""
    created_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def low_memory(self) -> bool:
        """Whether low-memory mode was asked for, for this resource alone."""
        return self.preferences is not None and self.preferences.force_low_memory


def held_by(entry: Entry) -> Held | None:
    """The named resource of an entry; `None` while it is made, and for the models of cells."""
    value = entry.outcome.result() if entry.outcome.done() and not entry.outcome.exception() else None
    return value if isinstance(value, Held) else None


def kind_of(entry: Entry) -> str:
    """Which of the kinds the statistics tell apart an entry is."""
    key = entry.request.key
    return key.kind if isinstance(key, ResourceKey) else MODEL


def details_of(entry: Entry, passed_over: Mapping[ResourceKey, Mapping[str, str]]) -> dict[str, Any]:
    """What is known of an entry, as plain JSON.

    Args:
        entry: The entry.
        passed_over: For a model: the devices that were wanted more, with the reasons against them.
    """
    key, held = entry.request.key, held_by(entry)
    facts = {**entry.to_json(), "kind": kind_of(entry), "unused_seconds": round(time.monotonic() - entry.last_used, 3)}
    if isinstance(key, ResourceKey):
        facts |= {"type": key.type, "name": key.name, "precision": key.precision or None}
        facts["passed_over"] = dict(passed_over.get(key, {}))
    if held is None:
        return facts
    return facts | {
        "created_at": held.created_at,
        "hardware_preferences": held.preferences.to_json() if held.preferences else None,
        "placement": held.placement.to_json() if held.placement else None,
        "moved": held.moved,
    }
