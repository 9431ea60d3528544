"""The layer that adds up the calibrated times of the traced operators; it needs no measured model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_hfaccel.predict.prediction import Estimate, Prediction, Question, Source
from pytest_hfaccel.tracing.trace import ModelTrace

if TYPE_CHECKING:
    from pytest_hfaccel.predict.calibration.records import DeviceCalibration
    from pytest_hfaccel.predict.roofline.operators import OperatorRoofline

_BELOW, _ABOVE = 0.94, 1.26
"""Measured over predicted: four fifths of the rows of `docs/results/prediction_rows.jsonl.gz` lie between these factors
(torch and OpenVINO on a CPU). Operators disturb each other's caches, so it is low more often than high."""


class CalibratedLayer:
    """Predicts from calibrations.

    Args:
        calibrations: Of the devices that are here, the newest first.
        threads: CPU threads of the runs that are asked about; any when not given.
    """

    name = Source.CALIBRATED

    def __init__(self, calibrations: Sequence[DeviceCalibration], threads: int | None = None) -> None:
        self._calibrations = sorted(calibrations, key=lambda one: one.threads != threads)
        self._rooflines: dict[int, OperatorRoofline] = {}

    def why_not(self, question: Question) -> str:
        """Say why this layer has no answer."""
        return f"no calibration of {question.device} at {question.dtype} (hfaccel calibrate --device {question.device})"

    def predict(self, question: Question, trace: ModelTrace | None) -> Prediction | None:
        """Return the prediction; `None` without a trace or a calibration of the device at the dtype."""
        calibration = self._find(question)
        if calibration is None or trace is None:
            return None
        from pytest_hfaccel.predict.learning.memory import memory_of

        milliseconds = 1e3 * self._roofline(calibration).seconds(trace)
        noise = f"; {calibration.problem}" if calibration.problem else ""
        basis = (
            f"{len(trace.operators)} kinds of traced operators at the speeds measured on {calibration.device_name} "
            f"({calibration.threads} threads, {calibration.taken[:10]}); no measured model{noise}"
        )
        # Others on the machine only slowed the calibration down: the model may be faster by as much.
        below = _BELOW / (1 + calibration.disturbance if calibration.problem else 1)
        latency = Estimate(milliseconds, below * milliseconds, _ABOVE * milliseconds)
        details = {"calibration_problem": calibration.problem} if calibration.problem else {}
        memory = memory_of(trace, question.device_kind)
        return Prediction(question, self.name, basis, latency, memory, details=details)

    def _find(self, question: Question) -> DeviceCalibration | None:
        found = [one for one in self._calibrations if question.device in (one.device, one.kind)]
        return next((one for one in found if one.dtype == question.dtype), None)

    def _roofline(self, calibration: DeviceCalibration) -> OperatorRoofline:
        from pytest_hfaccel.predict.roofline.operators import OperatorRoofline

        if id(calibration) not in self._rooflines:
            self._rooflines[id(calibration)] = OperatorRoofline(calibration)
        return self._rooflines[id(calibration)]
