"""The layers that add up the calibrated times of the traced operators: as they are, or with a learned correction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.devices import BROWSER_KINDS
from pytest_hfaccel.core.prediction import Estimate, Prediction, Question, Source
from pytest_hfaccel.predict.requirements import memory_of
from pytest_hfaccel.tracing.trace import ModelTrace

if TYPE_CHECKING:
    from pytest_hfaccel.predict.calibration.records import DeviceCalibration
    from pytest_hfaccel.predict.calibration.roofline import OperatorRoofline
    from pytest_hfaccel.predict.learning.models import TrainedModels

_BELOW, _ABOVE = 0.94, 1.26
"""Measured over predicted: four fifths of the rows of `docs/results/prediction_rows.jsonl.gz` lie between these factors
(torch and OpenVINO on a CPU). Operators disturb each other's caches, so it is low more often than high."""

_INTERVALS = {"onnxruntime": (0.8, 1.3), **dict.fromkeys(BROWSER_KINDS, (0.6, 2.0))}
"""The same for kinds of device that those rows are not of. ONNX Runtime's is from six models, in CPU time; that of
browsers from the same models in wasm on a machine that was busy. See `docs/hardware_model_predictor.md`."""


class _Rooflines:
    """Rooflines of calibrations, each made once: they index all its operators."""

    def __init__(self) -> None:
        self._made: dict[int, OperatorRoofline] = {}

    def of(self, calibration: DeviceCalibration) -> OperatorRoofline:
        from pytest_hfaccel.predict.calibration.roofline import OperatorRoofline

        if id(calibration) not in self._made:
            self._made[id(calibration)] = OperatorRoofline(calibration)
        return self._made[id(calibration)]


class CalibratedLayer:
    """Predicts from calibrations."""

    name = Source.CALIBRATED

    def __init__(self, calibrations: Sequence[DeviceCalibration], threads: int | None = None) -> None:
        self._calibrations = sorted(calibrations, key=lambda one: one.threads != threads)
        self._rooflines = _Rooflines()

    def why_not(self, question: Question) -> str:
        """Say why this layer has no answer."""
        from pytest_hfaccel.predict.calibration.calibrating import why_not_calibrated

        if problem := why_not_calibrated(question.device, question.dtype):
            return problem
        return f"no calibration of {question.device} at {question.dtype} (hfaccel calibrate --device {question.device})"

    def predict(self, question: Question, trace: ModelTrace | None) -> Prediction | None:
        """Return the prediction; `None` without a trace or a calibration of the device at the dtype."""
        calibration = self._find(question)
        if calibration is None or trace is None:
            return None
        seconds, (below, above), rests_on = self._estimate(trace, self._rooflines.of(calibration))
        noise = f"; {calibration.problem}" if calibration.problem else ""
        if calibration.details.get("implementation") == "emulated":
            noise += "; a software adapter computes there, in place of a GPU"
        basis = (
            f"{len(trace.operators)} kinds of traced operators at the speeds measured on {calibration.device_name} "
            f"({calibration.threads} threads, {calibration.taken[:10]}){rests_on}{noise}"
        )
        # Others on the machine only slowed the calibration down: the model may be faster by as much.
        below /= 1 + calibration.disturbance if calibration.problem else 1
        latency = Estimate.between(1e3 * seconds, below, above)
        details = {"calibration_problem": calibration.problem} if calibration.problem else {}
        memory = memory_of(trace, question.device_kind)
        return Prediction(question, self.name, basis, latency, memory, details=details)

    def _estimate(self, trace: ModelTrace, roofline: OperatorRoofline) -> tuple[float, tuple[float, float], str]:
        """Return the seconds, the factors of their interval, and what they rest on besides the calibration."""
        interval = _INTERVALS.get(roofline.calibration.kind, (_BELOW, _ABOVE))
        return roofline.seconds(trace), interval, "; no measured model"

    def _find(self, question: Question) -> DeviceCalibration | None:
        found = [one for one in self._calibrations if question.device in (one.device, one.kind)]
        return next((one for one in found if one.dtype == question.dtype), None)


class CorrectedLayer(CalibratedLayer):
    """Predicts from calibrations and the corrections that come with this package: for who has no rows to learn from.

    The corrections are ratios to the roofline, learned from the published rows (`benchmarks/shipped_corrections.py`).
    """

    name = Source.LEARNED

    def why_not(self, question: Question) -> str:
        """Say why this layer has no answer."""
        kinds = ", ".join(_corrections())
        none = f"no trained model of {question.device} (`hfaccel predict --train`)"
        return f"{none}; the corrections that come with this package need a calibration, of fp32 inference on {kinds}"

    def _find(self, question: Question) -> DeviceCalibration | None:
        if question.dtype != "fp32" or question.training:
            return None
        found = super()._find(question)
        return found if found is not None and found.device in _corrections() else None

    def _estimate(self, trace: ModelTrace, roofline: OperatorRoofline) -> tuple[float, tuple[float, float], str]:
        correction, calibration = _corrections()[roofline.calibration.device], roofline.calibration
        weights = correction["weights"]
        seconds = weights["call"] * calibration.call_seconds
        seconds += weights["launches"] * trace.launches * calibration.module_seconds
        seconds += sum(weights[group] * each for group, each in roofline.breakdown(trace).items())
        rests_on = (
            f", corrected by ratios that come with this package: learned from {correction['rows']} rows of "
            f"{correction['relatives']} kinds of models on an {correction['machine']}, none of them of this machine; "
            f"{correction['error']:.0%} mean error there on held-out kinds"
        )
        return seconds, (correction["interval"][0], correction["interval"][1]), rests_on


@cache
def _corrections() -> dict[str, Any]:
    """Corrections by device; only of devices of which rows were published."""
    text = files(__package__).joinpath("corrections.json").read_text(encoding="utf-8")
    return dict(json.loads(text)["devices"])


class LearnedLayer:
    """Predicts with trained models."""

    name = Source.LEARNED

    def __init__(self, models: TrainedModels, threads: int | None = None) -> None:
        self._models, self._threads = models, threads
        self._rooflines = _Rooflines()

    def why_not(self, question: Question) -> str:
        """Say why this layer has no answer."""
        trained = ", ".join(model.name for model in self._models) or "none"
        return f"no trained model for {question.device} at {question.dtype}; trained: {trained}"

    def predict(self, question: Question, trace: ModelTrace | None) -> Prediction | None:
        """Return the prediction; `None` without a trace, or where nothing was trained for the device and dtype."""
        model = self._models.find(question, self._threads)
        if model is None or trace is None:
            return None
        from pytest_hfaccel.predict.learning.models import point_of

        calibration = model.calibration
        point = point_of(trace, self._rooflines.of(calibration))
        memory = memory_of(trace, question.device_kind)
        if model.memory is not None and model.memory_interval is not None:
            memory = Estimate.between(float(model.memory.predict([point])[0]), *model.memory_interval)
        basis = (
            f"traced operators, the calibration of {calibration.device_name} ({calibration.threads} threads, "
            f"{calibration.taken[:10]}), corrected by {model.rows} measured rows of {model.relatives} kinds of models, "
            f"none of them this one's; {model.latency_error:.0%} mean error on held-out kinds"
        )
        latency = Estimate.between(1e3 * float(model.latency.predict([point])[0]), *model.latency_interval)
        return Prediction(question, self.name, basis, latency, memory, model.rows)
