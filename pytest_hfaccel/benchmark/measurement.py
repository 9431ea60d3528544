"""One measured point as plain data: where a cell is measured, what was measured there, or why nothing was."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from pytest_hfaccel.core.devices import kind_of
from pytest_hfaccel.core.results import Stage, Status
from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.core.tasks import generates, task_of


@dataclass(frozen=True)
class Latency:
    """The distribution of the times of repeated runs, in milliseconds.

    Attributes:
        runs: Timed runs.
        warm_up: Runs before them, which were not counted.
        median_ms: The number to quote: means follow the outliers.
        mean_ms: Mean, for the distance to the median.
        min_ms: Fastest run.
        p5_ms: 5th percentile.
        p95_ms: 95th percentile.
        p99_ms: 99th percentile.
        iqr_ms: Distance between the quartiles.
        relative_error: Half the width of the median's 95 % confidence interval, as a share of the median.
    """

    runs: int
    warm_up: int
    median_ms: float
    mean_ms: float
    min_ms: float
    p5_ms: float
    p95_ms: float
    p99_ms: float
    iqr_ms: float
    relative_error: float


@dataclass(frozen=True)
class Noise:
    """What a fixed piece of work on the CPU took around a measurement: it says how much the machine was disturbed.

    Attributes:
        before_ms: Median time of the calibration loop before the measurement.
        after_ms: The same after it.
        iqr_share: Distance between the quartiles of all its runs, as a share of their median.
        clock_mhz: Mean clock of the CPU (or of the accelerator) before and after; `None` where it cannot be read.
        throttled: Whether the system reported throttling meanwhile; `None` where that cannot be read.
    """

    before_ms: float
    after_ms: float
    iqr_share: float
    clock_mhz: tuple[float | None, float | None] = (None, None)
    throttled: bool | None = None

    @property
    def drift(self) -> float:
        """How much slower the loop was after the measurement than before it, as a share."""
        return self.after_ms / self.before_ms - 1.0


@dataclass(frozen=True)
class Measurement:
    """How fast a model ran on a device, at one batch size and sequence length.

    Attributes:
        model: Registry name, hub id or directory.
        architecture: transformers class.
        family: Family of the classifier, e.g. `embedding`; empty where it was not asked.
        task: The task.
        weights: `pretrained`, `random` or `tiny`; tiny ones say nothing about the model that bears the name.
        device: Device id, e.g. `cpu`, `cuda:0`, `openvino:CPU`.
        device_name: The chip, e.g. `AMD EPYC`.
        dtype: The asked precision.
        effective_dtype: What the runtime reported.
        implementation: `real` or `emulated`.
        mode: `inference` or `training`.
        batch: Samples.
        length: Tokens per sample of the text inputs; 0 for models without text.
        threads: CPU threads of the runtime.
        latency: Of a forward pass (of a training step).
        first_token_ms: Time to the first generated token; `None` for models that do not generate.
        per_token_ms: Time per generated token after the first; likewise.
        memory_bytes: What the model added to the memory of its device, at the peak; `None` where it is not known.
        memory_source: What `memory_bytes` was read from, in words.
        weight_bytes: Bytes the loaded model says it holds.
        parameters: Number of parameters; `None` where it was not counted.
        load_s: Seconds to read the weights.
        convert_s: Seconds to convert; 0 where nothing is converted or an earlier conversion was used.
        compile_s: Seconds to compile; likewise.
        noise: What the machine did meanwhile.
        details: Plain-JSON facts worth keeping: shapes of the inputs, properties of the runtime.
    """

    model: str
    architecture: str
    task: str
    weights: str
    device: str
    device_name: str
    dtype: str
    effective_dtype: str
    batch: int
    length: int
    threads: int
    latency: Latency
    noise: Noise
    implementation: str = "real"
    mode: str = "inference"
    family: str = ""
    first_token_ms: float | None = None
    per_token_ms: float | None = None
    memory_bytes: int | None = None
    memory_source: str = ""
    weight_bytes: int = 0
    parameters: int | None = None
    load_s: float = 0.0
    convert_s: float = 0.0
    compile_s: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def device_kind(self) -> str:
        """The kind of device: `cpu`, `cuda`, `openvino`, ..."""
        return kind_of(self.device)

    @property
    def samples_per_second(self) -> float:
        """Throughput at the median latency."""
        return 1e3 * self.batch / self.latency.median_ms

    @property
    def tokens_per_second(self) -> float | None:
        """Generated tokens per second after the first one, over the whole batch."""
        return 1e3 * self.batch / self.per_token_ms if self.per_token_ms else None

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form, with the derived numbers spelled out."""
        derived = {"samples_per_second": self.samples_per_second, "tokens_per_second": self.tokens_per_second}
        return {**asdict(self), **derived}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Measurement:
        """Rebuild a measurement from what `to_json` returned."""
        known = {option.name for option in fields(cls)}
        plain = {name: value for name, value in data.items() if name in known}
        noise = {**plain["noise"], "clock_mhz": tuple(plain["noise"]["clock_mhz"])}
        return cls(**{**plain, "latency": Latency(**plain["latency"]), "noise": Noise(**noise)})


@dataclass(frozen=True, order=True)
class Point:
    """A batch size and a sequence length.

    Attributes:
        batch: Samples.
        length: Tokens per sample of text inputs; 0 for "as many as the model's sample inputs have", and for models
            without text.
    """

    batch: int
    length: int = 0

    def __str__(self) -> str:
        return f"b{self.batch}-s{self.length}" if self.length else f"b{self.batch}"

    @property
    def work(self) -> int:
        """Grows with the work of a forward pass."""
        return self.batch * max(1, self.length)


def points_of(batches: Iterable[int], lengths: Iterable[int]) -> list[Point]:
    """Return every batch size at every length, the least work first."""
    points = {Point(batch, length) for batch in batches for length in list(lengths) or [0]}
    return sorted(points, key=lambda point: (point.work, point))


_ONE_LENGTH = frozenset({"image", "image-points", "chat-image"})
"""Recipes of `tasks` whose inputs have no text, or text with image tokens in it that the checkpoint itself decides."""


def varies_in_length(spec: ModelSpec) -> bool:
    """Whether a model can be measured at any sequence length; speech models have the text of their decoder."""
    recipe = task_of(spec).recipe
    return generates(spec) if recipe == "speech" else recipe not in _ONE_LENGTH


def points_for(spec: ModelSpec, batches: Iterable[int], lengths: Iterable[int]) -> list[Point]:
    """Return the points of a model; one that has no lengths is not measured twice for two of them."""
    return points_of(batches, lengths if varies_in_length(spec) else ())


@dataclass(frozen=True)
class NotMeasured:
    """A point that could not be measured, and why.

    Attributes:
        batch: Samples.
        length: Tokens per sample, as asked for.
        status: How it ended: `error`, `crashed`, `timeout`, `out_of_memory`, `unavailable`, ...
        stage: Where it ended.
        reason: Why.
    """

    batch: int
    length: int
    status: Status
    stage: Stage
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> NotMeasured:
        """Rebuild it from what `to_json` returned."""
        return cls(**{**data, "status": Status(data["status"]), "stage": Stage(data["stage"])})


def summary_of(measurement: Measurement) -> dict[str, Any]:
    """Return them by name; what is not known is left out."""
    latency = measurement.latency
    names = ("runs", "median_ms", "min_ms", "p5_ms", "p95_ms", "p99_ms", "iqr_ms", "relative_error")
    summary = {
        "batch": measurement.batch,
        "length": measurement.length,
        "weights": measurement.weights,
        **{name: getattr(latency, name) for name in names},
        "samples_per_second": measurement.samples_per_second,
        "memory_bytes": measurement.memory_bytes,
        "first_token_ms": measurement.first_token_ms,
        "per_token_ms": measurement.per_token_ms,
        "tokens_per_second": measurement.tokens_per_second,
        "use_cache": measurement.details.get("use_cache"),
    }
    return {name: value for name, value in summary.items() if value is not None}
