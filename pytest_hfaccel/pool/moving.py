"""Models moved between devices, as the same objects."""

from __future__ import annotations

from dataclasses import replace

from pytest_hfaccel.core.errors import ConfigError, LoadError
from pytest_hfaccel.pool.entry import Entry
from pytest_hfaccel.pool.held import MODEL, Held, ResourceKey, held_by
from pytest_hfaccel.pool.models import request_for, take
from pytest_hfaccel.pool.placement import place
from pytest_hfaccel.pool.preferences import parse_device
from pytest_hfaccel.pool.table import ResourceTable

_PATIENCE_SECONDS = 5.0
"""How long a move waits for those who are being handed the model, which takes microseconds."""


def move(table: ResourceTable, source: ResourceKey, target: ResourceKey, reason: str) -> Held:
    """Move a model to another device; from then on it is found under another key.

    The object stays the same, so whoever holds it finds it there. Where the target exists already, that one is
    returned, and the pool lets go of the other.

    Args:
        table: Where it is.
        source: The model.
        target: The key it is to have.
        reason: Why, for the details.

    Raises:
        LoadError: It is not in the pool any more, or in use all the time.
        OutOfMemory: The device has no room for it; it stays where it is.
    """
    moved: list[Held] = []

    def make() -> Held:
        entry = table.claim(source, _PATIENCE_SECONDS)
        if entry is None:
            raise LoadError(f"{str(source)!r} cannot be moved to {target.device}: it was dropped, or is in use")
        moved.append(_moved(table, entry, target, reason))
        return moved[-1]

    known = sum(table.view(lambda entry: entry.nbytes if entry.request.key == source else 0))
    held = take(table, replace(request_for(target, make, known), is_move=True))
    if not moved:
        table.evict(lambda entry: entry.request.key == source)
    return held


def only_instance(
    table: ResourceTable, model_type: str, model_name: str, from_device: str, precision: str | None
) -> tuple[ResourceKey, Held]:
    """Return the instance of a model that is meant.

    Args:
        table: Where it is.
        model_type: Its type.
        model_name: Its name.
        from_device: The device it is on; empty: any.
        precision: The precision it was asked for; `None`: any.

    Raises:
        ConfigError: There is none, or there are several.
    """

    def read(entry: Entry) -> tuple[ResourceKey, Held] | None:
        key, held = entry.request.key, held_by(entry)
        return (key, held) if held and isinstance(key, ResourceKey) else None

    source = parse_device(from_device, "from_device") if from_device else None
    wanted = (MODEL, model_type, model_name)
    there = [found for found in table.view(read) if found and (found[0].kind, found[0].type, found[0].name) == wanted]
    meant = [(key, held) for key, held in there if source in (None, key.device) and precision in (None, key.precision)]
    if len(meant) == 1:
        return meant[0]
    raise ConfigError(
        f"{model_type} {model_name}: {'several' if meant else 'no'} models are meant. "
        f"In the pool: {', '.join(str(key) for key, _ in there) or 'none of that name'}.",
        hint="Name one instance with from_device and precision." if meant else None,
    )


def bring_back(table: ResourceTable, key: ResourceKey) -> Held | None:
    """Move a model back that is parked in main memory; `None` when there is none."""
    entry = table.claim(key.parked())
    return _moved(table, entry, key, "brought back from main memory") if entry else None


def _moved(table: ResourceTable, entry: Entry, target: ResourceKey, reason: str) -> Held:
    """Move a claimed model; on an error it is put back where it was, or given up when that fails as well."""
    held: Held = entry.outcome.result()
    try:
        placement = place(held.value, target.device, target.precision)
    except BaseException as error:
        try:
            place(held.value, entry.request.device, target.precision)
        except Exception:
            table.forget(entry)
            raise LoadError(
                f"{str(entry.request.key)!r} could not be moved to {target.device}, nor back; the pool has let go of it"
            ) from error
        table.restore(entry)
        raise
    table.forget(entry)
    return replace(held, placement=placement, moved=reason)
