"""Which architectures are variations of each other, so that a model is never judged by its twin."""

from __future__ import annotations

import re

from pytest_hfaccel.benchmark.measurement import Measurement

_HEAD = re.compile(r"(For[A-Z]|LMHead|Model$|MT)")


def relatives_of(measurement: Measurement) -> str:
    """Return the group a row's architecture belongs to: what the row says, else its class without the head."""
    said = measurement.details.get("relatives")
    return str(said) if said else _HEAD.split(measurement.architecture)[0]
