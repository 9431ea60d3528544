"""The cost of an architecture, computed once from its traces and remembered on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from pytest_hfaccel.advisor.cost import ArchitectureCost
from pytest_hfaccel.core.errors import LoadError
from pytest_hfaccel.core.files import replace_file
from pytest_hfaccel.tracing.traces import trace_of

DEFAULT_LENGTH = 128
"""Tokens per sample of texts when the caller does not say: the length of a short paragraph."""

_VERSION = 4
"""Raised when a change of the computation makes remembered costs wrong."""


def cost_of(architecture: str, dims: Mapping[str, Any], *, length: int, cache_dir: Path) -> ArchitectureCost:
    """Return what a model of these dimensions costs; takes seconds the first time, then a file read.

    Args:
        architecture: transformers class name.
        dims: Config fields that differ from the class's default config.
        length: Tokens per sample of text inputs.
        cache_dir: Where costs are remembered, by architecture, dimensions, length and library versions.

    Raises:
        LoadError: transformers has no such class, or cannot build it from these dimensions.
        ConfigError: The class's config does not take these dimensions.
    """
    file = cache_dir / "costs" / f"{_key(architecture, dims, length)}.json"
    remembered = _read(file)
    if remembered is not None:
        return remembered
    cost = trace_architecture(architecture, dims, length, cache_dir=cache_dir)
    with suppress(OSError):  # a cache that cannot be written (read-only home) costs time, not correctness
        replace_file(file, json.dumps(cost.to_json()))
    return cost


def trace_architecture(
    architecture: str, dims: Mapping[str, Any], length: int, *, cache_dir: Path | None = None
) -> ArchitectureCost:
    """Compute what a model of these dimensions costs from its traces in fp32; arguments and errors as for `cost_of`.

    A model without a pass on fake tensors still has parameters: its cost says why the rest is not known.
    """
    try:
        one, two = (trace_of(architecture, dims, batch=batch, length=length, cache_dir=cache_dir) for batch in (1, 2))
    except LoadError as error:
        return _cost_at_rest(architecture, dims, length, error.message)
    return ArchitectureCost.from_traces(one, two)


def _cost_at_rest(architecture: str, dims: Mapping[str, Any], length: int, problem: str) -> ArchitectureCost:
    from pytest_hfaccel.tracing.input_shapes import text_length
    from pytest_hfaccel.tracing.recording import weights_of
    from pytest_hfaccel.tracing.torch.fake_model import meta_model

    model = meta_model(architecture, dims)  # where this was the problem, it raises
    held = weights_of(model)
    return ArchitectureCost(
        parameters=held.parameters,
        buffer_bytes=held.buffer_bytes,
        stored_buffer_bytes=held.stored_buffer_bytes,
        length=text_length(model.config, length),
        run=None,
        problem=problem,
    )


def _key(architecture: str, dims: Mapping[str, Any], length: int) -> str:
    from importlib.metadata import version

    versions = [version("torch"), version("transformers"), _VERSION]
    text = json.dumps([architecture, dims, length, versions], sort_keys=True, default=str)
    return f"{architecture}-{sha256(text.encode()).hexdigest()[:24]}"


def _read(file: Path) -> ArchitectureCost | None:
    try:
        return ArchitectureCost.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # absent, or not what this version writes: it is traced again and replaced
