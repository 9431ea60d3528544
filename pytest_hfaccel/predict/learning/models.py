"""What is learned of a device: a correction of the roofline, and the memory its runtime adds. Import this file late."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import HuberRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.prediction import Question
from pytest_hfaccel.predict.calibration.records import DeviceCalibration
from pytest_hfaccel.predict.calibration.roofline import GROUPS
from pytest_hfaccel.predict.learning.rows import Array, Point, Row, features_of
from pytest_hfaccel.predict.text import MIB

_CLEAR_ERROR = 0.1
"""Relative error from which a row counts less: one that was disturbed while it was measured must not bend the rest."""
_ROUNDS = 8


def fit_weights(columns: Array, target: Array, prior: Array, pull: Array) -> Array:
    """Return weights w >= 0 that minimise `sum(huber((columns @ w - target) / target)) + sum((pull * (w - prior))^2)`.

    Relative errors, because a model of a millisecond counts as much as one of a second; Huber's loss (Huber 1964,
    "Robust estimation of a location parameter"), by iteratively reweighted least squares; the second sum (ridge
    regression about a prior) keeps a weight where it was unless the rows speak against it.

    Args:
        columns: Shape (rows, weights).
        target: Shape (rows,), positive.
        prior: Shape (weights,).
        pull: Shape (weights,): the larger, the closer to the prior.
    """
    relative = columns / target[:, None]
    trust = np.ones(len(target))
    for _ in range(_ROUNDS):
        system = np.vstack([relative * trust[:, None], np.diag(pull)])
        found, _ = nnls(system, np.concatenate([trust, pull * prior]))
        errors = np.maximum(np.abs(relative @ found - 1.0), 1e-9)
        trust = np.sqrt(np.minimum(1.0, _CLEAR_ERROR / errors))
    return np.asarray(found, dtype=np.float64)


_LIMIT = 0.5
"""Most that a correction may say, as a logarithm: what it never saw must not make it say more than the formula."""

_RIDGE = 30.0
"""Weight of the squared coefficients (of standardised features) in the linear regression's loss."""


class Residual:
    """Corrects a prediction by a factor: the mean, on a logarithmic scale, of a linear regression and boosted trees.

    Both with Huber's loss: rows that were disturbed while they were measured must not bend the rest.

    Trees alone cannot extrapolate, a linear model alone breaks on models unlike those it saw; their mean does less of
    either.
    """

    def __init__(self) -> None:
        trees = GradientBoostingRegressor(
            n_estimators=120,
            learning_rate=0.05,
            max_depth=3,
            min_samples_leaf=4,
            subsample=0.7,
            random_state=0,
            loss="huber",
        )
        self._models = [make_pipeline(StandardScaler(), HuberRegressor(alpha=_RIDGE, max_iter=1000)), trees]

    def fit(self, features: Array, log_errors: Array) -> Residual:
        """Learn from the logarithms of measured / predicted: shapes (rows, features) and (rows,)."""
        for model in self._models:
            model.fit(features, log_errors)
        return self

    def factors(self, features: Array) -> Array:
        """Return the factor for each row of features."""
        said = np.mean([model.predict(features) for model in self._models], axis=0)
        return np.asarray(np.exp(np.clip(said, -_LIMIT, _LIMIT)), dtype=np.float64)


_GROUP_PULL = 1.0
"""How strongly a group's weight is held at 1, in units of the relative error of one row."""


class LatencyModel:
    """Learns how a runtime's forward passes differ from the sum of their operators.

    A runtime that fuses operators gets small weights for activations and copies; one that is driven by Python gets a
    time per operator.

    Args:
        calibration: Of the device: where the weights start.
    """

    def __init__(self, calibration: DeviceCalibration) -> None:
        per_launch, per_call = calibration.module_seconds or 1e-6, calibration.call_seconds or 1e-5
        self._scale = np.array([*np.ones(len(GROUPS)), per_launch, per_call])
        self._prior = np.array([*np.ones(len(GROUPS)), float(calibration.module_seconds > 0), 1.0])
        self._weights = self._prior
        self._residual: Residual | None = None

    def fit(self, rows: Sequence[Row]) -> LatencyModel:
        """Learn from measured rows."""
        self.fit_weights(rows)
        points = [row.point for row in rows]
        log_errors = np.log(np.array([row.seconds for row in rows]) / self.weighted(points))
        self._residual = Residual().fit(features_of(points), log_errors)
        return self

    def fit_weights(self, rows: Sequence[Row], *, only_ratios: bool = False) -> Array:
        """Learn the weights of groups, operators and calls alone, as ratios to the calibration, and return them.

        Args:
            rows: Measured rows.
            only_ratios: Whether the time of a call, too, is held near its calibrated one. A constant of the rows'
                machine predicts that machine better, and says nothing of another one.
        """
        points = [row.point for row in rows]
        seconds = np.array([row.seconds for row in rows])
        pull = np.array([*(_GROUP_PULL * np.ones(len(GROUPS))), _GROUP_PULL, _GROUP_PULL if only_ratios else 0.0])
        self._weights = fit_weights(self._columns(points), seconds, self._prior, pull)
        return self._weights

    def weighted(self, points: Sequence[Point]) -> Array:
        """Return the seconds by weighted groups alone, without the residual."""
        return np.asarray(self._columns(points) @ self._weights, dtype=np.float64)

    def predict(self, points: Sequence[Point]) -> Array:
        """Return the seconds of forward passes."""
        seconds = self.weighted(points)
        return seconds if self._residual is None else seconds * self._residual.factors(features_of(points))

    def _columns(self, points: Sequence[Point]) -> Array:
        columns = np.array([[*point.groups, point.launches, 1.0] for point in points])
        return np.asarray(columns * self._scale, dtype=np.float64)


_PRIOR = np.array([1.0, 0.0, 1.0, 0.0, 10.0])
_MEMORY_PULL = np.array([0.5, 0.1, 0.1, 0.1, 0.0])
"""Of weights, of weights that go into matrix products (some runtimes hold a second copy in their own layout), of
activations, of outputs, and of a constant in MiB."""


class MemoryModel:
    """Learns what a runtime holds besides weights and activations."""

    def __init__(self) -> None:
        self._weights = _PRIOR
        self._residual: Residual | None = None

    def fit(self, rows: Sequence[Row]) -> MemoryModel:
        """Learn from the rows whose memory was measured."""
        known = [row for row in rows if row.memory_bytes]
        points = [row.point for row in known]
        measured = np.array([float(row.memory_bytes or 0) / MIB for row in known])
        self._weights = fit_weights(_columns(points), measured, _PRIOR, _MEMORY_PULL)
        log_errors = np.log(measured / (_columns(points) @ self._weights))
        self._residual = Residual().fit(features_of(points), log_errors)
        return self

    def predict(self, points: Sequence[Point]) -> Array:
        """Return the MiB that models add to the memory of their device at the peak."""
        mib = np.asarray(_columns(points) @ self._weights, dtype=np.float64)
        return mib if self._residual is None else mib * self._residual.factors(features_of(points))


def _columns(points: Sequence[Point]) -> Array:
    return np.array(
        [
            [
                point.trace.weight_bytes / MIB,
                point.trace.multiplied_bytes / MIB,
                point.trace.activation_bytes / MIB,
                point.trace.output_bytes / MIB,
                1.0,
            ]
            for point in points
        ]
    )


_SUFFIX = ".joblib"


@dataclass(frozen=True)
class DeviceModel:
    """What was learned for one device at one dtype.

    Attributes:
        calibration: The calibration it corrects.
        training: Whether of training steps.
        latency: Seconds.
        memory: MiB; `None` where too few rows say how much memory was used.
        latency_interval: Factors of the interval's ends.
        memory_interval: Likewise.
        rows: Measured rows it was fitted to.
        relatives: Groups of related architectures among them.
        trained: When, ISO 8601.
        latency_error: Mean absolute percentage error of rows held out with their relatives, as a share.
        memory_error: Likewise; `None` without a memory model.
    """

    calibration: DeviceCalibration
    training: bool
    latency: LatencyModel
    memory: MemoryModel | None
    latency_interval: tuple[float, float]
    memory_interval: tuple[float, float] | None
    rows: int
    relatives: int
    trained: str
    latency_error: float
    memory_error: float | None = None

    @property
    def name(self) -> str:
        """A name for files and the database: `cpu-fp32-inference-1`."""
        mode = "training" if self.training else "inference"
        return f"{self.calibration.device.replace(':', '')}-{self.calibration.dtype}-{mode}-{self.calibration.threads}"

    def answers(self, question: Question) -> bool:
        """Whether it was trained for such questions."""
        same_device = question.device in (self.calibration.device, self.calibration.kind)
        return same_device and question.dtype == self.calibration.dtype and question.training == self.training


@dataclass
class TrainedModels:
    """The trained models, and why rows were left out.

    Attributes:
        models: One per device, dtype, threads and mode.
        left_out: What could not be trained, in words.
    """

    models: list[DeviceModel] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[DeviceModel]:
        return iter(self.models)

    def __len__(self) -> int:
        return len(self.models)

    def find(self, question: Question, threads: int | None = None) -> DeviceModel | None:
        """Return the model for a question; among several, the one trained with so many threads comes first."""
        found = [model for model in self.models if model.answers(question)]
        found.sort(key=lambda model: (model.calibration.threads != threads, -model.rows))
        return found[0] if found else None

    def save(self, directory: Path) -> list[Path]:
        """Write every model to a file of its own.

        Raises:
            ConfigError: The directory cannot be written.
        """
        import joblib

        written = []
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for model in self.models:
                written.append(directory / f"{model.name}{_SUFFIX}")
                joblib.dump(model, written[-1])
        except OSError as error:
            raise ConfigError(f"{directory}: the trained models cannot be written: {error.strerror}") from error
        return written

    @classmethod
    def load(cls, directory: Path) -> TrainedModels:
        """Read models back. They are pickles: load only what you, or somebody you trust, has written.

        Raises:
            ConfigError: There are none, or one cannot be read.
        """
        import joblib

        files = sorted(directory.glob(f"*{_SUFFIX}"))
        if not files:
            raise ConfigError(
                f"{directory}: no trained models (*{_SUFFIX}).", hint="Make some: hfaccel predict --train"
            )
        return cls([_checked(file, joblib.load) for file in files])


def _checked(file: Path, load: Any) -> DeviceModel:
    try:
        model = load(file)
    except Exception as error:
        # A damaged pickle can raise anything.
        raise ConfigError(f"{file}: this trained model cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(model, DeviceModel):
        raise ConfigError(f"{file}: this is not a trained model but {type(model).__name__}.")
    return model


def names(models: Iterable[DeviceModel]) -> str:
    """The names of models, for messages."""
    return ", ".join(model.name for model in models) or "none"
