"""What the installed transformers knows, for `hfaccel registry`: names take a second, a class also imports torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from typing import Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.registry.problem import suggest


@cache
def _names() -> frozenset[str]:
    import transformers

    return frozenset(dir(transformers))


def unknown_architectures(specs: Iterable[ModelSpec]) -> list[str]:
    """Return a line for each model whose class the installed transformers does not have."""
    return [
        f"{spec.source}: models.{spec.name}.architecture: transformers {version('transformers')} has no class "
        f"{spec.architecture!r}.{suggest(spec.architecture, _names())}"
        for spec in specs
        if not spec.requires_remote_code and spec.architecture not in _names()
    ]


def require_class(architecture: str) -> None:
    """Refuse a name that is no model class of the installed transformers.

    Raises:
        ConfigError: With the nearest name.
    """
    if _config_class(architecture) is None:
        near = suggest(architecture, _names())
        raise ConfigError(
            f"transformers {version('transformers')} has no model class {architecture!r}.{near}",
            hint="`hfaccel registry check --classes` lists the classes that have no entry.",
        )


def model_type_of(architecture: str) -> str | None:
    """Return the model type of a class (`bert` of `BertForMaskedLM`), or `None` if transformers lacks the class."""
    config_class = _config_class(architecture)
    return config_class.model_type if config_class else None


def default_config(architecture: str) -> dict[str, Any]:
    """Return the default config of a class as JSON has it; empty if transformers lacks the class."""
    config_class = _config_class(architecture)
    if config_class is None:
        return {}
    # By way of JSON, as config.json went: its keys are text, its tuples are lists.
    plain: dict[str, Any] = json.loads(json.dumps(config_class().to_dict(), default=str))
    return plain


def _config_class(architecture: str) -> Any:
    import transformers

    return getattr(getattr(transformers, architecture, None), "config_class", None)
