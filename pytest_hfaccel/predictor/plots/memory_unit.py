"""MiB for small models, GiB for large ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MEBIBYTES_PER_GIBIBYTE = 1024
FOUR_DIGITS = 9_995


@dataclass(frozen=True)
class MemoryUnit:
    """A unit: its name, and how many of it a MiB is."""

    name: str
    per_mebibyte: float


def memory_unit(mebibytes: Iterable[float]) -> MemoryUnit:
    """The unit in which the largest of these numbers has at most four digits."""
    if max(mebibytes, default=0.0) < FOUR_DIGITS:
        return MemoryUnit("MiB", 1.0)
    return MemoryUnit("GiB", 1.0 / MEBIBYTES_PER_GIBIBYTE)
