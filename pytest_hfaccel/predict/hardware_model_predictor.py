"""The predictor: which hardware for a model, how fast, and in how much memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.devices import GPU_KINDS
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.prediction import Prediction, Source
from pytest_hfaccel.core.spec import DTYPES
from pytest_hfaccel.predict.configuration import MODES, PredictorConfig
from pytest_hfaccel.predict.distributed import split
from pytest_hfaccel.predict.engine import Engine, Task
from pytest_hfaccel.predict.evidence import default_database
from pytest_hfaccel.predict.matrix import make_matrix
from pytest_hfaccel.predict.recommendation import Candidate, numbers_of, recommend

if TYPE_CHECKING:
    from pytest_hfaccel.hardware import HardwareReport
    from pytest_hfaccel.predict.learning.models import TrainedModels
    from pytest_hfaccel.registry import Registry

AnyPath = str | os.PathLike[str]


class HardwareModelPredictor:
    """Predicts latency, throughput and memory of models on hardware, and recommends hardware.

    A prediction comes from the best of these that has an answer: measured rows of the model on the device, models
    trained on rows of other models, the calibration of the device, its vendor's data sheet, the declared support. Each
    says which it was (`source`), what it rests on (`basis`) and why the better ones had none (`passed_over`).

    A place that is named and not there is noted (`notes`) and done without: the first predictions are made before
    anything was measured.

    Args:
        benchmark_dir: Directory with results: databases, Parquet files, reports of runs.
        database_path: Benchmark database with measured rows; predictions are kept in it. By default the database of
            `BENCHMARK_DB_PATH`, or `hfaccel.duckdb` here, is read where there is one.
        config_path: Configuration file, JSON or YAML; see `PredictorConfig`.
        report: The hardware to predict for (default: this machine's).
        registry: The models that are known (default: those of the run configuration).
        assume_default: Whether a class's default config may stand in for a model whose dimensions are not known;
            without, such a model gets no numbers. Answers say which it was: `dimensions` is `known`, `assumed` or
            `unknown`.

    Raises:
        ConfigError: The configuration file holds mistakes.
    """

    def __init__(
        self,
        benchmark_dir: AnyPath | None = None,
        database_path: AnyPath | None = None,
        config_path: AnyPath | None = None,
        *,
        report: HardwareReport | None = None,
        registry: Registry | None = None,
        assume_default: bool = False,
    ) -> None:
        self._notes: list[str] = []
        self._notes_of_call: list[str] = []
        path, config = Path(config_path).expanduser() if config_path else None, PredictorConfig()
        if path is not None and path.is_file():
            config = PredictorConfig.read(path)
        elif path is not None:
            self._notes.append(f"{path}: there is no such file, so the defaults are used")
        self.engine = Engine(
            config,
            default_database(database_path),
            Path(benchmark_dir).expanduser() if benchmark_dir else None,
            report=report,
            registry=registry,
            assume_default=assume_default,
        )
        # Where no database was named, the default one is only read.
        self._keeps_predictions = database_path is not None and config.store_predictions

    @property
    def notes(self) -> list[str]:
        """What was done without, and why: files that are not there, packages that are missing.

        Also what is worth knowing of the last answer: devices that are not calibrated, or were on a busy machine.
        """
        return [*self._notes, *self.engine.evidence.notes, *self._notes_of_call]

    def _keep(self, predictions: Sequence[Prediction]) -> None:
        if self._keeps_predictions:
            self.engine.evidence.keep(predictions)

    @property
    def available_hardware(self) -> list[str]:
        """The devices of this machine."""
        return self.engine.platforms.present()

    @property
    def prediction_models(self) -> TrainedModels | None:
        """The trained models in use; `None` where there are none. Set it to use others (`train_prediction_models`)."""
        return self.engine.trained

    @prediction_models.setter
    def prediction_models(self, models: TrainedModels | None) -> None:
        self.engine.trained = models

    def predict_optimal_hardware(
        self,
        model_name: str | EllipsisType,
        model_family: str | None = None,
        batch_size: int = 1,
        sequence_length: int = 128,
        mode: str = "inference",
        precision: str = "fp32",
        available_hardware: Sequence[str] | str | None = None,
        is_distributed: bool = False,
        gpu_count: int = 1,
    ) -> dict[str, Any]:
        """Recommend hardware for a model.

        Args:
            model_name: Registered name, local directory, hub id or the name of a well-known checkpoint; `...` is the
                first registered model.
            model_family: Its family, where the caller knows it better than the classifier.
            batch_size: Samples; of all devices together when distributed.
            sequence_length: Tokens per sample of texts. Of a model that takes fewer than the default, as many as it
                takes; the answer's `sequence_length` says how many.
            mode: `inference` or `training`.
            precision: `fp32`, `bf16`, `fp16` or `int8`.
            available_hardware: Hardware to choose among: kinds (`cuda`), devices (`cuda:0`), chips (`cuda:h100-sxm`).
                By default the devices of this machine; when distributed, also those kinds models are split over.
            is_distributed: Whether `gpu_count` devices of a kind work together.
            gpu_count: How many.

        Returns:
            Plain JSON: `primary_recommendation` (`None` where nothing considered can run it), `fallback_options` (at
            most two), `compatible_hardware`, `all_scores`, `explanation`, `prediction_source`; beside the guide's keys
            `predictions` and `not_predicted` by hardware (see `predict_performance`), `distributed` (the strategy, when
            asked for), what was asked, and `notes`.

        Raises:
            ConfigError: An argument is not among the allowed ones, or the model takes fewer tokens.
        """
        task = _checked(batch_size, sequence_length, mode, precision, gpu_count)
        if gpu_count > 1 and not is_distributed:
            raise ConfigError(
                f"gpu_count: {gpu_count} devices work together only when distributed.",
                hint="Say `is_distributed=True` (--distributed), or leave the number out.",
            )
        devices = gpu_count if is_distributed else 1
        question, candidates, considered = self._candidates(model_name, model_family, task, available_hardware, devices)
        answer = recommend(candidates, self.engine.config.weights[mode], considered)
        best = next((each for each in candidates if each.name == answer["primary_recommendation"]), None)
        strategy = best.split.to_json() if best and best.split else None
        return {
            **question,
            **answer,
            **({"distributed": strategy, "gpu_count": devices} if is_distributed else {}),
            "notes": self.notes,
        }

    def predict_performance(
        self,
        model_name: str,
        model_family: str | None = None,
        hardware: str | Sequence[str] | None = None,
        batch_size: int = 1,
        sequence_length: int = 128,
        mode: str = "inference",
        precision: str = "fp32",
    ) -> dict[str, Any]:
        """Predict a model on hardware, by default on the devices of this machine; arguments and errors as above.

        Returns:
            Plain JSON: `predictions` by name of hardware, each with `throughput` (samples/s), `latency` (ms; of a
            forward pass or a training step), `memory_usage` (MB of 2**20 bytes that the model adds to the device at the
            peak), `interval` (between whose ends 80 % of measured values are meant to lie), `source`, `basis`, `rows`,
            `fits`, `advice`, `passed_over`; `not_predicted` for hardware of which no time is known; what was asked; and
            `notes`.
        """
        task = _checked(batch_size, sequence_length, mode, precision, 1)
        question, candidates, _ = self._candidates(model_name, model_family, task, hardware, 1)
        return {**question, **numbers_of(candidates), "notes": self.notes}

    def create_hardware_prediction_matrix(
        self,
        models: Sequence[Mapping[str, str] | str] | None = None,
        batch_sizes: Sequence[int] | None = None,
        hardware_platforms: Sequence[str] | None = None,
        precision: str | Sequence[str] | None = None,
        mode: str = "inference",
        *,
        precision_options: Sequence[str] | None = None,
        sequence_length: int = 128,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> dict[str, Any]:
        """Predict many models on many platforms.

        Args:
            models: Names, or `{"name": ..., "family": ...}`; by default one model of each family.
            batch_sizes: Samples; by default 1, 8 and 32.
            hardware_platforms: Hardware; by default one platform of each kind.
            precision: One precision, or several.
            mode: `inference` or `training`.
            precision_options: The same as `precision`; by default fp32, fp16 and, without training, int8.
            sequence_length: Tokens per sample of texts.
            progress: Called with the models done, their number, and the name of the next one.

        Returns:
            The guide's matrix as plain JSON: `timestamp`, `mode`, `models` -> `name`, `category`, `predictions` ->
            hardware -> batch -> precision -> `throughput`, `latency_mean`, `memory_usage`; `hardware_platforms`,
            `batch_sizes`, `precision_options`. Each number also has its interval and source, each model
            `not_predicted`, and `devices` says which chip each platform is.

        Raises:
            ConfigError: An argument is not among the allowed ones.
        """
        given = precision_options or precision or ("fp32", "fp16", *(() if mode == "training" else ("int8",)))
        precisions = [given] if isinstance(given, str) else list(dict.fromkeys(given))
        batches = list(batch_sizes or (1, 8, 32))
        tasks = [_checked(batch, sequence_length, mode, each, 1) for batch in batches for each in precisions]
        self._notes_of_call = []
        matrix, predictions = make_matrix(self.engine, models, hardware_platforms, tasks, progress)
        self._keep(predictions)
        return {"timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), **matrix, "notes": self.notes}

    def visualize_matrix(self, matrix: Mapping[str, Any], output_dir: AnyPath = "visualizations") -> list[str]:
        """Draw a matrix and return the files.

        Args:
            matrix: What `create_hardware_prediction_matrix` returned.
            output_dir: Directory for the files; it is made.

        Raises:
            ConfigError: The matrix has another form, holds no number, or matplotlib is not installed.
        """
        from pytest_hfaccel.plots import plot_matrix

        return [str(file) for file in plot_matrix(matrix, Path(output_dir))]

    def _candidates(
        self,
        name: str | EllipsisType,
        family: str | None,
        task: Task,
        hardware: Sequence[str] | str | None,
        devices: int,
    ) -> tuple[dict[str, Any], list[Candidate], str]:
        """Return what is asked, the candidates, and which hardware these are, in a sentence."""
        engine = self.engine
        model = engine.models.find(name, family)
        task = replace(task, length=engine.length_of(model, task.length, training=task.training))
        names, considered = self._considered(hardware, devices)
        candidates = []
        for platform in [engine.platforms.of(each) for each in names]:
            found = engine.predict(model, platform, task)
            is_split = devices > 1 and platform.kind in GPU_KINDS and found.latency_ms is not None
            parts = split(engine, model, platform, task, devices) if is_split else None
            candidates.append(Candidate(platform, found, parts))
        self._note_calibrations(candidates)
        self._keep([each.prediction for each in candidates])
        question = {
            "model_name": model.name,
            "model_family": model.family or "unknown",
            "model": model.origin,
            "dimensions": model.dimensions,
            "batch_size": task.batch,
            "sequence_length": task.length,
            "mode": "training" if task.training else "inference",
            "precision": task.dtype,
        }
        return question, candidates, considered

    def _considered(self, names: Sequence[str] | str | None, devices: int) -> tuple[list[str], str]:
        """Return the hardware to choose among, and which this is, in a sentence."""
        given = [names] if isinstance(names, str) else list(names or self.engine.config.hardware)
        if given:
            return list(dict.fromkeys(given)), "Considered: the hardware named."
        here = self.available_hardware
        missing = () if devices == 1 else GPU_KINDS
        kinds = [kind for kind in missing if not any(name.startswith(kind) for name in here)]
        also = f", and {', '.join(kinds)}, over whose devices models are split" if kinds else ""
        return [*here, *kinds], f"Considered: the devices of this machine ({', '.join(here)}){also}."

    def _note_calibrations(self, candidates: Sequence[Candidate]) -> None:
        """Note which devices are predicted from a data sheet or a disturbed calibration; of this answer alone."""
        from pytest_hfaccel.predict.calibration.calibrating import why_not_calibrated

        disturbed = [each.prediction.details.get("calibration_problem") for each in candidates]
        self._notes_of_call = [str(problem) for problem in dict.fromkeys(disturbed) if problem]
        dtypes = {
            each.platform.device: each.prediction.question.dtype
            for each in candidates
            if each.platform.is_present and each.prediction.source == Source.DATASHEET
        }
        can = {device: not why_not_calibrated(device, dtype) for device, dtype in dtypes.items()}
        for text, names in (
            (
                "not calibrated at this precision, so a data sheet is used; `hfaccel calibrate` measures a device in "
                "half a minute",
                [device for device in can if can[device]],
            ),
            (
                "cannot be calibrated, so a data sheet is used; `hfaccel bench` measures models there, on which "
                "predictions can be based",
                [device for device in can if not can[device]],
            ),
        ):
            if names:
                self._notes_of_call.append(f"{', '.join(names)}: {text}")


def _checked(batch: int, length: int, mode: str, dtype: str, devices: int) -> Task:
    """Return the task that is asked about.

    Raises:
        ConfigError: One of the arguments is not allowed.
    """
    for name, value in (("batch_size", batch), ("sequence_length", length), ("gpu_count", devices)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{name}: {value!r} is not allowed. Wanted: a whole number, 1 or more.")
    if mode not in MODES:
        raise ConfigError(f"mode: {mode!r} is not a mode. Allowed: {', '.join(MODES)}.")
    if dtype not in DTYPES:
        raise ConfigError(f"precision: {dtype!r} is not a precision. Allowed: {', '.join(DTYPES)}.")
    if mode == "training" and dtype == "int8":
        raise ConfigError("precision: models are not trained at int8. Allowed for training: fp32, bf16, fp16.")
    return Task(batch, length, dtype, mode == "training")
