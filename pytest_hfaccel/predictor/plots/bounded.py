"""A number with the interval around it, where there is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_hfaccel.predictor.plots.problems import Problems

ROUNDING = 1e-6


@dataclass(frozen=True)
class Bounded:
    """A number to plot.

    Attributes:
        value: The number.
        low: Lower end of its interval; `None` where there is none.
        high: Upper end; `None` exactly where `low` is.
    """

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def bottom(self) -> float:
        """The smallest number that a plot must show."""
        return self.value if self.low is None else self.low

    @property
    def top(self) -> float:
        """The greatest number that a plot must show."""
        return self.value if self.high is None else self.high

    def times(self, factor: float) -> Bounded:
        """The same in another unit."""
        if self.low is None or self.high is None:
            return Bounded(factor * self.value)
        return Bounded(factor * self.value, factor * self.low, factor * self.high)

    def over(self, other: Bounded) -> Bounded:
        """The ratio to another number; its interval holds every ratio of numbers in the two intervals."""
        if (self.low is None and other.low is None) or not other.bottom:
            return Bounded(self.value / other.value)
        return Bounded(self.value / other.value, self.bottom / other.top, self.top / other.bottom)


def read_bounded(
    row: Mapping[str, Any], value_key: str, low_key: str, high_key: str, place: str, problems: Problems
) -> Bounded | None:
    """Read a number and its interval from a row.

    Returns:
        `None` when the number is not known. An interval with only one end is none.
    """
    value = problems.number(row.get(value_key), f"{place}.{value_key}")
    low = problems.number(row.get(low_key), f"{place}.{low_key}", zero=True)
    high = problems.number(row.get(high_key), f"{place}.{high_key}")
    if value is None or low is None or high is None:
        return None if value is None else Bounded(value)
    # What was rounded on its way here may stand a little outside its interval.
    if not low <= value * (1 + ROUNDING) or not value <= high * (1 + ROUNDING):
        problems.add(place, f"{low_key} {low:g} <= {value_key} {value:g} <= {high_key} {high:g} does not hold.")
    # An interval without width is none: it would only repeat the number.
    return Bounded(value, min(low, value), max(high, value)) if low < high else Bounded(value)
