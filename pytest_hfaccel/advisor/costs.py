"""The cost of an architecture, traced once and remembered on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from pytest_hfaccel.advisor.cost import ArchitectureCost

DEFAULT_LENGTH = 128
"""Tokens per sample of texts when the caller does not say: the length of a short paragraph."""

_VERSION = 3
"""Raised when a change of the trace makes remembered costs wrong."""


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
    from pytest_hfaccel.advisor.tracing.architecture import trace_architecture

    cost = trace_architecture(architecture, dims, length)
    _write(file, cost)
    return cost


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


def _write(file: Path, cost: ArchitectureCost) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=file.parent, suffix=".new", delete=False, encoding="utf-8") as new:
            json.dump(cost.to_json(), new)
        os.replace(new.name, file)  # noqa: PTH105 - readers see the old file or the new one
    except OSError:
        return  # a cache that cannot be written (read-only home) costs time, not correctness
