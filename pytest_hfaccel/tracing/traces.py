"""Traces of models, made once and remembered: in this process, and on disk for the next one."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from pytest_hfaccel.core.errors import ConfigError, LoadError
from pytest_hfaccel.core.files import replace_file
from pytest_hfaccel.tracing.recording import ScalableTrace, scalable_trace
from pytest_hfaccel.tracing.trace import ModelTrace, built_dtype

Found = TypeVar("Found", ScalableTrace, ModelTrace)
Kept = TypeVar("Kept", ScalableTrace, ModelTrace, LoadError)

Place = tuple[str, Path | None]

_FORMAT = 2
"""Raised when a change of the trace makes remembered ones wrong."""

_MOST = 512
"""Traces kept in memory: about a hundred operators each, so some tens of megabytes."""


def traces_of(
    architecture: str,
    dims: Mapping[str, Any],
    *,
    length: int,
    cache_dir: Path | None,
    training: bool = False,
    dtype: str = "fp32",
) -> ScalableTrace:
    """Return what a model of these dimensions does at any batch size; takes a second the first time.

    Args:
        architecture: transformers class name.
        dims: Config fields that differ from the class's default config.
        length: Tokens per sample of text inputs.
        cache_dir: Where traces are remembered, by architecture, dimensions, length and library versions; `None`: only
            in this process.
        training: Whether training steps are traced, else forward passes.
        dtype: dtype of the recording. Without training fp32 serves all dtypes; see `ScalableTrace.at`.

    Raises:
        LoadError: The model cannot be built, or has no pass on fake tensors.
        ConfigError: The class's config does not take these dimensions.
    """
    built = built_dtype(dtype, training=training)
    require_sizes(1, length)
    key = _key("scalable", architecture, dims, length, training, built)

    def make() -> ScalableTrace:
        from pytest_hfaccel.tracing.torch.fake_model import FakeModel

        return scalable_trace(FakeModel(architecture, dims, length=length, dtype=built, training=training).record)

    return _remembered(ScalableTrace, key, cache_dir, make)


def trace_of(
    architecture: str,
    dims: Mapping[str, Any],
    *,
    batch: int,
    length: int,
    cache_dir: Path | None,
    dtype: str = "fp32",
    training: bool = False,
) -> ModelTrace:
    """Return what a model of these dimensions does in one pass; takes a second the first time for all batches.

    Args:
        architecture: transformers class name.
        dims: Config fields that differ from the class's default config.
        batch: Samples.
        length: Tokens per sample of text inputs.
        cache_dir: Where traces are remembered; `None`: only in this process.
        dtype: `fp32`, `bf16`, `fp16`, `int8` or `fp64`.
        training: Whether a training step is meant, else a forward pass.

    Raises:
        LoadError: The model cannot be built, or has no pass on fake tensors.
        ConfigError: The class's config does not take these dimensions, there is no such dtype, or it cannot be trained.
    """
    key = _key("one", architecture, dims, length, training, dtype, batch)
    known = _memory.get((key, cache_dir))
    if isinstance(known, ModelTrace):
        return known
    built = built_dtype(dtype, training=training)
    require_sizes(batch, length)
    recorded = built if training else "fp32"
    scalable = traces_of(architecture, dims, length=length, cache_dir=cache_dir, training=training, dtype=recorded)
    if scalable.has(batch, dtype):
        return _keep((key, cache_dir), scalable.at(batch, dtype))

    def make() -> ModelTrace:
        return trace_model(architecture, dims, batch=batch, length=length, dtype=dtype, training=training)

    return _remembered(ModelTrace, key, cache_dir, make)


_memory: OrderedDict[Place, ScalableTrace | ModelTrace | LoadError] = OrderedDict()
_one_at_a_time = threading.RLock()
"""Tracing changes torch's modes, and two threads that want the same trace need it once."""


def _remembered(kind: type[Found], key: str, cache_dir: Path | None, make: Callable[[], Found]) -> Found:
    place = (key, cache_dir)
    with _one_at_a_time:
        known = _memory.get(place)
        if isinstance(known, LoadError):
            raise LoadError(known.message, stage=known.stage, hint=known.hint)
        if isinstance(known, kind):
            return known
        try:
            trace = make() if cache_dir is None else _on_disk(kind, cache_dir / "traces" / f"{key}.json", make)
        except LoadError as error:
            _keep(place, error)  # not on disk: what is missing may be installed before the next process
            raise
        return _keep(place, trace)


def _on_disk(kind: type[Found], file: Path, make: Callable[[], Found]) -> Found:
    trace = _read(kind, file)
    if trace is None:
        trace = make()
        with suppress(OSError):  # a cache that cannot be written (read-only home) costs time, not correctness
            replace_file(file, json.dumps(trace.to_json(), separators=(",", ":")))
    return trace


def _read(kind: type[Found], file: Path) -> Found | None:
    try:
        return kind.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # absent, or not what this version writes: it is traced again and replaced


def _keep(place: Place, value: Kept) -> Kept:
    _memory[place] = value
    if len(_memory) > _MOST:
        with suppress(KeyError):
            _memory.popitem(last=False)
    return value


def _key(kind: str, architecture: str, dims: Mapping[str, Any], *rest: object) -> str:
    text = json.dumps([kind, architecture, dims, rest, _versions()], sort_keys=True, default=str)
    return f"{architecture}-{sha256(text.encode()).hexdigest()[:24]}"


@cache
def _versions() -> tuple[str, ...]:
    from importlib.metadata import version

    return version("torch"), version("transformers"), str(_FORMAT)


def trace_model(
    architecture: str,
    dims: Mapping[str, Any],
    *,
    batch: int,
    length: int,
    dtype: str = "fp32",
    training: bool = False,
) -> ModelTrace:
    """Trace a model of these dimensions on fake tensors: no weights, no download.

    The operators are those that torch runs on a CPU, in batches of equally long texts; other devices fuse differently.
    The model is built at the dtype, so casts that its code makes are among the operators. `int8` means weights only, as
    the runtimes of this package quantise transformers: the pass is that of fp32, and the matrices of matrix products
    and convolutions take one byte per number. A training step is the real backward pass of the sum of the outputs, and
    AdamW; see `torch.training.Trainer` for its memory.

    Raises:
        LoadError: transformers has no such class, cannot build it from these dimensions, or it has no pass on fake
            tensors, because what it does depends on values.
        ConfigError: The class's config does not take these dimensions, there is no such dtype, it cannot be trained, or
            no input has this batch or length.
    """
    built = built_dtype(dtype, training=training)
    require_sizes(batch, length)
    from pytest_hfaccel.tracing.torch.fake_model import FakeModel

    return FakeModel(architecture, dims, length=length, dtype=built, training=training).record(batch).trace(dtype)


def require_sizes(batch: int, length: int) -> None:
    """Refuse sizes that no input has.

    Raises:
        ConfigError: `batch` is below 1, or `length` below 0.
    """
    if batch < 1:
        raise ConfigError(f"trace: batch is {batch}. Allowed: whole numbers from 1.")
    if length < 0:
        raise ConfigError(f"trace: length is {length}. Allowed: whole numbers from 1; 0 for models without text.")
