"""Puts together what a prediction needs - the machine, the models, the rows, the layers - and asks the layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.devices import TORCH_KINDS
from pytest_hfaccel.core.errors import ConfigError, HfAccelError
from pytest_hfaccel.core.prediction import Prediction, Question, Source
from pytest_hfaccel.predict.configuration import PredictorConfig
from pytest_hfaccel.predict.evidence import Evidence
from pytest_hfaccel.predict.layers import Layer, LayerChain, monotone
from pytest_hfaccel.predict.layers.datasheet import DatasheetLayer
from pytest_hfaccel.predict.layers.measured import MeasuredLayer, MeasuredPoint
from pytest_hfaccel.predict.naming import ModelFinder, NamedModel
from pytest_hfaccel.predict.platforms import KnownDevice, Platform, Platforms, load_specifications
from pytest_hfaccel.predict.requirements import DEFAULT_LENGTH
from pytest_hfaccel.predict.requirements.memory import with_fit
from pytest_hfaccel.predict.support import (
    CompatibilityMatrix,
    DeclaredLayer,
    MeasuredCell,
    Support,
    cells_of_measurements,
    measured_cells,
    measurements_of,
)
from pytest_hfaccel.tracing.trace import ModelTrace

if TYPE_CHECKING:
    from pytest_hfaccel.hardware import HardwareReport
    from pytest_hfaccel.predict.learning.models import TrainedModels
    from pytest_hfaccel.registry import Registry


class TraceSource:
    """Traces models once, and remembers why one could not be traced.

    A model that reads no text does the same at any length: it is traced at the first length that was asked for.

    Args:
        cache_dir: Where traces are remembered between processes.
    """

    def __init__(self, cache_dir: Path) -> None:
        self._cache_dir = cache_dir
        self._problems: dict[tuple[str, int, bool], str] = {}
        self._only_length: dict[tuple[str, bool], int] = {}

    def at(self, model: NamedModel, *, batch: int, length: int, dtype: str, training: bool) -> ModelTrace | None:
        """Return what a model does at a point, or `None`; `problem` says why.

        Args:
            model: The model.
            batch: Samples.
            length: Tokens per sample of text inputs.
            dtype: dtype of weights and activations.
            training: Whether a training step is meant.
        """
        length = self._only_length.get((model.key, training), length)
        place = (model.key, length, training)
        if not model.architecture or place in self._problems:
            return None
        from pytest_hfaccel.tracing.traces import trace_of

        try:
            trace = trace_of(
                model.architecture,
                model.dims,
                batch=batch,
                length=length,
                dtype=dtype,
                training=training,
                cache_dir=self._cache_dir,
            )
        except HfAccelError as error:
            self._problems[place] = error.message
            return None
        if not reads_text(trace):
            self._only_length[model.key, training] = length
        return trace

    def problem(self, model: NamedModel, length: int, training: bool) -> str:
        """Say why a model has no trace."""
        return self._problems.get((model.key, length, training), model.origin)


def reads_text(trace: ModelTrace) -> bool:
    """Whether a model looks up tokens in a table, so that what it does depends on their number."""
    return any(operator.name == "embedding" for operator in trace.operators)


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


class ModelPredictor:
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
        """Return what the model does at a question's point; `None` where it could not be traced."""
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


class Engine:
    """Predicts any model on any platform.

    Args:
        config: The configuration file's content.
        database_path: Where measured rows are kept.
        benchmark_dir: A directory with results.
        report: The hardware of the machine (default: this one's, found by the cheap probes).
        registry: The models that are known (default: those of the run configuration).
        assume_default: Whether a class's default config may stand in for dimensions that are not known.
    """

    def __init__(
        self,
        config: PredictorConfig,
        database_path: Path | None = None,
        benchmark_dir: Path | None = None,
        *,
        report: HardwareReport | None = None,
        registry: Registry | None = None,
        assume_default: bool = False,
    ) -> None:
        run = RunConfig.from_values({})
        self.config = config
        self.cache_dir = Path(config.cache_dir).expanduser() if config.cache_dir else run.cache_dir
        self._reports = Path(config.reports).expanduser() if config.reports else run.reports_dir
        self._registries = [Path(file) for file in run.registries]
        self._report, self._registry, self._assume_default = report, registry, assume_default
        models_dir = Path(config.models_dir).expanduser() if config.models_dir else None
        self.evidence = Evidence(
            self.cache_dir, database_path, benchmark_dir, models_dir, lambda: measurements_of(self.cells)
        )
        self._models: TrainedModels | None = None
        self._has_models = False
        self._predictors: dict[tuple[str, str, str], ModelPredictor] = {}

    @cached_property
    def report(self) -> HardwareReport:
        """The hardware of the machine."""
        from pytest_hfaccel.hardware import probe_devices

        return self._report or probe_devices()

    @cached_property
    def registry(self) -> Registry:
        """The models that are known."""
        from pytest_hfaccel.registry import load_registry

        return self._registry or load_registry(self._registries, cache_dir=self.cache_dir)

    @cached_property
    def models(self) -> ModelFinder:
        """Finds what a model's name means."""
        return ModelFinder(self.registry, assume_default=self._assume_default)

    @cached_property
    def platforms(self) -> Platforms:
        """Finds what a name of hardware means: the devices that are here come first, then those that have rows."""
        here = [
            KnownDevice(each.device, each.name, True, each.memory_bytes, int(each.details.get("cores", 0)), each)
            for each in self.report.presences
            if each.present
        ]
        cores = next((each.cores for each in here if each.cores), 0)
        here = [replace(each, cores=cores) if each.device.id == "openvino:CPU" else each for each in here]
        names = {(each.device.id, each.name) for each in here}
        there = [each for each in self.evidence.known_devices() if (each.device.id, each.name) not in names]
        return Platforms(load_specifications(), (*here, *there), self.config.devices)

    @property
    def threads(self) -> int:
        """CPU threads of the runs that are predicted."""
        cores = next((each.cores for each in self.platforms.known if each.device.kind == "cpu"), 1)
        return self.config.threads or cores or 1

    @property
    def trained(self) -> TrainedModels | None:
        """The trained models that correct the roofline."""
        return self._models if self._has_models else self.evidence.models

    def use_models(self, models: TrainedModels | None) -> None:
        """Use other trained models, or none."""
        self._models, self._has_models = models, True
        self._predictors.clear()

    def predict(
        self, model: NamedModel, platform: Platform, *, batch: int, length: int, dtype: str, training: bool
    ) -> Prediction:
        """Return the prediction of a model on a platform.

        Args:
            model: The model.
            platform: The hardware.
            batch: Samples.
            length: Tokens per sample of texts.
            dtype: dtype of weights and activations.
            training: Whether a training step is meant.
        """
        found = self.predictor_of(model, platform).predict(batch=batch, length=length, dtype=dtype, training=training)
        name = platform.device_name or (platform.chip.name if platform.chip else "")
        about = {"device_name": name, "threads": self.threads if platform.kind in ("cpu", "openvino") else None}
        return replace(found, details={**found.details, **about})

    def length_of(self, model: NamedModel, length: int, *, training: bool) -> int:
        """Return the tokens per sample that are meant: fewer than the default where the model takes no more.

        Args:
            model: The model.
            length: The tokens that were asked for.
            training: Whether a training step is meant.

        Raises:
            ConfigError: More tokens were asked for than the model takes, and more than are by default.
        """
        trace = self.traces.at(model, batch=1, length=length, dtype="fp32", training=training)
        if trace is None or not reads_text(trace) or trace.length >= length:
            return length
        if length > DEFAULT_LENGTH:
            raise ConfigError(
                f"sequence_length: {model.name} takes {trace.length} tokens at most, not {length}.",
                hint=f"Ask for {trace.length} or fewer (--seq-length {trace.length}).",
            )
        return trace.length

    def predictor_of(self, model: NamedModel, platform: Platform) -> ModelPredictor:
        """Return what predicts a model on a platform."""
        key = (model.name, model.key, platform.device + platform.device_name)
        if key not in self._predictors:

            def points_of(question: Question) -> Sequence[MeasuredPoint]:
                return self.evidence.points(model, platform, question, self.threads)

            self._predictors[key] = ModelPredictor(model, platform, self._layers(platform), points_of, self.traces)
        return self._predictors[key]

    @cached_property
    def traces(self) -> TraceSource:
        """What models do."""
        return TraceSource(self.cache_dir)

    @cached_property
    def declared(self) -> DeclaredLayer:
        """What is known of support."""
        return DeclaredLayer(self.matrix)

    @cached_property
    def cells(self) -> list[MeasuredCell]:
        """The cells of earlier runs, the oldest first."""
        return measured_cells(self._reports)

    @cached_property
    def matrix(self) -> CompatibilityMatrix:
        """Declared support, overwritten by measured rows, then by the cells of earlier runs."""
        return CompatibilityMatrix([*cells_of_measurements(self.evidence.kept_rows), *self.cells])

    def _layers(self, platform: Platform) -> DeviceLayers:
        layers: list[Layer] = []
        absent: dict[Source, str] = {}
        if platform.device_name:
            layers = self._layers_of_known(platform)
        else:
            why = f"{platform.name} is not in this machine, and the database has no rows of it"
            absent = dict.fromkeys((Source.LEARNED, Source.CALIBRATED), why)
        if platform.chip is not None:
            layers.append(DatasheetLayer(platform.chip, platform.why_chip, platform.precision))
        return DeviceLayers(layers, self.declared, absent)

    def _layers_of_known(self, platform: Platform) -> list[Layer]:
        """Return the layers that rest on measurements of this very device."""
        from pytest_hfaccel.predict.layers.roofline import CalibratedLayer, CorrectedLayer, LearnedLayer

        calibrations = [
            each
            for each in self.evidence.calibrations
            if (each.device, each.device_name) == (platform.device, platform.device_name)
        ]
        trained = self._trained_for(platform)
        if trained is None:
            learned: Layer = CorrectedLayer(calibrations, self.threads)
        else:
            learned = LearnedLayer(trained, self.threads)
        return [learned, CalibratedLayer(calibrations, self.threads)]

    def _trained_for(self, platform: Platform) -> TrainedModels | None:
        """Return those trained models that are of this chip."""
        if self.trained is None:
            return None
        from pytest_hfaccel.predict.learning.models import TrainedModels

        own = [each for each in self.trained if each.calibration.device_name == platform.device_name]
        return TrainedModels(own) if own else None
