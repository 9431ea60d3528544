"""The config a checkpoint is built with: the real dimensions, or a shrunken copy of them."""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.checkpoints.overrides import OVERRIDES
from pytest_hfaccel.checkpoints.shrink import shrink
from pytest_hfaccel.errors import ConfigError, LoadError
from pytest_hfaccel.spec import ModelSpec, Weights


def model_class(spec: ModelSpec) -> Any:
    """Return the transformers class of a model.

    Raises:
        LoadError: This transformers has no such class.
    """
    import transformers

    found = getattr(transformers, spec.architecture, None)
    if found is None or not hasattr(found, "config_class"):
        raise LoadError(
            f"transformers {transformers.__version__} has no model class {spec.architecture!r}.", stage="resolve"
        )
    return found


def real_config(spec: ModelSpec) -> Any:
    """Return the config of the model's real dimensions: the class's defaults, and what the registry says differs.

    Raises:
        ConfigError: The class's config does not take the registry's `dims`.
    """
    config_class = model_class(spec).config_class
    try:
        return config_class(**spec.dims)
    except Exception as error:
        raise ConfigError(
            f"{spec.source or spec.name}: dims: {config_class.__name__} does not take them: {error}"
        ) from error


def tiny_config(spec: ModelSpec) -> Any:
    """Return the config of the same class and structure, shrunken below a million parameters."""
    real = real_config(spec)
    fields = real.to_dict()
    small = shrink(fields)
    for part in _parts(small):
        merge(part, OVERRIDES.get(part.get("model_type", ""), {}))
    small.pop("transformers_version", None)
    return type(real).from_dict(small)


def config_for(spec: ModelSpec, kind: Weights) -> Any:
    """Return the config that a built checkpoint starts from."""
    return tiny_config(spec) if kind == Weights.TINY else real_config(spec)


def merge(into: dict[str, Any], changes: dict[str, Any]) -> None:
    """Change a nested dictionary in place; dictionaries merge, everything else replaces."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def _parts(fields: dict[str, Any]) -> list[dict[str, Any]]:
    """A config's dictionary and those of its sub-configs."""
    nested = [value for value in fields.values() if isinstance(value, dict) and "model_type" in value]
    return [fields, *(part for value in nested for part in _parts(value))]
