"""The models that a model class tests: those named by the user, all, or its default. Never a substitute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from inspect import getattr_static
from reprlib import repr as short_repr
from typing import TYPE_CHECKING

from pytest_hfaccel.core.errors import ConfigError, HfAccelError
from pytest_hfaccel.core.spec import ModelSpec

if TYPE_CHECKING:
    from pytest_hfaccel.engine.model_class import ModelClassTests
    from pytest_hfaccel.engine.plan import Plan
    from pytest_hfaccel.registry import Registry

_ATTRIBUTES = ("architectures", "default_model", "model_id", "fallback", "serves", "extra_models", "task_sense")


def models_of_class(model_class: type[ModelClassTests], plan: Plan, registry: Registry) -> list[ModelSpec]:
    """Return the models a class tests in a run: those the user named, all it knows, or its default. Never a substitute.

    A class without `default_model` tests the first registered model it serves.

    Raises:
        ConfigError: The class's attributes cannot be, it serves no model, or not the one it names.
        HfAccelError: Its default model is not registered, and what it is could not be found out.
    """
    try:
        _require_sound(model_class)
        if plan.named:
            return [spec for spec in plan.named if model_class.serves(spec)]
        own = registry.informed(_extra_models(model_class))
        registered = [spec for spec in registry.specs if model_class.serves(spec)]
        default = _default_models(model_class, (*own, *registered), registry)
        if plan.config.all_models:
            # A class that lists its own models tests only those; registered models have their own modules.
            found = own or registered
            return [*found, *(spec for spec in default if spec not in (*own, *registered))]
        if not (default or registered):
            raise ConfigError(
                f"no `default_model`, and no registered model is of a class that it tests: {_served(model_class)}.",
                hint="Set `default_model` to a registered name, a hub id or a local directory.",
            )
        return default or registered[:1]
    except HfAccelError as error:
        error.message = f"{model_class.__name__}: {error.message}"
        raise


def default_of_class(model_class: type[ModelClassTests], registry: Registry) -> str:
    """Return the name of the model that a class tests where none is named; empty where there is none."""
    return model_class.default_model or next((spec.name for spec in registry.specs if model_class.serves(spec)), "")


def _extra_models(model_class: type[ModelClassTests]) -> Sequence[ModelSpec]:
    found = model_class.extra_models()
    if not isinstance(found, Sequence) or not all(isinstance(spec, ModelSpec) for spec in found):
        raise ConfigError(f"`extra_models` returned {short_repr(found)}; return a list of `ModelSpec`.")
    twice = [name for name, number in Counter(spec.name for spec in found).items() if number > 1]
    if twice:
        raise ConfigError(f"`extra_models` returned several models named {twice[0]!r}.")
    return found


def find_model(model_class: type[ModelClassTests], name: str | None, registry: Registry) -> ModelSpec:
    """Return the one model of a name, as `--hf-model` understands it; the class's default when there is no name.

    Raises:
        ConfigError: There is none, several, or one that the model class does not test.
    """
    name = name or default_of_class(model_class, registry)
    if not name:
        raise ConfigError(f"{model_class.__name__} has no `default_model`; name one: {model_class.__name__}('gpt2').")
    found = _resolve(model_class, name, registry, f"{model_class.__name__}: model")
    if len(found) > 1:
        raise ConfigError(f"{name!r} names several models: {', '.join(spec.name for spec in found)}. Name one.")
    return found[0]


def _default_models(
    model_class: type[ModelClassTests], known: Sequence[ModelSpec], registry: Registry
) -> list[ModelSpec]:
    name = model_class.default_model
    found = [spec for spec in known if spec.name == name]
    if found or not name:
        return found
    try:
        return _resolve(model_class, name, registry, "default_model")
    except HfAccelError as error:
        if not error.message.startswith("default_model"):
            error.message = f"default_model: {error.message}"
        raise


def _resolve(model_class: type[ModelClassTests], name: str, registry: Registry, place: str) -> list[ModelSpec]:
    """Return the models of a name that a class tests; it is an error if it tests none of them."""
    from pytest_hfaccel.registry import resolve_model

    resolved = resolve_model(name, registry)
    served = [spec for spec in resolved if model_class.serves(spec)]
    if not served:
        classes = ", ".join(dict.fromkeys(spec.architecture for spec in resolved))
        raise ConfigError(
            f"{place} {name!r} is {classes}, and the class tests {_served(model_class)}.",
            hint="Name a model of these, or use the model class whose `architectures` match.",
        )
    return served


def module_name(model_class: type) -> str:
    """The module's name in reports: `bert` for `test_hf_bert.py`."""
    return model_class.__module__.rpartition(".")[-1].removeprefix("test_").removeprefix("hf_")


def _served(model_class: type[ModelClassTests]) -> str:
    return f"`architectures` = {', '.join(model_class.architectures) or 'nothing'}"


def _require_sound(model_class: type[ModelClassTests]) -> None:
    """Refuse attributes that would quietly select something else: a text is a tuple of letters, and one may be `*`."""
    from pytest_hfaccel.engine.model_class import ModelClassTests

    if model_class.__init__ is not ModelClassTests.__init__ or model_class.__new__ is not ModelClassTests.__new__:
        raise ConfigError(
            "it has an `__init__` or a `__new__`, and pytest does not collect such classes.",
            hint="Set attributes of the class, or use a fixture of your own.",
        )
    patterns, default = model_class.architectures, model_class.default_model
    if isinstance(patterns, str):
        raise ConfigError(f"`architectures` is a text; make it a tuple: ({patterns!r},).")
    if not isinstance(patterns, (tuple, list)) or not all(isinstance(item, str) and item.strip() for item in patterns):
        raise ConfigError(f"`architectures` is {patterns!r}; make it a tuple of class names, such as ('Bert*',).")
    if default is not None and not isinstance(default, str):
        raise ConfigError(f"`default_model` is {default!r}; make it the name of a model.")
    if default and not default.strip():
        raise ConfigError("`default_model` is blank; make it the name of a model, or leave it out.")
    if not isinstance(model_class.fallback, bool):
        raise ConfigError(f"`fallback` is {model_class.fallback!r}; make it True or False.")
    for name in ("serves", "extra_models"):
        if not isinstance(getattr_static(model_class, name), (classmethod, staticmethod)):
            raise ConfigError(f"`{name}` is no class method; put @classmethod above it.")
    for name in vars(model_class):
        near = [] if hasattr(ModelClassTests, name) else get_close_matches(name, _ATTRIBUTES, n=1, cutoff=0.8)
        if near:
            raise ConfigError(f"`{name}` means nothing here. Did you mean `{near[0]}`?")
