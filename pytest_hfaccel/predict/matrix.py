"""The prediction matrix: models x hardware x batches x precisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.prediction import Prediction
from pytest_hfaccel.predict.engine import Engine
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


@dataclass(frozen=True)
class MatrixRequest:
    """What a matrix is made of.

    Attributes:
        models: Names, or `{"name": ..., "family": ...}`; `None` for the default ones.
        batches: Batch sizes.
        hardware: Names of hardware; `None` for the default ones.
        precisions: Precisions.
        mode: `inference` or `training`.
        length: Tokens per sample of texts.
    """

    models: Sequence[Mapping[str, str] | str] | None
    batches: list[int]
    hardware: Sequence[str] | None
    precisions: list[str]
    mode: str
    length: int


def make_matrix(
    engine: Engine, request: MatrixRequest, progress: Progress | None = None
) -> tuple[dict[str, Any], list[Prediction]]:
    """Return the matrix in the guide's format, and all predictions in it.

    Args:
        engine: Predicts.
        request: What it is made of.
        progress: Called with the models done, their number, and the name of the next one.

    Raises:
        ConfigError: A model or a piece of hardware is not one.
    """
    platforms = [engine.platforms.of(name) for name in dict.fromkeys(request.hardware or DEFAULT_HARDWARE)]
    models = [_model(engine, entry) for entry in request.models or DEFAULT_MODELS]
    rows: dict[str, Any] = {}
    predictions: list[Prediction] = []
    for number, model in enumerate(models):
        if progress:
            progress(number, len(models), model.name)
        rows[model.name], found = _row(engine, model, platforms, request)
        predictions += found
    matrix = {
        "mode": request.mode,
        "sequence_length": request.length,
        "models": rows,
        "hardware_platforms": [platform.name for platform in platforms],
        "batch_sizes": request.batches,
        "precision_options": request.precisions,
        "devices": {platform.name: _device(platform) for platform in platforms},
    }
    return matrix, predictions


def _model(engine: Engine, entry: Mapping[str, str] | str) -> NamedModel:
    if isinstance(entry, str):
        return engine.models.find(entry)
    if not isinstance(entry, Mapping) or "name" not in entry:
        raise ConfigError(f'models: {entry!r} is not a model. Wanted: a name, or {{"name": ..., "family": ...}}.')
    return engine.models.find(entry["name"], entry.get("family"))


def _row(
    engine: Engine, model: NamedModel, platforms: Sequence[Platform], request: MatrixRequest
) -> tuple[dict[str, Any], list[Prediction]]:
    numbers: dict[str, Any] = {}
    without: dict[str, dict[str, str]] = {}
    found: list[Prediction] = []
    training = request.mode == "training"
    length = engine.length_of(model, request.length, training=training)
    for platform in platforms:
        by_batch: dict[str, Any] = {}
        for batch in request.batches:
            for dtype in request.precisions:
                each = engine.predict(model, platform, batch=batch, length=length, dtype=dtype, training=training)
                found.append(each)
                cell = _cell(each)
                if cell is None:
                    without.setdefault(platform.name, {})[dtype] = each.basis
                else:
                    by_batch.setdefault(str(batch), {})[dtype] = cell
        numbers[platform.name] = by_batch
    row = {
        "name": model.name,
        "category": model.family or "unknown",
        "model": model.origin,
        "dimensions": model.dimensions,
        "sequence_length": length,
        "predictions": {name: by_batch for name, by_batch in numbers.items() if by_batch},
        "not_predicted": {name: _reasons(why, has_numbers=bool(numbers[name])) for name, why in without.items()},
    }
    return row, found


def _reasons(by_dtype: Mapping[str, str], *, has_numbers: bool) -> str:
    """Return why there are no numbers; with the precision where there are some at another one."""
    if not has_numbers:
        return "; ".join(dict.fromkeys(by_dtype.values()))
    return "; ".join(f"at {dtype}: {why}" for dtype, why in by_dtype.items())


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


def _device(platform: Platform) -> dict[str, Any]:
    name = platform.device_name or (platform.chip.name if platform.chip else "")
    memory = platform.memory_bytes / MIB if platform.memory_bytes else None
    return {"name": name, "memory_mb": memory, "is_present": platform.is_present}
