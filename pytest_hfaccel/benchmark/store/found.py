"""Measurements inside plain JSON: reports keep them among the numbers of a check."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.errors import ConfigError

_MARKS = {"model", "architecture", "device_name", "latency", "noise"}
"""What a JSON object has when it is a measurement."""


def measurements_in(data: Any) -> Iterator[Measurement]:
    """Yield the measurements in a plain-JSON value, wherever they are.

    Raises:
        ConfigError: What looks like a measurement lacks something, or has something else in its place.
    """
    if isinstance(data, dict) and set(data) >= _MARKS:
        try:
            yield Measurement.from_json(data)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"a measurement of {data['model']!r} is not complete: {type(error).__name__}: {error}",
                hint="Was it written by another version of pytest-hfaccel? Measure again, or move the file away.",
            ) from error
    elif isinstance(data, dict | list | tuple):
        for value in data.values() if isinstance(data, dict) else data:
            yield from measurements_in(value)
