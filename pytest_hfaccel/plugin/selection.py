"""Which models a model class tests, and whether what was named is what gets tested."""

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
    from pytest_hfaccel.engine.plan import Plan
    from pytest_hfaccel.plugin.model_class import ModelClassTests
    from pytest_hfaccel.plugin.session import HfSession
    from pytest_hfaccel.registry import Registry


_ATTRIBUTES = ("architectures", "default_model", "model_id", "yields", "serves", "unregistered", "task_sense")


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
        own = registry.informed(_unregistered(model_class))
        registered = [spec for spec in registry.specs if model_class.serves(spec)]
        default = _default_models(model_class, (*own, *registered), registry)
        if plan.config.all_models:
            # A class that lists models of its own is about those; the registered ones have modules of their own.
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


def _unregistered(model_class: type[ModelClassTests]) -> Sequence[ModelSpec]:
    found = model_class.unregistered()
    if not isinstance(found, Sequence) or not all(isinstance(spec, ModelSpec) for spec in found):
        raise ConfigError(f"`unregistered` returned {short_repr(found)}; return a list of `ModelSpec`.")
    twice = [name for name, number in Counter(spec.name for spec in found).items() if number > 1]
    if twice:
        raise ConfigError(f"`unregistered` returned several models named {twice[0]!r}.")
    return found


def _default_models(
    model_class: type[ModelClassTests], known: Sequence[ModelSpec], registry: Registry
) -> list[ModelSpec]:
    """Resolve the default model as `--hf-model` would be."""
    from pytest_hfaccel.registry import resolve_model

    name = model_class.default_model
    found = [spec for spec in known if spec.name == name]
    if found or not name:
        return found
    try:
        resolved = resolve_model(name, registry)
    except HfAccelError as error:
        error.message = f"default_model: {error.message}"
        raise
    served = [spec for spec in resolved if model_class.serves(spec)]
    if not served:
        classes = ", ".join(dict.fromkeys(spec.architecture for spec in resolved))
        raise ConfigError(f"default_model {name!r} is {classes}, and the class tests {_served(model_class)}.")
    return served


def _served(model_class: type[ModelClassTests]) -> str:
    return f"`architectures` = {', '.join(model_class.architectures) or 'nothing'}"


def _require_sound(model_class: type[ModelClassTests]) -> None:
    """Refuse attributes that would quietly select something else: a text is a tuple of letters, and one may be `*`."""
    from pytest_hfaccel.plugin.model_class import ModelClassTests

    if model_class.__init__ is not ModelClassTests.__init__ or model_class.__new__ is not ModelClassTests.__new__:
        raise ConfigError(
            "it has an `__init__` or a `__new__`, and pytest collects no such class.",
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
    if not isinstance(model_class.yields, bool):
        raise ConfigError(f"`yields` is {model_class.yields!r}; make it True or False.")
    for name in ("serves", "unregistered"):
        if not isinstance(getattr_static(model_class, name), (classmethod, staticmethod)):
            raise ConfigError(f"`{name}` is no class method; put @classmethod above it.")
    for name in vars(model_class):
        near = [] if hasattr(ModelClassTests, name) else get_close_matches(name, _ATTRIBUTES, n=1, cutoff=0.8)
        if near:
            raise ConfigError(f"`{name}` means nothing here. Did you mean `{near[0]}`?")


def mistakes_of_run(session: HfSession) -> str:
    """Say what only shows when everything is collected; nothing when nothing is wrong.

    That is a model which the user named and no collected class tests, and an expected failure of a check that neither
    we nor a conftest registers.
    """
    try:
        unknown = session.registry.unknown_checks(check.name for check in session.checks) if session.claimed else []
    except HfAccelError as error:
        return str(error)
    return "\n".join(unknown) or _unclaimed(session)


def _unclaimed(session: HfSession) -> str:
    missing = session.unclaimed() if session.config.models else []
    if not missing:
        return ""
    lines = [f"--hf-model {spec.name}: no collected model class tests {spec.architecture}." for spec in missing]
    lines.append(f"The collected classes test: {', '.join(sorted(session.patterns)) or 'nothing'}.")
    lines.append("Collect the module of that class (model_classes/), or write one: a class with `architectures`.")
    return "\n".join(lines)
