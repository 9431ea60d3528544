"""Which class and dimensions a model has: registry, directory, hub - or, said openly, an assumption."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from pytest_hfaccel.errors import HfAccelError
from pytest_hfaccel.registry import Registry, resolve_model
from pytest_hfaccel.spec import ModelSpec


@dataclass(frozen=True)
class KnownModel:
    """A model whose cost can be computed.

    Attributes:
        spec: Its class and dimensions.
        origin: Where the dimensions come from.
        is_assumed: Whether they are the defaults of a class and not the model's own.
    """

    spec: ModelSpec
    origin: str
    is_assumed: bool = False


def find_model(name: str, model_class: str | None, registry: Registry) -> KnownModel | str:
    """Find a model's class and dimensions.

    Args:
        name: Registered name, part of one after the `/`, local directory, hub id, or any name.
        model_class: Architecture class to use instead of the checkpoint's own.
        registry: The models that are known.

    Returns:
        The model, or why there is none.
    """
    try:
        found = resolve_model(name, registry)
    except HfAccelError as error:
        return _assume(name, model_class, registry, error.message)
    if len(found) > 1:
        names = ", ".join(spec.name for spec in found)
        return _assume(name, model_class, registry, f"{name!r} is several models: {names}")
    spec = replace(found[0], architecture=model_class or found[0].architecture)
    return KnownModel(spec, _origin(found[0]))


def _origin(spec: ModelSpec) -> str:
    # A registry entry's source is `file:line`, with the folder of the installation: the file's name says enough.
    return re.split(r"[\\/]", spec.source)[-1] or spec.name


def _assume(name: str, model_class: str | None, registry: Registry, why: str) -> KnownModel | str:
    why = why.rstrip(".")
    architecture = model_class or _class_of_type(name, registry)
    if architecture is None:
        return f"{why}. Its name holds no model type of the installed transformers."
    spec = ModelSpec(name=name, architecture=architecture, task="", source="assumed")
    return KnownModel(spec, f"{architecture}'s default config, assumed because: {why}", is_assumed=True)


def _class_of_type(name: str, registry: Registry) -> str | None:
    """Return a class for the model type a name holds: a registered one where there is one, else the base model."""
    from pytest_hfaccel.families.markers import find_marker
    from pytest_hfaccel.families.name_evidence import split_name
    from pytest_hfaccel.families.transformers_tables import auto_tables

    marker = find_marker(split_name(name)[1])
    if marker is None or not marker.is_type:
        return None
    serving = {
        class_name: heads
        for class_name, heads in auto_tables().heads_of_class.items()
        if any(_joined(each) == _joined(marker.text) for types in heads.values() for each in types)
    }
    registered = next((spec.architecture for spec in registry.specs if spec.architecture in serving), None)
    return registered or next((class_name for class_name, heads in serving.items() if "" in heads), None)


def _joined(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
