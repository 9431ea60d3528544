"""What is learned of a device: a correction of the roofline, and the memory its runtime adds. Import this file late."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import HuberRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.prediction import Question
from pytest_hfaccel.predict.calibration.records import DeviceCalibration
from pytest_hfaccel.predict.calibration.roofline import GROUPS, MATRIX, OperatorRoofline
from pytest_hfaccel.predict.text import MIB
from pytest_hfaccel.tracing.trace import ModelTrace

Array = NDArray[np.float64]

_LARGE_BYTES = 32 * 2**20
"""Results from this size on get fresh pages from the system on every run (`M_MMAP_THRESHOLD_MAX`, mallopt(3))."""


@dataclass(frozen=True)
class Point:
    """A trace as the learned models see it.

    Attributes:
        trace: What the model does.
        groups: Roofline seconds by group of operators, in the order of `GROUPS`.
        features: Numbers without units for the residual.
    """

    trace: ModelTrace
    groups: Array
    features: Array


@dataclass(frozen=True)
class Row:
    """A measured point.

    Attributes:
        point: The trace.
        seconds: Measured median latency.
        memory_bytes: Measured memory; `None` where it is not known.
        relatives: Group of architectures that vary each other: held out together.
    """

    point: Point
    seconds: float
    memory_bytes: int | None
    relatives: str


def point_of(trace: ModelTrace, roofline: OperatorRoofline) -> Point:
    """Describe a trace by the roofline of one device."""
    breakdown = roofline.breakdown(trace)
    groups = np.array([breakdown[group] for group in GROUPS])
    total, moved = float(groups.sum()), max(1, trace.moved_bytes)
    large = sum(one.count * one.written_bytes for one in trace.operators if one.written_bytes > _LARGE_BYTES)
    features = [
        *(groups / total),
        np.log(total),
        np.log(total / max(1, trace.launches)),
        np.log(max(1, trace.flops) / moved),
        large / moved,
        np.log(trace.batch),
        np.log2(_rows(trace)),
        np.log(max(1, trace.weight_bytes)),
    ]
    return Point(trace, groups, np.array(features))


def _rows(trace: ModelTrace) -> float:
    """Rows of the matrix products, weighted by their work: few rows read weights for little work."""
    weighted, flops = 0.0, 1.0
    for one in trace.operators:
        if one.name in MATRIX and len(one.shapes) > MATRIX[one.name]:
            work = one.count * one.flops
            weighted += work * np.log2(max(1, prod(one.shapes[MATRIX[one.name]][:-1])))
            flops += work
    return float(2.0 ** (weighted / flops))


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

    Both with Huber's loss: rows that were disturbed while they were measured must not bend the rest. Trees alone cannot
    extrapolate, a linear model alone breaks on models unlike those it saw; their mean does less of either.
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


class _CorrectedSum(ABC):
    """A weighted sum of columns, with weights near a prior, corrected by a residual."""

    _weights: Array
    _residual: Residual | None = None

    @abstractmethod
    def _columns(self, points: Sequence[Point]) -> Array:
        """Return what is weighted, of shape (points, weights)."""

    def weighted(self, points: Sequence[Point]) -> Array:
        """Return the weighted sums alone, without the residual."""
        return np.asarray(self._columns(points) @ self._weights, dtype=np.float64)

    def predict(self, points: Sequence[Point]) -> Array:
        """Return the predicted number of each point."""
        found = self.weighted(points)
        return found if self._residual is None else found * self._residual.factors(_features_of(points))

    def _fit_residual(self, points: Sequence[Point], measured: Array) -> None:
        self._residual = Residual().fit(_features_of(points), np.log(measured / self.weighted(points)))


def _features_of(points: Sequence[Point]) -> Array:
    return np.array([point.features for point in points])


class LatencyModel(_CorrectedSum):
    """Learns how a runtime's forward passes differ from the sum of their operators, in seconds.

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

    def fit(self, rows: Sequence[Row]) -> LatencyModel:
        """Learn from measured rows."""
        self.fit_weights(rows)
        self._fit_residual([row.point for row in rows], np.array([row.seconds for row in rows]))
        return self

    def fit_weights(self, rows: Sequence[Row], *, only_ratios: bool = False) -> Array:
        """Learn the weights of groups, operators and calls alone, as ratios to the calibration, and return them.

        Each is held at 1 as strongly as by one row that is off by all of its time.

        Args:
            rows: Measured rows.
            only_ratios: Whether the time of a call, too, is held near its calibrated one. A constant of the rows'
                machine predicts that machine better, and says nothing of another one.
        """
        seconds = np.array([row.seconds for row in rows])
        pull = np.array([*np.ones(len(GROUPS) + 1), float(only_ratios)])
        self._weights = fit_weights(self._columns([row.point for row in rows]), seconds, self._prior, pull)
        return self._weights

    def _columns(self, points: Sequence[Point]) -> Array:
        columns = np.array([[*point.groups, point.trace.launches, 1.0] for point in points])
        return np.asarray(columns * self._scale, dtype=np.float64)


_PRIOR = np.array([1.0, 0.0, 1.0, 0.0, 10.0])
_MEMORY_PULL = np.array([0.5, 0.1, 0.1, 0.1, 0.0])
"""Of weights, of weights that go into matrix products (some runtimes hold a second copy in their own layout), of
activations, of outputs, and of a constant in MiB."""


class MemoryModel(_CorrectedSum):
    """Learns what a runtime holds besides weights and activations: the MiB that a model adds to its device's memory."""

    def __init__(self) -> None:
        self._weights = _PRIOR

    def fit(self, rows: Sequence[Row]) -> MemoryModel:
        """Learn from rows whose memory was measured."""
        points, measured = [row.point for row in rows], np.array([float(row.memory_bytes or 0) / MIB for row in rows])
        self._weights = fit_weights(self._columns(points), measured, _PRIOR, _MEMORY_PULL)
        self._fit_residual(points, measured)
        return self

    def _columns(self, points: Sequence[Point]) -> Array:
        parts = ("weight_bytes", "multiplied_bytes", "activation_bytes", "output_bytes")
        return np.array([[*(getattr(point.trace, part) / MIB for part in parts), 1.0] for point in points])


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

    def of_chip(self, name: str) -> TrainedModels | None:
        """Return those of a chip; `None` where there are none."""
        own = [model for model in self if model.calibration.device_name == name]
        return TrainedModels(own) if own else None

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
        models = []
        for file in files:
            try:
                models.append(joblib.load(file))
            except Exception as error:
                # A damaged pickle can raise anything.
                why = f"{type(error).__name__}: {error}"
                raise ConfigError(f"{file}: this trained model cannot be read: {why}") from error
            if not isinstance(models[-1], DeviceModel):
                raise ConfigError(f"{file}: this is not a trained model but {type(models[-1]).__name__}.")
        return cls(models)
