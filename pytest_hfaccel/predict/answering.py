"""One model on one piece of hardware: asks the layers, guards the answer, and says whether it fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from pytest_hfaccel.advisor.naming import NamedModel
from pytest_hfaccel.advisor.support import Support
from pytest_hfaccel.core.devices import TORCH_KINDS
from pytest_hfaccel.predict.declared_layer import DeclaredLayer
from pytest_hfaccel.predict.fitting import with_fit
from pytest_hfaccel.predict.layers import Layer, LayerChain
from pytest_hfaccel.predict.measured import MeasuredLayer, MeasuredPoint
from pytest_hfaccel.predict.monotone import monotone
from pytest_hfaccel.predict.platforms import Platform
from pytest_hfaccel.predict.prediction import Prediction, Question, Source
from pytest_hfaccel.predict.trace_source import TraceSource, reads_text
from pytest_hfaccel.tracing.trace import ModelTrace


@dataclass(frozen=True)
class DeviceLayers:
    """What answers for one device.

    Attributes:
        layers: The layers that need no rows of the model in question.
        declared: The layer that always answers.
        absent: Why a layer is not among them, by name.
    """

    layers: Sequence[Layer]
    declared: DeclaredLayer
    absent: dict[Source, str] = field(default_factory=dict)


class Answering:
    """Predicts one model on one platform, and remembers what it was asked.

    Args:
        model: The model.
        platform: The hardware.
        device: What answers for it.
        points_of: The measured rows of the model on the device that fit a question's dtype and mode.
        traces: What the model does.
    """

    def __init__(
        self,
        model: NamedModel,
        platform: Platform,
        device: DeviceLayers,
        points_of: Callable[[Question], Sequence[MeasuredPoint]],
        traces: TraceSource,
    ) -> None:
        self.model, self.platform = model, platform
        self._device, self._points_of, self._traces = device, points_of, traces
        self._asked: dict[Question, Prediction] = {}

    def predict(self, *, batch: int, length: int, dtype: str, training: bool) -> Prediction:
        """Return the prediction with its fit, advice and the declared support.

        Args:
            batch: Samples.
            length: Tokens per sample of texts.
            dtype: dtype of weights and activations.
            training: Whether a training step is meant.
        """
        question = self._question(batch, length, dtype, training)
        measured = MeasuredLayer(self._points_of(question), self._modelled)
        found = measured.predict(question, self.trace(question))
        if found is None:
            found = _passed_over(self._modelled(question), measured.why_not(question))

        def memory_at(batch: int, dtype: str) -> float | None:
            memory = self._modelled(replace(question, batch=batch, dtype=dtype)).memory_mb
            return memory.value if memory else None

        return self._explained(with_fit(found, self.platform, memory_at))

    def trace(self, question: Question) -> ModelTrace | None:
        """Return what the model does at a question's point; `None` where that cannot be told."""
        return self._traces.at(
            self.model,
            batch=question.batch,
            length=question.length,
            dtype=question.dtype,
            training=question.training,
        )

    def _question(self, batch: int, length: int, dtype: str, training: bool) -> Question:
        return Question(
            architecture=self.model.architecture,
            device=self.platform.device,
            batch=batch,
            length=length,
            dtype=dtype,
            training=training,
            model=self.model.canonical,
            family=self.model.family,
        )

    @cached_property
    def _chain(self) -> LayerChain:
        return LayerChain([*self._device.layers, self._device.declared], self._device.absent)

    def _modelled(self, question: Question) -> Prediction:
        """Return what follows without rows of this model, as it does not fall with batch or length."""
        trace = self.trace(question)
        if trace is None:
            return self._raw(question)
        # Beyond the positions a model has, more tokens are cut off.
        question = replace(question, length=min(question.length, trace.length))
        return monotone(self._raw, question, has_length=reads_text(trace))

    def _raw(self, question: Question) -> Prediction:
        if question not in self._asked:
            self._asked[question] = self._chain.predict(question, self.trace(question))
        return self._asked[question]

    def _explained(self, found: Prediction) -> Prediction:
        """Add where the dimensions come from, and what is known of support."""
        question = found.question
        about = ""
        if self.trace(question) is None:
            about = f"; {self._traces.problem(self.model, question.length, question.training)}"
        elif self.model.is_assumed:
            about = f"; model: {self.model.origin}"
        support = self._support(found)
        if support.basis == "detected" and not support.runs:
            # What a device refuses takes no time: a number would be that of another precision.
            found = replace(
                found, source=Source.DECLARED, basis=f"not supported here: {support.reason}", latency_ms=None
            )
        details = {**found.details, "support": support.to_json(), "model": self.model.origin}
        return replace(found, question=self._as_rows_have_it(question), basis=f"{found.basis}{about}", details=details)

    def _support(self, found: Prediction) -> Support:
        """Return what is known of support. Only torch's devices train, and what was measured was not refused."""
        question = found.question
        if question.training and question.device_kind not in TORCH_KINDS:
            why = f"models are trained with torch, on {', '.join(TORCH_KINDS)}"
            return Support("unavailable", "declared", why)
        precision = self.platform.precision(question.dtype)
        if not precision.runs and found.source != Source.MEASURED:
            return Support("unavailable", "detected", precision.reason)
        return self._device.declared.support(question)

    def _as_rows_have_it(self, question: Question) -> Question:
        """Return the question as rows of it are kept: without a length where the model reads no text."""
        trace = self.trace(question)
        return question if trace is None or reads_text(trace) else replace(question, length=0)


def _passed_over(found: Prediction, why: str) -> Prediction:
    """Note why rows did not answer before the other layers were asked."""
    reasons = {str(Source.MEASURED): why, **found.details.get("passed_over", {})}
    return replace(found, details={**found.details, "passed_over": reasons})
