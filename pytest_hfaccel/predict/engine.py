"""Puts together what a prediction needs - the machine, the models, the rows, the layers - and asks the layers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.devices import TORCH_KINDS
from pytest_hfaccel.core.errors import ConfigError, HfAccelError
from pytest_hfaccel.core.prediction import Prediction, Question, Source
from pytest_hfaccel.predict.configuration import PredictorConfig
from pytest_hfaccel.predict.evidence import Evidence
from pytest_hfaccel.predict.layers import Layer, ask_layers, monotone
from pytest_hfaccel.predict.layers.datasheet import DatasheetLayer
from pytest_hfaccel.predict.layers.measured import MeasuredLayer
from pytest_hfaccel.predict.measured_cells import (
    MeasuredCell,
    Support,
    cells_of_measurements,
    measured_cells,
    measurements_of,
)
from pytest_hfaccel.predict.naming import ModelFinder, NamedModel
from pytest_hfaccel.predict.platforms import Platform, Platforms, load_specifications
from pytest_hfaccel.predict.requirements import DEFAULT_LENGTH, with_fit
from pytest_hfaccel.predict.support import CompatibilityMatrix
from pytest_hfaccel.tracing.trace import ModelTrace

if TYPE_CHECKING:
    from pytest_hfaccel.hardware import HardwareReport
    from pytest_hfaccel.predict.learning.models import TrainedModels
    from pytest_hfaccel.registry import Registry


@dataclass(frozen=True)
class Task:
    """What is run.

    Attributes:
        batch: Samples; of all devices together where there are several.
        length: Tokens per sample of texts.
        dtype: dtype of weights and activations.
        training: Whether a training step is meant, else a forward pass.
    """

    batch: int = 1
    length: int = DEFAULT_LENGTH
    dtype: str = "fp32"
    training: bool = False


_THREADED = ("cpu", "openvino", "onnxruntime", "wasm")
"""Kinds of device whose speed depends on the number of CPU threads."""


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
            self.cache_dir, database_path, benchmark_dir, models_dir, lambda: measurements_of(self._cells)
        )
        self._predictors: dict[tuple[str, str, str], _ModelPredictor] = {}
        self._untraced: dict[tuple[str, int, bool], str] = {}
        self._only_length: dict[tuple[str, bool], int] = {}

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
        from pytest_hfaccel.hardware import probe_devices

        report = self._report or probe_devices()
        here = [each for each in report.presences if each.present]
        cores = next((each.details["cores"] for each in here if each.details.get("cores")), 0)
        here = [
            replace(each, details={**each.details, "cores": cores}) if each.device.id == "openvino:CPU" else each
            for each in here
        ]
        here = [each if each.name else replace(each, name=self.evidence.name_here(each.device)) for each in here]
        names = {(each.device.id, each.name) for each in here}
        there = [each for each in self.evidence.known_devices() if (each.device.id, each.name) not in names]
        return Platforms(load_specifications(), (*here, *there), self.config.devices)

    @property
    def threads(self) -> int:
        """CPU threads of the runs that are predicted."""
        cores = next((each.details.get("cores", 0) for each in self.platforms.known if each.device.kind == "cpu"), 1)
        return int(self.config.threads or cores or 1)

    @cached_property
    def _cells(self) -> list[MeasuredCell]:
        return measured_cells(self._reports)

    @cached_property
    def matrix(self) -> CompatibilityMatrix:
        """Declared support, overwritten by measured rows, then by the cells of earlier runs: newer ones by date."""
        cells = sorted([*self.evidence.cells, *self._cells], key=lambda cell: cell.when)
        return CompatibilityMatrix([*cells_of_measurements(self.evidence.kept_rows), *cells])

    @property
    def trained(self) -> TrainedModels | None:
        """The trained models that correct the roofline; set it to use others, or none."""
        return self.evidence.models

    @trained.setter
    def trained(self, models: TrainedModels | None) -> None:
        self.evidence.models = models
        self._predictors.clear()

    def predict(self, model: NamedModel, platform: Platform, task: Task) -> Prediction:
        """Return the prediction of a model on a platform, with its fit, advice and what is known of support."""
        key = (model.name, model.key, platform.device + platform.device_name)
        if key not in self._predictors:
            self._predictors[key] = _ModelPredictor(self, model, platform)
        found = self._predictors[key].predict(task)
        threads = self.threads if platform.kind in _THREADED else None
        return replace(found, details={**found.details, "device_name": platform.chip_name, "threads": threads})

    def length_of(self, model: NamedModel, length: int, *, training: bool) -> int:
        """Return the tokens per sample that are meant: fewer than the default where the model takes no more.

        Raises:
            ConfigError: More tokens were asked for than the model takes, and more than are by default.
        """
        trace = self.trace(model, Task(length=length, training=training))
        if trace is None or not reads_text(trace) or trace.length >= length:
            return length
        if length > DEFAULT_LENGTH:
            raise ConfigError(
                f"sequence_length: {model.name} takes {trace.length} tokens at most, not {length}.",
                hint=f"Ask for {trace.length} or fewer (--seq-length {trace.length}).",
            )
        return trace.length

    def trace(self, model: NamedModel, task: Task | Question) -> ModelTrace | None:
        """Return what a model does, or `None`; `why_untraced` says why.

        A model that reads no text does the same at any length: it is traced at the first length that was asked for.
        """
        length = self._only_length.get((model.key, task.training), task.length)
        place = (model.key, length, task.training)
        if not model.architecture or place in self._untraced:
            return None
        from pytest_hfaccel.tracing.traces import trace_of

        try:
            trace = trace_of(
                model.architecture,
                model.dims,
                batch=task.batch,
                length=length,
                dtype=task.dtype,
                training=task.training,
                cache_dir=self.cache_dir,
            )
        except HfAccelError as error:
            self._untraced[place] = error.message
            return None
        if not reads_text(trace):
            self._only_length[model.key, task.training] = length
        return trace

    def why_untraced(self, model: NamedModel, task: Task | Question) -> str:
        """Say why a model has no trace."""
        return self._untraced.get((model.key, task.length, task.training), model.origin)

    def layers(self, platform: Platform) -> tuple[list[Layer], dict[Source, str]]:
        """Return the layers that need no rows of the model in question, and why others are absent."""
        layers: list[Layer] = []
        absent: dict[Source, str] = {}
        if platform.device_name:
            from pytest_hfaccel.predict.layers.roofline import CalibratedLayer, CorrectedLayer, LearnedLayer

            own = (platform.device, platform.device_name)
            calibrations = [each for each in self.evidence.calibrations if (each.device, each.device_name) == own]
            trained = self.trained and self.trained.of_chip(platform.device_name)
            corrected = CorrectedLayer(calibrations, self.threads)
            layers = [
                LearnedLayer(trained, self.threads) if trained else corrected,
                CalibratedLayer(calibrations, self.threads),
            ]
        else:
            why = f"{platform.name} is not in this machine, and the database has no rows of it"
            absent = dict.fromkeys((Source.LEARNED, Source.CALIBRATED), why)
        if platform.chip is not None:
            layers.append(DatasheetLayer(platform.chip, platform.why_chip, platform.precision))
        return [*layers, self.matrix], absent


def _how_to_calibrate(platform: Platform, dtype: str) -> str:
    """Say how a device without a number gets one: the number of another device would be no answer."""
    from pytest_hfaccel.predict.calibration.calibrating import why_not_calibrated

    if problem := why_not_calibrated(platform.device, dtype):
        return f"{problem}; a number needs rows that were measured there (`hfaccel bench`)"
    device = platform.device if platform.is_present else platform.name
    command = (
        f"`hfaccel calibrate --device {device}`"
        if dtype == "fp32"
        else f"`hfaccel calibrate --device {device} --dtype {dtype}`"
    )
    if platform.is_present:
        return f"it is not calibrated at {dtype}: {command} measures it"
    return f"it is not in this machine, and no calibration of it is at hand: {command} takes one where it is"


def reads_text(trace: ModelTrace) -> bool:
    """Whether a model looks up tokens in a table, so that what it does depends on their number."""
    return any(operator.name == "embedding" for operator in trace.operators)


class _ModelPredictor:
    """Predicts one model on one platform, and remembers what its layers were asked."""

    def __init__(self, engine: Engine, model: NamedModel, platform: Platform) -> None:
        self._engine, self._model, self._platform = engine, model, platform
        self._layers, self._absent = engine.layers(platform)
        self._asked: dict[Question, Prediction] = {}

    def predict(self, task: Task) -> Prediction:
        """Return the prediction with its fit, advice and what is known of support."""
        engine, model = self._engine, self._model
        question = Question(
            architecture=model.architecture,
            device=self._platform.device,
            batch=task.batch,
            length=task.length,
            dtype=task.dtype,
            training=task.training,
            model=model.canonical,
            family=model.family,
        )
        trace = engine.trace(model, task)
        points = engine.evidence.points(model, self._platform, question, engine.threads)
        measured = MeasuredLayer(points, self._modelled)
        found = measured.predict(question, trace)
        if found is None:
            found = self._modelled(question)
            reasons = {str(Source.MEASURED): measured.why_not(question), **found.details.get("passed_over", {})}
            found = replace(found, details={**found.details, "passed_over": reasons})

        def memory_at(batch: int, dtype: str) -> float | None:
            memory = self._modelled(replace(question, batch=batch, dtype=dtype)).memory_mb
            return memory.value if memory else None

        return self._explained(with_fit(found, self._platform, memory_at))

    def _modelled(self, question: Question) -> Prediction:
        """Return what follows without rows of this model, as it does not fall with batch or length."""
        trace = self._engine.trace(self._model, question)
        if trace is None:
            return self._raw(question)
        # Beyond the positions a model has, more tokens are cut off.
        question = replace(question, length=min(question.length, trace.length))
        return monotone(self._raw, question, has_length=reads_text(trace))

    def _raw(self, question: Question) -> Prediction:
        if question not in self._asked:
            trace = self._engine.trace(self._model, question)
            self._asked[question] = ask_layers(self._layers, question, trace, self._absent)
        return self._asked[question]

    def _explained(self, found: Prediction) -> Prediction:
        """Add where the dimensions come from, and what is known of support."""
        question, about = found.question, ""
        trace = self._engine.trace(self._model, question)
        if trace is None:
            about = f"; {self._engine.why_untraced(self._model, question)}"
        elif found.latency_ms is None and not question.training:
            about = f"; {_how_to_calibrate(self._platform, question.dtype)}"
        elif self._model.is_assumed:
            about = f"; model: {self._model.origin}"
        support, basis = self._support(found), found.basis
        if support.basis == "detected" and not support.runs:
            # What a device refuses takes no time: a number would be that of another precision.
            basis = f"not supported here: {support.reason}"
            found = replace(found, source=Source.DECLARED, latency_ms=None)
        if trace is not None and not reads_text(trace):
            question = replace(question, length=0)  # as rows of it are kept
        details = {**found.details, "support": support.to_json(), "model": self._model.origin}
        return replace(found, question=question, basis=f"{basis}{about}", details=details)

    def _support(self, found: Prediction) -> Support:
        """Return what is known of support. Only torch's devices train, and what was measured was not refused."""
        question = found.question
        if question.training and question.device_kind not in TORCH_KINDS:
            why = f"models are trained with torch, on {', '.join(TORCH_KINDS)}"
            return Support("unavailable", "declared", why)
        precision = self._platform.precision(question.dtype)
        if not precision.runs and found.source != Source.MEASURED:
            return Support("unavailable", "detected", precision.reason)
        return self._engine.matrix.support(question)
