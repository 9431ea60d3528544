"""What a config states itself, apart from what its class derives."""

from __future__ import annotations

from dataclasses import MISSING, fields
from functools import cache
from typing import Any

_NOT_STRUCTURE = frozenset(["transformers_version", "architectures", "dtype", "_out_features", "_out_indices"])


def stated_fields(config: Any) -> dict[str, Any]:
    """Return the class's defaults, and what this config says differently; nested configs as they are.

    A field that is `None` by default is derived from others when the class fills it. It counts as stated only where
    the config says something else than the class's default config does.
    """
    config_class: type = type(config)
    usual = _usual(config_class)
    stated = {}
    for field in fields(config):
        value, default = _value(config, field.name), _default(field)
        derived = not hasattr(value, "model_type") and value == _value(usual, field.name)
        if field.name not in _NOT_STRUCTURE:
            stated[field.name] = default if derived else value
    return {**stated, **_further(config, usual, set(stated)), **_stages(config)}


def layer_kinds(config: Any) -> list[str]:
    """Return the kinds of a config's layers, stated or derived; nothing where they are all alike."""
    kinds = _value(config, "layer_types")
    return list(kinds) if isinstance(kinds, list | tuple) else []


def layer_differences(config: Any) -> dict[int, dict[str, Any]]:
    """Return what single layers of a config have differently from the config, by their number."""
    if not getattr(config, "is_heterogeneous", False):
        return {}
    return {int(layer): dict(fields) for layer, fields in config.to_dict().get("per_layer_config", {}).items()}


@cache
def _usual(config_class: type) -> Any:
    """The class's default config, or `None` where a class has none: then all of a config is stated."""
    try:
        return config_class()
    except Exception:  # Whatever a class's own validation raises.
        return None


def _value(config: Any, name: str) -> Any:
    # Not by way of attributes: reading one that differs between layers is an error.
    return vars(config).get(name) if config is not None else None


def _further(config: Any, usual: Any, known: set[str]) -> dict[str, Any]:
    """What a config holds besides its fields, such as options that its outer config gives to any backbone."""
    return {
        name: value
        for name, value in vars(config).items()
        if not name.startswith("_")
        and name not in known | _NOT_STRUCTURE
        and isinstance(value, bool | int | float | str | list)
        and value != _value(usual, name)
    }


def _default(field: Any) -> Any:
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else None


def _stages(config: Any) -> dict[str, Any]:
    """The feature maps a backbone gives, which are properties rather than fields of its config."""
    names = getattr(config, "out_features", None)
    return {"out_features": list(names)} if isinstance(names, list | tuple) and hasattr(config, "stage_names") else {}
