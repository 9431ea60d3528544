"""Predicted against measured: what earlier predictions were worth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any


@dataclass(frozen=True)
class AccuracyLine:
    """How far predictions of one kind were from what was measured later.

    Attributes:
        metric: `latency_ms` or `memory_mb`.
        device: Kind of device.
        family: The classifier's family; empty where it is not known.
        source: The layer the predictions came from.
        pairs: Predictions that were measured later.
        mean_error: Mean of |predicted / measured - 1|.
        median_error: Median of the same.
        bias: Mean of predicted / measured - 1: above 0 where predictions are too slow or too large.
        inside: Share of the measured values inside the interval; 80 % are meant to be.
    """

    metric: str
    device: str
    family: str
    source: str
    pairs: int
    mean_error: float
    median_error: float
    bias: float
    inside: float


def accuracy_lines(pairs: Iterable[Mapping[str, Any]]) -> list[AccuracyLine]:
    """Summarise pairs by metric, kind of device, family and source.

    Args:
        pairs: Rows of the database's view `prediction_accuracy`: `metric`, `device_kind`, `family`, `source`,
            `relative_error`, `inside_interval`.
    """
    groups: dict[tuple[str, str, str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for pair in pairs:
        key = (pair["metric"], pair["device_kind"], pair["family"], pair["source"])
        groups[tuple(map(str, key))].append(pair)  # type: ignore[index]
    return [_line(key, together) for key, together in sorted(groups.items())]


def _line(key: tuple[str, str, str, str], pairs: list[Mapping[str, Any]]) -> AccuracyLine:
    errors = [float(pair["relative_error"]) for pair in pairs]
    sizes = [abs(error) for error in errors]
    inside = fmean(bool(pair["inside_interval"]) for pair in pairs)
    return AccuracyLine(*key, len(pairs), fmean(sizes), median(sizes), fmean(errors), inside)
