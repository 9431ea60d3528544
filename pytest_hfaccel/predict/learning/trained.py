"""What training leaves behind: one model per device, dtype and mode. Imports scikit-learn: import this file late."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.predict.calibration.records import DeviceCalibration
from pytest_hfaccel.predict.learning.footprint import MemoryModel
from pytest_hfaccel.predict.learning.latency import LatencyModel
from pytest_hfaccel.predict.prediction import Question

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
