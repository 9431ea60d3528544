"""How much memory the pool may fill, per device."""

from __future__ import annotations

import re
from collections.abc import Callable

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.hardware.cpu import read_memory

DEFAULT_SHARE = 0.70
"""Share of the free memory that loaded models may take. The rest is for activations, references and checkpoints on
their way to the device: an engineering margin, not a measurement."""

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?)B", re.IGNORECASE)
_SHARE = re.compile(r"(\d+(?:\.\d+)?)\s*%")


def parse_budget(text: str) -> int | float:
    """Read a memory budget: bytes (`8GiB`, `500MB`; an int) or a share of what is free (`50%`; a float of 0-1).

    Empty text is the default share.

    Raises:
        ConfigError: The text is neither, is zero, or is more than 100 %.
    """
    text = text.strip()
    if not text:
        return DEFAULT_SHARE
    if size := _SIZE.fullmatch(text):
        nbytes = int(float(size[1]) * _UNITS.get(size[2].upper(), 0))
        if nbytes > 0:
            return nbytes
    elif share := _SHARE.fullmatch(text):
        fraction = float(share[1]) / 100
        if 0 < fraction <= 1:
            return fraction
    raise ConfigError(
        f"HFACCEL_POOL_MEMORY: {text!r} is not a memory budget. Allowed: bytes with a unit (B, kB, MB, GB, TB, KiB, "
        "MiB, GiB, TiB), as in '8GiB', or a share of what is free, above 0% and up to 100%, as in '50%'."
    )


def device_budget(
    text: str = "", free_bytes: Callable[[Device], int | None] | None = None
) -> Callable[[Device], int | None]:
    """Return the budget of a device in bytes as a function of the device.

    A share is taken of what is free when the function is called; the pool calls it once per device, when the device
    is first used. Devices in host memory count one by one: the second finds what the first has left.

    Args:
        text: As for `parse_budget`.
        free_bytes: Free bytes of a device with memory of its own; `None` where its runtime does not say. Without it, or
            where it returns `None`, a share of such a device's memory is no limit: its allocator sets it.

    Raises:
        ConfigError: `text` is not a budget.
    """
    amount = parse_budget(text)

    def budget(device: Device) -> int | None:
        if isinstance(amount, int):
            return amount
        if device.traits.uses_host_memory(device.target):
            return int(amount * read_memory().available_bytes)
        free = free_bytes(device) if free_bytes else None
        return None if free is None else int(amount * free)

    return budget
