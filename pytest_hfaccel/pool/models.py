"""Named resources made: constructed, and models brought to the device they are wanted on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from pytest_hfaccel.core.errors import LoadError
from pytest_hfaccel.pool.devices import Choice
from pytest_hfaccel.pool.entry import Entry, Request
from pytest_hfaccel.pool.held import Held, ResourceKey, held_by
from pytest_hfaccel.pool.placement import held_bytes, is_torch_module, out_of_memory_on, place
from pytest_hfaccel.pool.preferences import HardwarePreferences
from pytest_hfaccel.pool.table import ResourceTable

Constructor = Callable[[], Any]


def request_for(key: ResourceKey, make: Callable[[], Held], nbytes: int = 0) -> Request:
    """The request for a named resource.

    Nothing is done to a value when the pool lets go of it: whoever was handed it may still use it, and its memory
    comes back when they let go, too.

    Args:
        key: The resource.
        make: Makes it.
        nbytes: Bytes it is known to take.
    """
    return Request(
        key=key,
        device=key.device,
        make=make,
        size=lambda held: int(held.nbytes),
        close=lambda _: None,
        estimate=lambda: nbytes,
        is_leased=False,
    )


def take(table: ResourceTable, request: Request) -> Held:
    """Return a named resource, made if need be. It can be evicted from then on; the caller's reference stays good."""
    entry = table.acquire(request)
    held: Held = entry.outcome.result()
    table.release(entry, threading.get_ident())
    if entry.request is request:  # this request made it
        table.trim(request.device)
    return held


def construct(key: ResourceKey, constructor: Constructor) -> Any:
    """Call a constructor.

    Raises:
        LoadError: It returned nothing.
    """
    value = constructor()
    if value is None:
        raise LoadError(f"the constructor of {str(key)!r} returned None")
    return value


def construct_model(
    table: ResourceTable, key: ResourceKey, constructor: Constructor, preferences: HardwarePreferences, choice: Choice
) -> Held:
    """Call a model's constructor and bring what it returns to the device chosen.

    Raises:
        LoadError: It returned nothing, or an object that the pool holds elsewhere already.
    """
    with out_of_memory_on(choice.device):
        value = construct(key, constructor)
    for other in table.view(lambda entry: _key_elsewhere(entry, value, key)):
        if other is not None:
            raise LoadError(
                f"the constructor of {str(key)!r} returned the object that the pool holds as {str(other)!r}",
                hint="A constructor must make a new object each time: moving this one would move the other.",
            )
    placement = place(value, choice.device, key.precision, is_emulated=choice.is_emulated)
    return Held(value, held_bytes(value), preferences, placement)


def _key_elsewhere(entry: Entry, value: Any, key: ResourceKey) -> ResourceKey | None:
    """The key of an entry that holds this very torch module on another device or at another precision."""
    other, held = entry.request.key, held_by(entry)
    if held is None or held.value is not value or not isinstance(other, ResourceKey) or not is_torch_module(value):
        return None
    return None if (other.device, other.precision) == (key.device, key.precision) else other
