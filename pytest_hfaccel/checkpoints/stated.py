"""What a config states itself, apart from what its class derives."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

_NOT_STRUCTURE = frozenset(["transformers_version", "architectures", "dtype", "_out_features", "_out_indices"])


def stated_fields(config: Any) -> dict[str, Any]:
    """Return the class's defaults, and what this config says differently; nested configs as they are.

    A field that is `None` by default is derived from others when the class fills it. It counts as stated only where
    the config says something else than the class's default config does.
    """
    usual = type(config)()
    stated = {}
    for field in fields(config):
        value, default = getattr(config, field.name, None), _default(field)
        derived = value == getattr(usual, field.name, None) and not hasattr(value, "model_type")
        if field.name not in _NOT_STRUCTURE:
            stated[field.name] = default if derived else value
    return {**stated, **_stages(config)}


def _default(field: Any) -> Any:
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else None


def _stages(config: Any) -> dict[str, Any]:
    """The feature maps a backbone gives, which are properties rather than fields of its config."""
    names = getattr(config, "out_features", None)
    return {"out_features": list(names)} if isinstance(names, list | tuple) and hasattr(config, "stage_names") else {}
