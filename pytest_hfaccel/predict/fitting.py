"""Whether a model fits a device's memory - and if not, what would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import ceil

from pytest_hfaccel.advisor.requirements import USABLE_SHARE
from pytest_hfaccel.core.devices import GPU_KINDS
from pytest_hfaccel.predict.platforms import Platform
from pytest_hfaccel.predict.prediction import Estimate, Prediction, Question
from pytest_hfaccel.predict.words import MIB, memory_text

MemoryAt = Callable[[int, str], float | None]
"""Predicts the memory in MiB at a batch and dtype."""

_SMALLER = {"fp32": ("bf16", "fp16", "int8"), "bf16": ("int8",), "fp16": ("int8",)}

_SHARE = 0.9
"""Share of each device's memory that is counted on when a model is split over several: parts are never equal."""


def with_fit(found: Prediction, platform: Platform, memory_at: MemoryAt) -> Prediction:
    """Return a prediction with `fits`, and with advice when it does not fit.

    It fits when the predicted peak is at most the device's memory; of a device of this machine at most the share of it
    that the pool fills, so that what is advised can be loaded. Where either is not known, nothing is said.

    Args:
        found: The prediction.
        platform: The device.
        memory_at: What it would take at another batch or dtype.
    """
    need, have = found.memory_mb, platform.memory_bytes
    if need is None or have is None:
        return found
    have_mb = have / MIB * (USABLE_SHARE if platform.is_present else 1)
    memory = {"device_memory_mb": round(have / MIB, 1), "device_memory_source": platform.memory_source}
    fits = need.value <= have_mb
    advice = _close(need, have_mb) if fits else _advice(found.question, need, have_mb, memory_at)
    return replace(found, fits=fits, advice=advice, details={**found.details, **memory})


def _close(need: Estimate, have_mb: float) -> str:
    if need.high <= have_mb:
        return ""
    return f"It may just not fit: up to {memory_text(need.high)} are possible, of {memory_text(have_mb)}."


def _advice(question: Question, need: Estimate, have_mb: float, memory_at: MemoryAt) -> str:
    point = f"{question.dtype} and batch {question.batch}"
    missing = f"Does not fit: needs {memory_text(need.value)} at {point}, of {memory_text(have_mb)}."
    options = [*_dtypes(question, have_mb, memory_at), *_batches(question, have_mb, memory_at)]
    if question.device_kind in GPU_KINDS:
        devices = ceil(need.value / (_SHARE * have_mb))
        options.append(
            f"{devices} such devices among which the model is split ({memory_text(need.value / devices)} each)"
        )
    return f"{missing} Would fit: {'; '.join(options)}." if options else missing


def _dtypes(question: Question, have_mb: float, memory_at: MemoryAt) -> Iterator[str]:
    for dtype in _SMALLER.get(question.dtype, ()):
        if question.training and dtype == "int8":
            continue
        memory = memory_at(question.batch, dtype)
        if memory is not None and memory <= have_mb:
            note = ", quantized weights" if dtype == "int8" else ""
            yield f"{dtype} ({memory_text(memory)}{note})"
            return


def _batches(question: Question, have_mb: float, memory_at: MemoryAt) -> Iterator[str]:
    batch = question.batch
    while batch > 1:
        batch //= 2
        memory = memory_at(batch, question.dtype)
        if memory is not None and memory <= have_mb:
            yield f"batch {batch} ({memory_text(memory)})"
            return
