"""Well-known checkpoints by name, and dimensions for a size that a name states (`llama-34b`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class KnownCheckpoint:
    """A checkpoint whose dimensions are known.

    Attributes:
        name: Its name.
        architecture: transformers class.
        parameters: Number of parameters, tied ones counted once.
        source: Repository on the hub whose config.json states the dimensions.
        dims: Config fields that differ from the class's default config.
        family: Models that differ from it in size only; empty where there are none.
    """

    name: str
    architecture: str
    parameters: int
    source: str
    dims: Mapping[str, Any] = field(default_factory=dict, hash=False)
    family: str = ""


def find_checkpoint(name: str) -> KnownCheckpoint | None:
    """Return the checkpoint of a name or hub id; case, organisation and punctuation do not count."""
    return _by_name().get(plain(name))


def checkpoints_of(family: str) -> list[KnownCheckpoint]:
    """Return the checkpoints of a family, the smallest first."""
    found = {each.name: each for each in _by_name().values() if each.family == family}
    return sorted(found.values(), key=lambda each: each.parameters)


def families() -> list[str]:
    """Return the families, those with the longest names first: `llama-3` before `llama`."""
    return sorted({each.family for each in _by_name().values() if each.family}, key=len, reverse=True)


def plain(name: str) -> str:
    """Return a name without organisation, case and punctuation."""
    return re.sub(r"[^a-z0-9.]", "", name.rpartition("/")[2].lower())


@cache
def _by_name() -> dict[str, KnownCheckpoint]:
    import yaml

    data = yaml.safe_load(files(__package__).joinpath("known_dims.yaml").read_text(encoding="utf-8"))
    found = {}
    for name, entry in data["models"].items():
        names = entry.pop("names", ())
        checkpoint = KnownCheckpoint(name, **entry)
        found.update({plain(each): checkpoint for each in (name, checkpoint.source, *names)})
    return found


_SIZE = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)(m|b)(?![a-z0-9])")
_UNIT = {"m": 1e6, "b": 1e9}

_SAME = 0.15
"""Sizes in names are rounded: within this share two of them mean the same model (LLaMA's 6.7 billion are `7b`)."""

_LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "encoder_layers", "decoder_layers")
_HEADS = ("num_attention_heads", "num_heads", "n_head", "encoder_attention_heads", "decoder_attention_heads")
_WIDTHS = ("hidden_size", "d_model", "n_embd", "word_embed_proj_dim")
_INNER = ("intermediate_size", "d_ff", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim")


@dataclass(frozen=True)
class SizedModel:
    """Dimensions found by the size in a name.

    Attributes:
        architecture: transformers class.
        dims: Config fields that differ from the class's default config.
        parameters: Number of parameters, about.
        origin: How they were found, without a full stop.
    """

    architecture: str
    dims: Mapping[str, Any]
    parameters: int
    origin: str


def size_in(name: str) -> float | None:
    """Return the number of parameters a name states (`llama-34b`, `opt_350m`), or `None`."""
    found = _SIZE.search(name.rpartition("/")[2].lower())
    return float(found[1]) * _UNIT[found[2]] if found else None


def by_size(name: str) -> SizedModel | None:
    """Return dimensions for a name that holds a known family and a size; `None` where it holds no such thing."""
    size = size_in(name)
    family = next((each for each in families() if _holds(name.lower(), each)), None)
    if size is None or family is None:
        return None
    nearest = min(checkpoints_of(family), key=lambda each: abs(each.parameters / size - 1))
    if abs(nearest.parameters / size - 1) <= _SAME:
        origin = f"the dimensions of {nearest.source}, the {family} model of that size"
        return SizedModel(nearest.architecture, nearest.dims, nearest.parameters, origin)
    return _scaled(nearest, size)


def _holds(name: str, family: str) -> bool:
    """Whether a family's name stands in a name as a word: `llama-34b` is no `llama-3`."""
    return re.search(rf"(?<![a-z0-9]){re.escape(family)}(?![0-9]*[a-z0-9])", name) is not None


def _scaled(known: KnownCheckpoint, size: float) -> SizedModel | None:
    """Scale depth and width by the cube root of the ratio of the sizes.

    Parameters grow with depth x width^2 (Kaplan et al. 2020, "Scaling laws for neural language models", section 2.1).
    """
    dims = dict(known.dims)
    width = next((name for name in _WIDTHS if name in dims), None)
    heads = next((name for name in _HEADS if name in dims), None)
    if width is None or heads is None:
        return None
    factor = (size / known.parameters) ** (1 / 3)
    groups = max(1, dims[heads] // dims.get("num_key_value_heads", dims[heads]))
    new_heads = max(groups, round(factor * dims[heads] / groups) * groups)
    head_width = dims[width] // dims[heads]
    # Heads come in groups, so the width cannot be chosen freely: the depth makes up for it.
    deeper = size / known.parameters / (new_heads * head_width / dims[width]) ** 2
    for name in dims:
        if name in _LAYERS:
            dims[name] = max(1, round(deeper * dims[name]))
        elif name in _HEADS:
            dims[name] = new_heads
        elif name in _WIDTHS:
            dims[name] = new_heads * head_width
        elif name in _INNER:
            dims[name] = round(dims[name] * new_heads * head_width / known.dims[width] / 64) * 64
        elif name == "num_key_value_heads":
            dims[name] = new_heads // groups
    origin = (
        f"assumed: depth and width of {known.source} scaled by {factor:.2f}, to {size / 1e9:.3g} billion parameters"
    )
    return SizedModel(known.architecture, dims, round(size), origin)
