"""The config a checkpoint is built with: the real dimensions, or a shrunken copy of them."""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.checkpoints.backbones import without_timm
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
        return without_timm(config_class(**spec.dims))
    except Exception as error:
        raise ConfigError(
            f"{spec.source or spec.name}: dims: {config_class.__name__} does not take them: {error}"
        ) from error


def tiny_config(spec: ModelSpec) -> Any:
    """Return the config of the same class and structure, shrunken below a million parameters.

    Raises:
        LoadError: The config's class does not take the shrunken sizes.
    """
    real = real_config(spec)
    small = shrink(real)
    small.pop("model_type")
    try:
        return type(real)(**small)
    except Exception as error:
        raise LoadError(
            f"a tiny {type(real).__name__} cannot be made: {type(error).__name__}: {error}",
            hint=f"An override for the model type {real.model_type!r} (checkpoints/overrides.py) would help.",
        ) from error


def config_for(spec: ModelSpec, kind: Weights) -> Any:
    """Return the config that a built checkpoint starts from."""
    return tiny_config(spec) if kind == Weights.TINY else real_config(spec)
