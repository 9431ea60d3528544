"""The layer that corrects the roofline by what was learned from measured rows of other models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_hfaccel.predict.prediction import Estimate, Prediction, Question, Source
from pytest_hfaccel.tracing.trace import ModelTrace

if TYPE_CHECKING:
    from pytest_hfaccel.predict.learning.trained import DeviceModel, TrainedModels
    from pytest_hfaccel.predict.roofline.operators import OperatorRoofline


class LearnedLayer:
    """Predicts with trained models.

    Args:
        models: What `training.train` returned.
        threads: CPU threads of the runs that are asked about; any when not given.
    """

    name = Source.LEARNED

    def __init__(self, models: TrainedModels, threads: int | None = None) -> None:
        self._models = models
        self._threads = threads
        self._rooflines: dict[str, OperatorRoofline] = {}

    def why_not(self, question: Question) -> str:
        """Say why this layer has no answer."""
        from pytest_hfaccel.predict.learning.trained import names

        return f"no trained model for {question.device} at {question.dtype}; trained: {names(self._models)}"

    def predict(self, question: Question, trace: ModelTrace | None) -> Prediction | None:
        """Return the prediction; `None` without a trace, or where nothing was trained for the device and dtype."""
        model = self._models.find(question, self._threads)
        if model is None or trace is None:
            return None
        from pytest_hfaccel.predict.learning.memory import memory_of
        from pytest_hfaccel.predict.learning.rows import point_of

        point = point_of(trace, self._roofline(model))
        milliseconds = 1e3 * float(model.latency.predict([point])[0])
        memory = memory_of(trace, question.device_kind)
        if model.memory is not None and model.memory_interval is not None:
            memory = _interval(float(model.memory.predict([point])[0]), model.memory_interval)
        return Prediction(
            question, self.name, _basis(model), _interval(milliseconds, model.latency_interval), memory, model.rows
        )

    def _roofline(self, model: DeviceModel) -> OperatorRoofline:
        from pytest_hfaccel.predict.roofline.operators import OperatorRoofline

        if model.name not in self._rooflines:
            self._rooflines[model.name] = OperatorRoofline(model.calibration)
        return self._rooflines[model.name]


def _interval(value: float, factors: tuple[float, float]) -> Estimate:
    return Estimate(value, factors[0] * value, factors[1] * value)


def _basis(model: DeviceModel) -> str:
    calibration = model.calibration
    return (
        f"traced operators, the calibration of {calibration.device_name} ({calibration.threads} threads, "
        f"{calibration.taken[:10]}), corrected by {model.rows} measured rows of {model.relatives} kinds of models, "
        f"none of them this one's; {model.latency_error:.0%} mean error on kinds that were held out"
    )
