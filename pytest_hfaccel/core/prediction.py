"""Questions to the predictor, and its answers. Plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pytest_hfaccel.core.devices import kind_of

INTERVAL = 0.8
"""Share of the measured values that an interval is meant to hold."""


class Source(StrEnum):
    """The layer a prediction comes from, the best one first."""

    MEASURED = "measured"
    """Rows of the database of this model on this device."""
    LEARNED = "learned"
    """The roofline of the traced operators, corrected by what was learned from rows of other models."""
    CALIBRATED = "calibrated"
    """The roofline of the traced operators with the measured speed of this device."""
    DATASHEET = "datasheet"
    """A roofline with the public specification of a device that is not here."""
    DECLARED = "declared"
    """No number: only whether this kind of model is known to run on this kind of device."""


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        architecture: transformers class.
        device: Device id or kind: `cpu`, `cuda`, `openvino:CPU`.
        batch: Samples.
        length: Tokens per sample of text inputs.
        dtype: `fp32`, `bf16`, `fp16` or `int8`.
        training: Whether a training step is meant, not a forward pass.
        model: The model's name, to find its measured rows; empty for a model without measurements.
        family: The classifier's family.
    """

    architecture: str
    device: str
    batch: int = 1
    length: int = 128
    dtype: str = "fp32"
    training: bool = False
    model: str = ""
    family: str = ""

    @property
    def device_kind(self) -> str:
        """The kind of device."""
        return kind_of(self.device)


@dataclass(frozen=True)
class Estimate:
    """A number with the interval that contains 80 % of the measured values.

    Attributes:
        value: The number.
        low: Lower end of the interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    @classmethod
    def between(cls, value: float, below: float, above: float) -> Estimate:
        """A number whose interval ends at two factors of it."""
        return cls(value, below * value, above * value)

    def times(self, factor: float) -> Estimate:
        """The same estimate in another unit, or of so many times as much."""
        return Estimate(factor * self.value, factor * self.low, factor * self.high)


@dataclass(frozen=True)
class Prediction:
    """What is predicted for one question.

    Attributes:
        question: What was asked.
        source: The layer the latency comes from.
        basis: What it is based on, for people: rows, calibration, data sheet, their dates and names.
        latency_ms: Of a forward pass (a training step); `None` where nothing is known.
        memory_mb: What the model adds to the device's memory at the peak, in MiB; `None` where nothing is known.
        rows: Measured rows behind it.
        fits: Whether it fits the device's memory; `None` where that is not known.
        advice: When it does not fit: what would (dtype, batch, number of devices), for people.
        details: Plain-JSON facts: the share of each operator group, the memory of the device, ...
    """

    question: Question
    source: Source
    basis: str
    latency_ms: Estimate | None
    memory_mb: Estimate | None
    rows: int = 0
    fits: bool | None = None
    advice: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def throughput(self) -> Estimate | None:
        """Samples per second."""
        if self.latency_ms is None:
            return None
        samples = 1e3 * self.question.batch
        return Estimate(samples / self.latency_ms.value, samples / self.latency_ms.high, samples / self.latency_ms.low)
