"""Mistakes in what is to be plotted: all of them in one error, each with its place."""

from __future__ import annotations

import math
from typing import Any

from pytest_hfaccel.errors import ConfigError

SHOWN = 20


class Problems:
    """Collects mistakes while an input is read."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, place: str, problem: str) -> None:
        """Note a mistake: where, and what would be right."""
        self.lines.append(f"{place}: {problem}")

    def raise_if_any(self, hint: str | None = None) -> None:
        """End the reading.

        Raises:
            ConfigError: With the first 20 mistakes and the number of the others.
        """
        if self.lines:
            left = len(self.lines) - SHOWN
            more = [f"... and {left} more"] if left > 0 else []
            raise ConfigError("\n".join(self.lines[:SHOWN] + more), hint=hint)

    def number(self, value: Any, place: str, *, zero: bool = False) -> float | None:
        """Read a number that must be finite and positive.

        Args:
            value: What the input holds. `None` and NaN (a frame's missing value) mean "not known".
            place: Where it stands.
            zero: Whether zero is allowed, too.

        Returns:
            The number; `None` when it is not known, or wrong (then a problem was added).
        """
        number = self._as_float(value, place)
        if number is None or math.isnan(number):
            return None
        if math.isinf(number) or number < 0 or (number == 0 and not zero):
            self.add(place, f"{number:g} cannot be: allowed are finite numbers {'>=' if zero else '>'} 0.")
            return None
        return number

    def _as_float(self, value: Any, place: str) -> float | None:
        if value is None:
            return None
        # numpy's and pandas' scalars are numbers, too, and know `__float__`; text does not.
        if isinstance(value, bool) or not hasattr(value, "__float__"):
            self.add(place, f"{value!r} is not a number.")
            return None
        return float(value)
