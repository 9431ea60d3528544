"""The layer that answers from a data sheet, for devices that are not here."""

from __future__ import annotations

from collections.abc import Callable

from pytest_hfaccel.hardware.precisions import NATIVE, PrecisionSupport
from pytest_hfaccel.predict.datasheet.roofline import roofline_seconds
from pytest_hfaccel.predict.datasheet.shares import Shares, shares_of
from pytest_hfaccel.predict.datasheet.specification import GB, DeviceSpecification
from pytest_hfaccel.predict.learning.memory import memory_of
from pytest_hfaccel.predict.prediction import Prediction, Question, Source
from pytest_hfaccel.tracing.trace import ModelTrace


class DatasheetLayer:
    """Answers with the plain roofline of a device's data sheet and the shares of it that models reach.

    Args:
        device: The device's data sheet.
        why: Why this device stands for the one that was asked about, half a sentence; empty where it is that one.
        precision: How the device that was asked about computes at a dtype.
    """

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
        shares = shares_of(question.device_kind)
        problem = self._problem(question)
        seconds = None if problem else roofline_seconds(trace, self._device, shares.reached)
        return Prediction(
            question=question,
            source=self.name,
            basis=self._basis(question, shares),
            latency_ms=shares.around(seconds) if seconds is not None else None,
            memory_mb=memory_of(trace, question.device_kind),
            details={
                "device": self._device.name,
                "data_sheet": self._device.source,
                "shares": shares.origin,
                "roofline_ms": None if seconds is None else 1e3 * (roofline_seconds(trace, self._device) or 0.0),
            },
        )

    def why_not(self, question: Question) -> str:
        """Say why there is no latency."""
        return self._problem(question) or self._not_published(question)

    def _problem(self, question: Question) -> str:
        """Say why the data sheet cannot tell the time at a dtype; empty where it can.

        A CPU's half precision takes from an eighth of fp32's time (AMX) to several times it (emulated): that of
        another CPU says nothing.
        """
        support = self._precision(question.dtype)
        measure = f"`hfaccel calibrate --dtype {question.dtype}` measures it"
        if not support.is_native:
            return f"{support.reason}; {measure}"
        if self._device.cores and self._why and question.dtype in ("bf16", "fp16"):
            return (
                f"the data sheet of another CPU ({self._device.name}) says nothing of {question.dtype} here; {measure}"
            )
        return "" if self._device.peak(question.dtype) else self._not_published(question)

    def _not_published(self, question: Question) -> str:
        return f"no speed at {question.dtype} is published for {self._device.name} ({self._device.source})"

    def _basis(self, question: Question, shares: Shares) -> str:
        sheet = f"data sheet of {self._device.name} ({self._device.published}){f', {self._why}' if self._why else ''}"
        peak = self._device.peak(question.dtype)
        if peak is None or self._problem(question):
            return f"{sheet}: {self.why_not(question)}"
        reached, dtype = shares.reached, self._device.computes_at(question.dtype)
        clock = " at the base clock, which cores exceed" if self._device.cores else ""
        return (
            f"{sheet}: {peak / 1e12:.4g} TFLOP/s at {dtype}{clock}, of which models reach {reached.share(dtype):.0%}, "
            f"{self._device.bandwidth / GB:.4g} GB/s, of which they reach {reached.memory:.0%}, and "
            f"{1e6 * reached.launch_seconds:.2g} us per operator; shares {shares.source}"
        )
