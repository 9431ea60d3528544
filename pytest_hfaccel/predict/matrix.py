"""The prediction matrix: models x hardware x batches x precisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.prediction import Prediction
from pytest_hfaccel.predict.engine import Engine, Task
from pytest_hfaccel.predict.naming import NamedModel
from pytest_hfaccel.predict.platforms import Platform
from pytest_hfaccel.predict.text import MIB

DEFAULT_MODELS = (
    "bert-base-uncased",
    "gpt2",
    "t5-small",
    "google/vit-base-patch16-224",
    "openai/whisper-tiny",
    "openai/clip-vit-base-patch32",
)
"""One well-known model of each kind."""

DEFAULT_HARDWARE = ("cuda", "rocm", "mps", "cpu", "openvino", "webnn", "webgpu")
"""The platforms of the guide."""

Progress = Callable[[int, int, str], None]


def make_matrix(
    engine: Engine,
    models: Sequence[Mapping[str, str] | str] | None,
    hardware: Sequence[str] | None,
    tasks: Sequence[Task],
    progress: Progress | None = None,
) -> tuple[dict[str, Any], list[Prediction]]:
    """Return the matrix in the guide's format, and all predictions in it.

    Raises:
        ConfigError: A model or a piece of hardware is not one.
    """
    platforms = [engine.platforms.of(name) for name in dict.fromkeys(hardware or DEFAULT_HARDWARE)]
    named = [_model(engine, entry) for entry in models or DEFAULT_MODELS]
    rows: dict[str, Any] = {}
    predictions: list[Prediction] = []
    for number, model in enumerate(named):
        if progress:
            progress(number, len(named), model.name)
        rows[model.name], found = _row(engine, model, platforms, tasks)
        predictions += found
    matrix = {
        "mode": "training" if tasks[0].training else "inference",
        "sequence_length": tasks[0].length,
        "models": rows,
        "hardware_platforms": [platform.name for platform in platforms],
        "batch_sizes": list(dict.fromkeys(task.batch for task in tasks)),
        "precision_options": list(dict.fromkeys(task.dtype for task in tasks)),
        "devices": {
            platform.name: {
                "name": platform.chip_name,
                "memory_mb": platform.memory_bytes / MIB if platform.memory_bytes else None,
                "is_present": platform.is_present,
            }
            for platform in platforms
        },
    }
    return matrix, predictions


def _model(engine: Engine, entry: Mapping[str, str] | str) -> NamedModel:
    if isinstance(entry, str):
        return engine.models.find(entry)
    if not isinstance(entry, Mapping) or "name" not in entry:
        raise ConfigError(f'models: {entry!r} is not a model. Wanted: a name, or {{"name": ..., "family": ...}}.')
    return engine.models.find(entry["name"], entry.get("family"))


def _row(
    engine: Engine, model: NamedModel, platforms: Sequence[Platform], tasks: Sequence[Task]
) -> tuple[dict[str, Any], list[Prediction]]:
    length = engine.length_of(model, tasks[0].length, training=tasks[0].training)
    numbers: dict[str, Any] = {}
    without: dict[str, str] = {}
    predictions: list[Prediction] = []
    for platform in platforms:
        by_batch: dict[str, dict[str, Any]] = {}
        reasons: dict[str, str] = {}
        for task in tasks:
            found = engine.predict(model, platform, replace(task, length=length))
            predictions.append(found)
            cell = _cell(found)
            if cell is None:
                reasons[task.dtype] = found.basis
            else:
                by_batch.setdefault(str(task.batch), {})[task.dtype] = cell
        if by_batch:
            numbers[platform.name] = by_batch
        if reasons:
            # With the precision where there are numbers at another one.
            why = [f"at {dtype}: {each}" for dtype, each in reasons.items()] if by_batch else reasons.values()
            without[platform.name] = "; ".join(dict.fromkeys(why))
    row = {
        "name": model.name,
        "category": model.family or "unknown",
        "model": model.origin,
        "dimensions": model.dimensions,
        "sequence_length": length,
        "predictions": numbers,
        "not_predicted": without,
    }
    return row, predictions


def _cell(prediction: Prediction) -> dict[str, Any] | None:
    throughput, latency, memory = prediction.throughput, prediction.latency_ms, prediction.memory_mb
    if throughput is None or latency is None or memory is None:
        return None
    return {
        "throughput": throughput.value,
        "latency_mean": latency.value,
        "memory_usage": memory.value,
        "latency_low": latency.low,
        "latency_high": latency.high,
        "memory_low": memory.low,
        "memory_high": memory.high,
        "source": str(prediction.source),
        "rows": prediction.rows,
        "fits": prediction.fits,
    }
