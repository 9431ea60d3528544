"""The layer that answers from a data sheet, for devices that are not here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from pytest_hfaccel.core.prediction import Estimate, Prediction, Question, Source
from pytest_hfaccel.hardware.precisions import NATIVE, PrecisionSupport
from pytest_hfaccel.predict.platforms import GB, DeviceSpecification
from pytest_hfaccel.predict.requirements import memory_of
from pytest_hfaccel.tracing.trace import ModelTrace


@dataclass(frozen=True)
class Reached:
    """What models reach of a data sheet.

    Attributes:
        compute: Share of the peak speed that products reach at fp32.
        half: The same at bf16 and fp16, whose matrix units are harder to feed.
        memory: Share of the memory's bandwidth.
        launch_seconds: What each operator costs beyond that: the framework's own time.
    """

    compute: float
    half: float
    memory: float
    launch_seconds: float

    def share(self, dtype: str) -> float:
        """Return the share of the peak that is reached at a dtype."""
        return self.half if dtype in ("bf16", "fp16") else self.compute


PERFECT = Reached(1.0, 1.0, 1.0, 0.0)
"""The data sheet itself, which nothing can be faster than."""


def roofline_seconds(trace: ModelTrace, device: DeviceSpecification, reached: Reached = PERFECT) -> float | None:
    """Return the seconds of a forward pass (a training step) on a device; `None` where its speed is not published."""
    peak = device.peak(trace.dtype)
    if peak is None:
        return None
    flops, bandwidth = peak * reached.share(device.computes_at(trace.dtype)), device.bandwidth * reached.memory
    operators = sum(
        one.count * max(one.flops / flops, (one.read_bytes + one.written_bytes) / bandwidth)
        for one in trace.operators
        if not one.is_view
    )
    return operators + trace.launches * reached.launch_seconds


@dataclass(frozen=True)
class Shares:
    """What models reach of a data sheet on one kind of device.

    Attributes:
        reached: The fitted shares.
        low: Lower end of the interval, as a factor on the predicted time.
        high: Upper end.
        source: The rows behind it, in a few words.
        origin: Where these rows can be found.
    """

    reached: Reached
    low: float
    high: float
    source: str
    origin: str


@cache
def shares_of(kind: str) -> Shares:
    """Return the shares of a kind of device.

    Where nothing was measured of a kind, those of another one stand in, with an interval twice as wide on the
    logarithmic scale; `source` says so.
    """
    import yaml

    text = files(__package__).joinpath("shares.yaml").read_text(encoding="utf-8")
    table: dict[str, dict[str, Any]] = yaml.safe_load(text)["kinds"]
    row = table.get(kind, table["other"])
    if "like" in row:
        like = shares_of(row["like"])
        why = f"of {row['like']}, {like.source}, because nothing measured on {kind} was at hand"
        return Shares(like.reached, like.low**2, like.high**2, why, like.origin)
    reached = Reached(row["compute"], row["half"], row["memory"], 1e-6 * row["launch_us"])
    low, high = row["interval"]
    return Shares(reached, low, high, row["source"], " ".join(row["origin"].split()))


class DatasheetLayer:
    """Answers with the plain roofline of a device's data sheet and the shares of it that models reach."""

    name = Source.DATASHEET

    def __init__(
        self,
        device: DeviceSpecification,
        why: str = "",
        precision: Callable[[str], PrecisionSupport] = lambda _: NATIVE,
    ) -> None:
        self._device, self._why, self._precision = device, why, precision

    def predict(self, question: Question, trace: ModelTrace | None) -> Prediction | None:
        """Return the prediction; without a latency where the vendor publishes no speed."""
        if trace is None:
            return None
        shares, problem = shares_of(question.device_kind), self.why_not(question)
        seconds = None if problem else roofline_seconds(trace, self._device, shares.reached)
        return Prediction(
            question=question,
            source=self.name,
            basis=self._basis(question, shares, problem),
            latency_ms=Estimate.between(1e3 * seconds, shares.low, shares.high) if seconds is not None else None,
            memory_mb=memory_of(trace, question.device_kind),
            details={
                "device": self._device.name,
                "data_sheet": self._device.source,
                "shares": shares.origin,
                "roofline_ms": None if seconds is None else 1e3 * (roofline_seconds(trace, self._device) or 0.0),
            },
        )

    def why_not(self, question: Question) -> str:
        """Say why the data sheet cannot tell the time at a dtype; empty where it can.

        A CPU's half precision takes from an eighth of fp32's time (AMX) to several times it (emulated): that of
        another CPU says nothing.
        """
        support, dtype = self._precision(question.dtype), question.dtype
        measure = f"`hfaccel calibrate --dtype {dtype}` measures it"
        if not support.is_native:
            return f"{support.reason}; {measure}"
        if self._device.cores and self._why and dtype in ("bf16", "fp16"):
            return f"the data sheet of another CPU ({self._device.name}) says nothing of {dtype} here; {measure}"
        if self._device.peak(dtype):
            return ""
        return f"no speed at {dtype} is published for {self._device.name} ({self._device.source})"

    def _basis(self, question: Question, shares: Shares, problem: str) -> str:
        device, reached = self._device, shares.reached
        sheet = f"data sheet of {device.name} ({device.published}){f', {self._why}' if self._why else ''}"
        dtype = device.computes_at(question.dtype)
        peak = device.peak(dtype)
        if peak is None or problem:
            return f"{sheet}: {problem}"
        clock = " at the base clock, which cores exceed" if device.cores else ""
        return (
            f"{sheet}: {peak / 1e12:.4g} TFLOP/s at {dtype}{clock}, of which models reach {reached.share(dtype):.0%}, "
            f"{device.bandwidth / GB:.4g} GB/s, of which they reach {reached.memory:.0%}, and "
            f"{1e6 * reached.launch_seconds:.2g} us per operator; shares {shares.source}"
        )
