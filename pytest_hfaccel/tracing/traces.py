"""Traces of models, made once and remembered: in this process, and on disk for the next one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import ConfigError, LoadError
from pytest_hfaccel.core.files import replace_file
from pytest_hfaccel.tracing.recording import ScalableTrace, joined, scalable_trace
from pytest_hfaccel.tracing.trace import ModelTrace, built_dtype

_FORMAT = 3
"""Raised when a change of the trace makes remembered ones wrong."""

_MOST = 512
"""Traces kept in memory: about a hundred operators each, so some tens of megabytes."""

_memory: dict[tuple[str, Path | None], ScalableTrace | ModelTrace | LoadError] = {}
_one_at_a_time = threading.RLock()
"""Tracing changes torch's modes, and two threads that want the same trace need it once."""


def traces_of(
    architecture: str,
    dims: Mapping[str, Any],
    *,
    length: int,
    cache_dir: Path | None,
    training: bool = False,
    dtype: str = "fp32",
    batch: int | None = None,
) -> ScalableTrace:
    """Return what a model of these dimensions does at any batch size; takes a second the first time.

    It runs on fake tensors: no weights, no download. The operators are those that torch runs on a CPU, in batches of
    equally long texts; other devices fuse differently. The model is built at the dtype, so casts that its code makes
    are among the operators. `int8` means weights only, as the runtimes of this package quantise transformers: the pass
    is that of fp32, and the matrices of matrix products and convolutions take one byte per number.

    Args:
        architecture: transformers class name.
        dims: Config fields that differ from the class's default config.
        length: Tokens per sample of text inputs.
        cache_dir: Where traces are remembered, by architecture, dimensions, length and library versions; `None`: only
            in this process.
        training: Whether training steps are traced, else forward passes.
        dtype: dtype of the recording. Without training fp32 serves all dtypes; see `ScalableTrace.at`.
        batch: The only batch size to be traced.

    Raises:
        LoadError: The model cannot be built, or has no pass on fake tensors.
        ConfigError: The class's config does not take these dimensions.
    """
    built = built_dtype(dtype, training=training)
    _require_sizes(1 if batch is None else batch, length)

    def make() -> ScalableTrace:
        from pytest_hfaccel.tracing.torch.fake_model import FakeModel

        record = FakeModel(architecture, dims, length=length, dtype=built, training=training).record
        return scalable_trace(record) if batch is None else ScalableTrace(joined([record(batch)])[0], ())

    key = _key(architecture, dims, length, training, built, batch)
    with _one_at_a_time:
        known = _memory.get((key, cache_dir))
        if isinstance(known, LoadError):
            raise LoadError(known.message, stage=known.stage, hint=known.hint)
        if isinstance(known, ScalableTrace):
            return known
        try:
            trace = make() if cache_dir is None else _from_disk(cache_dir / "traces" / f"{key}.json", make)
        except LoadError as error:
            _keep(key, cache_dir, error)  # not on disk: what is missing may be installed before the next process
            raise
        _keep(key, cache_dir, trace)
        return trace


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
    """Return what a model does in one pass at one batch size and dtype; the arguments are those of `traces_of`.

    A training step is the real backward pass of the sum of the outputs, and AdamW; see `torch.passes.Trainer` for its
    memory.

    Raises:
        LoadError: The model cannot be built, or has no pass on fake tensors.
        ConfigError: The class's config does not take these dimensions, there is no such dtype, or it cannot be trained.
    """
    key = _key(architecture, dims, length, training, dtype, batch, "one")
    known = _memory.get((key, cache_dir))
    if isinstance(known, ModelTrace):
        return known
    built = built_dtype(dtype, training=training)
    _require_sizes(batch, length)
    how: dict[str, Any] = {"length": length, "cache_dir": cache_dir, "training": training}
    traces = traces_of(architecture, dims, dtype=built if training else "fp32", **how)
    if not traces.has(batch, dtype):
        traces = traces_of(architecture, dims, dtype=dtype, batch=batch, **how)
    trace = traces.at(batch, dtype)
    _keep(key, cache_dir, trace)
    return trace


def _from_disk(file: Path, make: Callable[[], ScalableTrace]) -> ScalableTrace:
    try:
        return ScalableTrace.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        trace = make()  # absent, or not what this version writes: it is traced again and replaced
        with suppress(OSError):  # a cache that cannot be written (read-only home) costs time, not correctness
            replace_file(file, json.dumps(trace.to_json(), separators=(",", ":")))
        return trace


def _keep(key: str, cache_dir: Path | None, value: ScalableTrace | ModelTrace | LoadError) -> None:
    _memory[key, cache_dir] = value
    if len(_memory) > _MOST:
        with suppress(KeyError):  # another thread was quicker
            del _memory[next(iter(_memory))]


def _key(architecture: str, *facts: object) -> str:
    text = json.dumps([architecture, facts, _versions()], sort_keys=True, default=str)
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
    """Trace a model at exactly this batch size, and remember nothing on disk; else like `trace_of`."""
    traces = traces_of(architecture, dims, length=length, cache_dir=None, training=training, dtype=dtype, batch=batch)
    return traces.at(batch, dtype)


def _require_sizes(batch: int, length: int) -> None:
    """Refuse sizes that no input has."""
    if batch < 1:
        raise ConfigError(f"trace: batch is {batch}. Allowed: whole numbers from 1.")
    if length < 0:
        raise ConfigError(f"trace: length is {length}. Allowed: whole numbers from 1; 0 for models without text.")
