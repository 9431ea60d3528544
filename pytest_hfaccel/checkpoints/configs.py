"""The config a checkpoint is built with: the real dimensions, or a shrunken copy of them."""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.checkpoints.shrink import ShrinkOptions, merge, replace_timm_backbone, shrink
from pytest_hfaccel.checkpoints.tables import CLASS_OVERRIDES, CONFIG_ARGUMENTS
from pytest_hfaccel.core.errors import ConfigError, LoadError
from pytest_hfaccel.core.results import Cause
from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.upstream.transformers import modeling_module


def model_class(spec: ModelSpec) -> Any:
    """Return the transformers class of a model.

    Raises:
        LoadError: This transformers has no such class.
    """
    import transformers

    cls = getattr(transformers, spec.architecture, None) or _unexported(spec)
    if cls is None or not hasattr(cls, "config_class"):
        raise LoadError(
            f"transformers {transformers.__version__} has no model class {spec.architecture!r}.", stage="resolve"
        )
    return cls


def _unexported(spec: ModelSpec) -> Any:
    """Find a class that an auto mapping names, and that transformers leaves out of its public names."""
    from importlib import import_module

    if "model_type" not in spec.dims:
        return None
    try:
        return getattr(import_module(modeling_module(spec.dims["model_type"])), spec.architecture, None)
    except ImportError:
        return None


def real_config(spec: ModelSpec) -> Any:
    """Return the config of the model's real dimensions: the class's defaults, and what the registry says differs.

    Raises:
        ConfigError: The class's config does not take the registry's `dims`.
    """
    config_class = _config_class(spec)
    dims = {name: value for name, value in spec.dims.items() if name != "model_type"}
    try:
        return replace_timm_backbone(config_class(**{**CONFIG_ARGUMENTS.get(config_class.model_type, {}), **dims}))
    except Exception as error:
        raise ConfigError(
            f"{spec.source or spec.name}: dims: {config_class.__name__} does not take them: {error}"
        ) from error


def _config_class(spec: ModelSpec) -> Any:
    """Return the config class of a model: that of its model type, where its class takes configs of several types."""
    from transformers import CONFIG_MAPPING

    own = model_class(spec).config_class
    try:
        named = CONFIG_MAPPING[spec.dims["model_type"]]
    except KeyError:
        return own
    return named if own is None or issubclass(named, own) else own


def tiny_config(spec: ModelSpec, options: ShrinkOptions | None = None) -> Any:
    """Return the config of the same class and structure, shrunken below a million parameters.

    Args:
        spec: The model.
        options: How it is shrunk where the usual way does not do.

    Raises:
        LoadError: The config's class does not take the shrunken sizes.
    """
    real = real_config(spec)
    small = shrink(real, options or ShrinkOptions())
    small.pop("model_type")
    if spec.task == "text-generation" and getattr(real, "is_decoder", None) is False:
        # Bidirectional encoders have a head for generation, too; their checkpoints for it say that they are decoders.
        small["is_decoder"] = True
    merge(small, CLASS_OVERRIDES.get(spec.architecture, {}))
    try:
        return type(real)(**small)
    except Exception as error:
        raise LoadError(
            f"a tiny {type(real).__name__} cannot be made: {type(error).__name__}: {error}",
            hint=f"An override for the model type {real.model_type!r} (OVERRIDES in checkpoints/tables) would help.",
            cause=Cause.TINY_CHECKPOINT,
        ) from error
