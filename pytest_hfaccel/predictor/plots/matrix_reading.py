"""Reads a prediction matrix in the JSON format of the predictor's guide ("Prediction Matrix Format").

Above that format a cell may carry `latency_low`, `latency_high`, `memory_low`, `memory_high`, `source`,
`memory_source` and `fits`; it may be missing or `null`. The matrix may carry `devices`, with name and memory (MiB) of
each platform: `{"cuda": {"name": "NVIDIA H100", "memory_mb": 81920}}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from pytest_hfaccel.predictor.plots.bounded import Bounded, read_bounded
from pytest_hfaccel.predictor.plots.matrix_table import MatrixCell, MatrixModel, MatrixTable
from pytest_hfaccel.predictor.plots.problems import Problems

HINT = "A matrix has the form that HardwareModelPredictor.create_hardware_prediction_matrix returns."


def read_matrix(matrix: Mapping[str, Any]) -> MatrixTable:
    """Read a matrix.

    Raises:
        ConfigError: It has not the expected form, with all mistakes; or no number at all.
    """
    problems = Problems()
    models = _models(matrix, problems)
    for key in ("hardware_platforms", "precision_options"):
        _check_list(matrix, key, problems)
    names, memory = _devices(matrix.get("devices") if isinstance(matrix, Mapping) else None, problems)
    problems.raise_if_any(HINT)
    keys = [key for model in models for key in model.cells]
    if not any(_has_number(cell) for model in models for cell in model.cells.values()):
        problems.add("matrix", "no cell has a number, so there is nothing to plot.")
    problems.raise_if_any(HINT)
    return MatrixTable(
        models=sorted(models, key=_order),
        platforms=_in_order(matrix, "hardware_platforms", [key[0] for key in keys]),
        batches=sorted({key[1] for key in keys}),
        precisions=_in_order(matrix, "precision_options", [key[2] for key in keys], only_found=True),
        device_names=names,
        device_memory=memory,
        mode=str(matrix.get("mode") or "inference"),
        timestamp=str(matrix.get("timestamp") or ""),
    )


def _has_number(cell: MatrixCell) -> bool:
    return bool(cell.throughput or cell.latency or cell.memory)


def _order(model: MatrixModel) -> tuple[str, float, str]:
    speeds = [cell.throughput.value for cell in model.cells.values() if cell.throughput and cell.runs]
    return (model.family, -median(speeds) if speeds else 0.0, model.name)


def _in_order(matrix: Mapping[str, Any], key: str, found: list[str], *, only_found: bool = False) -> list[str]:
    stated = [str(name) for name in matrix.get(key) or []]
    # A platform without any number is shown as such; a precision without one would be an empty figure.
    names = [name for name in stated if name in found] if only_found else stated
    return list(dict.fromkeys([*names, *sorted(found)]))


def _check_list(matrix: Any, key: str, problems: Problems) -> None:
    value = matrix.get(key) if isinstance(matrix, Mapping) else None
    if not isinstance(value, (list, tuple, type(None))):
        problems.add(f"matrix.{key}", f"a list is needed, not {type(value).__name__}.")


def _mapping(value: Any, place: str, problems: Problems) -> Mapping[Any, Any]:
    if isinstance(value, Mapping):
        return value
    problems.add(place, f"a mapping is needed, not {type(value).__name__}.")
    return {}


def _models(matrix: Any, problems: Problems) -> list[MatrixModel]:
    given = _mapping(matrix, "matrix", problems).get("models", {})
    if not given:
        problems.add("matrix.models", "there is no model.")
    return [_model(str(name), entry, problems) for name, entry in _mapping(given, "matrix.models", problems).items()]


def _model(name: str, entry: Any, problems: Problems) -> MatrixModel:
    place = f"matrix.models[{name!r}]"
    entry = _mapping(entry, place, problems)
    cells: dict[tuple[str, int, str], MatrixCell] = {}
    for platform, batches in _items(entry.get("predictions"), f"{place}.predictions", problems):
        for batch, precisions in _items(batches, f"{place}.predictions[{platform!r}]", problems):
            where = f"{place}.predictions[{platform!r}][{batch!r}]"
            size = _batch(batch, where, problems)
            for precision, cell in _items(precisions, where, problems):
                if cell is not None:
                    cells[str(platform), size, str(precision)] = _cell(cell, f"{where}[{precision!r}]", problems)
    return MatrixModel(str(entry.get("name") or name), str(entry.get("category") or "unknown family"), cells)


def _items(value: Any, place: str, problems: Problems) -> list[tuple[Any, Any]]:
    return [] if value is None else list(_mapping(value, place, problems).items())


def _batch(value: Any, place: str, problems: Problems) -> int:
    if str(value).isdecimal() and int(value) > 0:
        return int(value)
    problems.add(place, "the key must be a batch size: a whole number > 0.")
    return 1


def _cell(value: Any, place: str, problems: Problems) -> MatrixCell:
    cell = _mapping(value, place, problems)
    latency = read_bounded(cell, "latency_mean", "latency_low", "latency_high", place, problems)
    fits = cell.get("fits")
    if fits not in (None, True, False):
        problems.add(f"{place}.fits", f"{fits!r} is neither true, false nor null.")
    source = str(cell.get("source") or "")
    return MatrixCell(
        throughput=_throughput(problems.number(cell.get("throughput"), f"{place}.throughput"), latency),
        latency=latency,
        memory=read_bounded(cell, "memory_usage", "memory_low", "memory_high", place, problems),
        source=source,
        memory_source=str(cell.get("memory_source") or source),
        fits=fits,
    )


def _throughput(value: float | None, latency: Bounded | None) -> Bounded | None:
    """A throughput has the interval of the latency, turned round: the longest latency is the lowest throughput."""
    if value is None or latency is None or not latency.low or not latency.high:
        return None if value is None else Bounded(value)
    return Bounded(value, value * latency.value / latency.high, value * latency.value / latency.low)


def _devices(value: Any, problems: Problems) -> tuple[dict[str, str], dict[str, float]]:
    names: dict[str, str] = {}
    memory: dict[str, float] = {}
    for platform, facts in _items(value, "matrix.devices", problems):
        place = f"matrix.devices[{platform!r}]"
        known = _mapping(facts, place, problems)
        if known.get("name"):
            names[str(platform)] = str(known["name"])
        size = problems.number(known.get("memory_mb"), f"{place}.memory_mb")
        if size is not None:
            memory[str(platform)] = size
    return names, memory
