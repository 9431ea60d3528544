"""Reads and checks the input of plots; one error lists all mistakes with their places.

A prediction matrix has the JSON format of the predictor's guide ("Prediction Matrix Format"). Above that format a cell
may carry `latency_low`, `latency_high`, `memory_low`, `memory_high`, `source`, `memory_source` and `fits`; it may be
missing or `null`. The matrix may carry `devices`, with name and memory (MiB) of each platform.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.prediction import Source

ACCURACY_COLUMNS = ("predicted", "measured", "low", "high", "device", "family", "model")
ROOFLINE_COLUMNS = ("model", "flops", "moved_bytes", "seconds")

_SHOWN_PROBLEMS = 20
_ROUNDING = 1e-6
_MATRIX_HINT = "A matrix has the form that HardwareModelPredictor.create_hardware_prediction_matrix returns."


@dataclass(frozen=True)
class Bounded:
    """A number, and its interval where there is one: `low` and `high` are both `None` or both numbers."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def bottom(self) -> float:
        """The smallest number that a plot must show."""
        return self.value if self.low is None else self.low

    @property
    def top(self) -> float:
        """The greatest number that a plot must show."""
        return self.value if self.high is None else self.high

    def times(self, factor: float) -> Bounded:
        """The same in another unit."""
        if self.low is None or self.high is None:
            return Bounded(factor * self.value)
        return Bounded(factor * self.value, factor * self.low, factor * self.high)

    def over(self, other: Bounded) -> Bounded:
        """The ratio to another number; its interval holds every ratio of numbers in the two intervals."""
        if (self.low is None and other.low is None) or not other.bottom:
            return Bounded(self.value / other.value)
        return Bounded(self.value / other.value, self.bottom / other.top, self.top / other.bottom)


@dataclass(frozen=True)
class MatrixCell:
    """One prediction.

    Attributes:
        throughput: Samples per second; `None` where it is not known.
        latency: Milliseconds of a batch; likewise.
        memory: MiB at the peak; likewise.
        source: The layer the numbers come from; empty where the matrix does not say.
        memory_source: The same for the memory, where it differs.
        fits: Whether the device's memory suffices; `None` where that is not known.
    """

    throughput: Bounded | None = None
    latency: Bounded | None = None
    memory: Bounded | None = None
    source: str = ""
    memory_source: str = ""
    fits: bool | None = None

    @property
    def runs(self) -> bool:
        """Whether its speed may be shown: a model that does not fit has none, whatever a formula says."""
        return self.fits is not False


@dataclass(frozen=True)
class MatrixModel:
    """One model of a matrix, with its cells by platform, batch and precision."""

    name: str
    family: str
    cells: dict[tuple[str, int, str], MatrixCell]

    def cell(self, platform: str, batch: int, precision: str) -> MatrixCell:
        """The cell, or an empty one where nothing is known."""
        return self.cells.get((platform, batch, precision), MatrixCell())


@dataclass(frozen=True)
class MatrixTable:
    """A prediction matrix: models by family and in it the fastest first, batches ascending, the rest in its order."""

    models: list[MatrixModel]
    platforms: list[str]
    batches: list[int]
    precisions: list[str]
    device_names: dict[str, str] = field(default_factory=dict)
    device_memory: dict[str, float] = field(default_factory=dict)
    mode: str = "inference"
    timestamp: str = ""

    @property
    def extreme_batches(self) -> list[int]:
        """The smallest and the largest batch; one when there is only one."""
        return sorted({self.batches[0], self.batches[-1]})

    @property
    def cpu(self) -> str | None:
        """The platform that others are compared with: `cpu`, else the first CPU; `None` where the matrix has none."""
        cpus = [name for name in self.platforms if name.partition(":")[0] == "cpu"]
        return "cpu" if "cpu" in cpus else next(iter(cpus), None)


@dataclass(frozen=True)
class AccuracyRow:
    """A prediction of something that was measured, both in one unit."""

    predicted: Bounded
    measured: float
    device: str
    family: str
    model: str

    @property
    def ratio(self) -> float:
        """Predicted / measured."""
        return self.predicted.value / self.measured

    @property
    def covered(self) -> bool | None:
        """Whether the interval holds the measured number; `None` without an interval."""
        if self.predicted.low is None:
            return None
        return self.predicted.bottom <= self.measured <= self.predicted.top


@dataclass(frozen=True)
class RooflinePoint:
    """A run of a model: operations per byte moved, operations per second."""

    model: str
    intensity: float
    speed: float
    family: str = ""
    source: str = ""


@dataclass(frozen=True)
class Roof:
    """What a device can do at most: operations per second (`peak`), bytes per second (`bandwidth`)."""

    device: str
    peak: float
    bandwidth: float

    @property
    def ridge(self) -> float:
        """The operations per byte above which computing limits, not memory."""
        return self.peak / self.bandwidth

    def at(self, intensity: float) -> float:
        """Operations per second that can be reached.

        min(peak, bandwidth x intensity): S. Williams, A. Waterman, D. Patterson, "Roofline", CACM 52(4), 2009.
        """
        return min(self.peak, self.bandwidth * intensity)


def is_measured(source: str) -> bool:
    """Whether numbers of this source were measured on the device, not predicted."""
    return source == Source.MEASURED


class _Problems:
    """Collects mistakes while an input is read."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, place: str, problem: str) -> None:
        self._lines.append(f"{place}: {problem}")

    def raise_if_any(self, hint: str | None = None) -> None:
        if self._lines:
            left = len(self._lines) - _SHOWN_PROBLEMS
            more = [f"... and {left} more"] if left > 0 else []
            raise ConfigError("\n".join(self._lines[:_SHOWN_PROBLEMS] + more), hint=hint)

    def number(self, value: Any, place: str, *, zero: bool = False) -> float | None:
        """Read a finite, positive number; `None` and NaN (a frame's missing value) mean "not known"."""
        if value is None:
            return None
        # numpy's and pandas' scalars are numbers, too, and know `__float__`; text does not.
        if isinstance(value, bool) or not hasattr(value, "__float__"):
            self.add(place, f"{value!r} is not a number.")
            return None
        number = float(value)
        if math.isnan(number):
            return None
        if math.isinf(number) or number < 0 or (number == 0 and not zero):
            self.add(place, f"{number:g} cannot be: allowed are finite numbers {'>=' if zero else '>'} 0.")
            return None
        return number

    def bounded(self, row: Mapping[str, Any], keys: tuple[str, str, str], place: str) -> Bounded | None:
        """Read a number and its interval; `None` when the number is not known. An interval with one end is none."""
        value = self.number(row.get(keys[0]), f"{place}.{keys[0]}")
        low = self.number(row.get(keys[1]), f"{place}.{keys[1]}", zero=True)
        high = self.number(row.get(keys[2]), f"{place}.{keys[2]}")
        if value is None or low is None or high is None:
            return None if value is None else Bounded(value)
        # What was rounded on its way here may stand a little outside its interval.
        if not low <= value * (1 + _ROUNDING) or not value <= high * (1 + _ROUNDING):
            self.add(place, f"{keys[1]} {low:g} <= {keys[0]} {value:g} <= {keys[2]} {high:g} does not hold.")
        # An interval without width would only repeat the number.
        return Bounded(value, min(low, value), max(high, value)) if low < high else Bounded(value)

    def mapping(self, value: Any, place: str) -> Mapping[Any, Any]:
        if isinstance(value, Mapping):
            return value
        self.add(place, f"a mapping is needed, not {type(value).__name__}.")
        return {}

    def items(self, value: Any, place: str) -> list[tuple[Any, Any]]:
        return [] if value is None else list(self.mapping(value, place).items())


def read_matrix(matrix: Mapping[str, Any]) -> MatrixTable:
    """Read a prediction matrix.

    Raises:
        ConfigError: It has not the expected form, with all mistakes; or no number at all.
    """
    problems = _Problems()
    given = problems.mapping(matrix, "matrix").get("models", {})
    if not given:
        problems.add("matrix.models", "there is no model.")
    models = [_model(str(name), entry, problems) for name, entry in problems.items(given, "matrix.models")]
    matrix = matrix if isinstance(matrix, Mapping) else {}
    for key in ("hardware_platforms", "precision_options"):
        if not isinstance(matrix.get(key), (list, tuple, type(None))):
            problems.add(f"matrix.{key}", f"a list is needed, not {type(matrix[key]).__name__}.")
    names: dict[str, str] = {}
    memory: dict[str, float] = {}
    for platform, facts in problems.items(matrix.get("devices"), "matrix.devices"):
        place = f"matrix.devices[{platform!r}]"
        known = problems.mapping(facts, place)
        if known.get("name"):
            names[str(platform)] = str(known["name"])
        size = problems.number(known.get("memory_mb"), f"{place}.memory_mb")
        if size is not None:
            memory[str(platform)] = size
    problems.raise_if_any(_MATRIX_HINT)
    cells = {key: cell for model in models for key, cell in model.cells.items()}
    if not any(cell.throughput or cell.latency or cell.memory for model in models for cell in model.cells.values()):
        problems.add("matrix", "no cell has a number, so there is nothing to plot.")
        problems.raise_if_any(_MATRIX_HINT)
    stated = [str(name) for name in matrix.get("precision_options") or []]
    found = sorted({key[2] for key in cells})
    platforms = [str(name) for name in matrix.get("hardware_platforms") or []]
    return MatrixTable(
        models=sorted(models, key=_order),
        # A platform without any number is shown as such; a precision without one would be an empty figure.
        platforms=list(dict.fromkeys([*platforms, *sorted({key[0] for key in cells})])),
        batches=sorted({key[1] for key in cells}),
        precisions=list(dict.fromkeys([*(name for name in stated if name in found), *found])),
        device_names=names,
        device_memory=memory,
        mode=str(matrix.get("mode") or "inference"),
        timestamp=str(matrix.get("timestamp") or ""),
    )


def _order(model: MatrixModel) -> tuple[str, float, str]:
    speeds = [cell.throughput.value for cell in model.cells.values() if cell.throughput and cell.runs]
    return (model.family, -median(speeds) if speeds else 0.0, model.name)


def _model(name: str, entry: Any, problems: _Problems) -> MatrixModel:
    place = f"matrix.models[{name!r}]"
    entry = problems.mapping(entry, place)
    cells: dict[tuple[str, int, str], MatrixCell] = {}
    for platform, batches in problems.items(entry.get("predictions"), f"{place}.predictions"):
        for batch, precisions in problems.items(batches, f"{place}.predictions[{platform!r}]"):
            where = f"{place}.predictions[{platform!r}][{batch!r}]"
            size = int(batch) if str(batch).isdecimal() else 0
            if size < 1:
                problems.add(where, "the key must be a batch size: a whole number > 0.")
            for precision, cell in problems.items(precisions, where):
                if cell is not None:
                    cells[str(platform), size, str(precision)] = _cell(cell, f"{where}[{precision!r}]", problems)
    return MatrixModel(str(entry.get("name") or name), str(entry.get("category") or "unknown family"), cells)


def _cell(value: Any, place: str, problems: _Problems) -> MatrixCell:
    cell = problems.mapping(value, place)
    latency = problems.bounded(cell, ("latency_mean", "latency_low", "latency_high"), place)
    fits = cell.get("fits")
    if fits not in (None, True, False):
        problems.add(f"{place}.fits", f"{fits!r} is neither true, false nor null.")
    source = str(cell.get("source") or "")
    throughput = problems.number(cell.get("throughput"), f"{place}.throughput")
    return MatrixCell(
        throughput=None if throughput is None else _throughput(throughput, latency),
        latency=latency,
        memory=problems.bounded(cell, ("memory_usage", "memory_low", "memory_high"), place),
        source=source,
        memory_source=str(cell.get("memory_source") or source),
        fits=fits,
    )


def _throughput(value: float, latency: Bounded | None) -> Bounded:
    """A throughput has the interval of the latency, turned round: the longest latency is the lowest throughput."""
    if latency is None or not latency.low or not latency.high:
        return Bounded(value)
    return Bounded(value, value * latency.value / latency.high, value * latency.value / latency.low)


def read_measurements(measurements: Iterable[Measurement]) -> list[Measurement]:
    """Put measurements in order: by model, then device, length and batch.

    Raises:
        ConfigError: There is none, or something else is among them.
    """
    if isinstance(measurements, (str, bytes)) or not isinstance(measurements, Iterable):
        raise ConfigError(f"measurements: a list of Measurement is needed, not {type(measurements).__name__}.")
    rows = list(measurements)
    for index, row in enumerate(rows):
        if not isinstance(row, Measurement):
            raise ConfigError(
                f"measurements[{index}]: a Measurement is needed, not {type(row).__name__}.",
                hint="Measurement.from_json reads its plain-JSON form.",
            )
    if not rows:
        raise ConfigError("measurements: there is no measurement, so there is nothing to plot.")

    def order(row: Measurement) -> tuple[Any, ...]:
        place = (row.family, row.model, row.weights, row.mode, row.device, row.dtype)
        return (*place, row.length, row.batch, row.latency.median_ms)

    return sorted(rows, key=order)


def read_accuracy_rows(given: Any) -> list[AccuracyRow]:
    """Read rows with `ACCURACY_COLUMNS`; rows without a predicted or a measured number are left out.

    Raises:
        ConfigError: Columns are missing, numbers cannot be, or no row has both numbers.
    """
    problems = _Problems()
    rows = []
    for index, row in enumerate(_rows(given, "rows", ACCURACY_COLUMNS)):
        place = f"rows[{index}]"
        predicted = problems.bounded(row, ("predicted", "low", "high"), place)
        measured = problems.number(row["measured"], f"{place}.measured")
        if predicted and measured:
            family = str(row["family"] or "unknown family")
            rows.append(AccuracyRow(predicted, measured, str(row["device"]), family, str(row["model"])))
    problems.raise_if_any()
    if not rows:
        raise ConfigError("rows: no row has both a predicted and a measured number.")
    return rows


def read_roofline_points(given: Any) -> list[RooflinePoint]:
    """Read rows with `ROOFLINE_COLUMNS` and, if they have them, `family` and `source`; incomplete rows are left out.

    Raises:
        ConfigError: Columns are missing, numbers cannot be, or no row is complete.
    """
    problems = _Problems()
    points = []
    for index, row in enumerate(_rows(given, "points", ROOFLINE_COLUMNS)):
        numbers = (problems.number(row[name], f"points[{index}].{name}") for name in ROOFLINE_COLUMNS[1:])
        flops, moved, seconds = numbers
        if flops and moved and seconds:
            extras = (str(row.get("family") or ""), str(row.get("source") or ""))
            points.append(RooflinePoint(str(row["model"]), flops / moved, flops / seconds, *extras))
    problems.raise_if_any()
    if not points:
        raise ConfigError("points: no row has flops, moved_bytes and seconds.")
    return points


def read_roof(device: str, peak_flops: Any, bandwidth: Any) -> Roof:
    """Check what a device can do.

    Raises:
        ConfigError: A number is missing or cannot be.
    """
    problems = _Problems()
    peak, speed = problems.number(peak_flops, "peak_flops"), problems.number(bandwidth, "bandwidth")
    for name, value in (("peak_flops", peak_flops), ("bandwidth", bandwidth)):
        if value is None:
            problems.add(name, "a number > 0 is needed.")
    problems.raise_if_any()
    return Roof(str(device), float(peak or 0), float(speed or 0))


def _rows(given: Any, name: str, needed: Sequence[str]) -> list[Mapping[str, Any]]:
    """Return the rows of a pandas frame or of an iterable of mappings; each must have the columns `needed`."""
    if hasattr(given, "to_dict"):
        # pandas has several ways to say that a value is missing, and not all of them are numbers.
        rows = list(given.astype(object).where(given.notna(), None).to_dict("records"))
    elif isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise ConfigError(f"{name}: a frame or a list of rows is needed, not {type(given).__name__}.")
    else:
        rows = list(given)
    if not rows:
        raise ConfigError(f"{name}: there is no row, so there is nothing to plot.")
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ConfigError(f"{name}[{index}]: a mapping is needed, not {type(row).__name__}.")
        missing = [column for column in needed if column not in row]
        if missing:
            raise ConfigError(
                f"{name}[{index}]: {', '.join(missing)} is missing.", hint=f"Needed: {', '.join(needed)}."
            )
    return rows
