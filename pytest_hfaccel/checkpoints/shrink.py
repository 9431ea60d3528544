"""The generic shrinker: a config's dictionary -> the same structure with small sizes."""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.checkpoints.rules import (
    HEADS,
    KV_HEAD_NAMES,
    KV_HEADS,
    LAYER_TYPES,
    LAYERS,
    LIMITS,
    PATCHES_PER_SIDE,
    TEXT_POSITIONS_OF_CLIP,
)


def shrink(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a config's dictionary with every size limited as `rules` says, nested configs included.

    Args:
        fields: What `config.to_dict()` returned.
    """
    return {name: _shrunken(name, value, fields) for name, value in fields.items()}


def _shrunken(name: str, value: Any, fields: dict[str, Any]) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, dict):
        return shrink(value) if "model_type" in value else value
    if name in KV_HEAD_NAMES:
        return HEADS if value == _attention_heads(fields) else min(value, KV_HEADS)
    if name in LAYER_TYPES and isinstance(value, list):
        kinds = list(dict.fromkeys(value))
        return (kinds * LAYERS)[: max(LAYERS, len(kinds))]
    if name == "image_size":
        return _image_size(value, fields)
    if name in LIMITS:
        return _limited(value, LIMITS[name])
    return value


def _limited(value: Any, limit: int) -> Any:
    if isinstance(value, int):
        if value == TEXT_POSITIONS_OF_CLIP:
            return value
        return min(value, limit)
    if isinstance(value, (list, tuple)) and all(isinstance(one, int) for one in value):
        return [min(one, limit) for one in value]
    return value


def _attention_heads(fields: dict[str, Any]) -> Any:
    names = ("num_attention_heads", "n_head", "n_heads", "num_heads")
    return next((fields[name] for name in names if isinstance(fields.get(name), int)), None)


def _image_size(value: Any, fields: dict[str, Any]) -> Any:
    patch = fields.get("patch_size")
    if not isinstance(value, int) or not isinstance(patch, int) or patch <= 0:
        return value
    return min(value, patch * PATCHES_PER_SIDE)
