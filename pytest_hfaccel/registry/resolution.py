"""What a user means by a model: a registered name, a wildcard, a directory or a repository on the hub."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pytest_hfaccel.core.errors import ConfigError, HfAccelError
from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.registry.catalog import Registry, is_wildcard
from pytest_hfaccel.registry.config_json import read_config, spec_of_config
from pytest_hfaccel.registry.every import match_pairs
from pytest_hfaccel.registry.hub import CONFIG, fetch_config


def resolve_model(name: str, registry: Registry, *, needs_task: bool = True) -> list[ModelSpec]:
    """Find the models a user means.

    A registered name comes before a directory of the same name (which `./name` still reaches), a directory before the
    hub.

    Args:
        name: Registered name, part of one after the `/`, wildcard, local directory or hub id; or a class of the
            installed transformers with its model type, as in `opt/OPTForCausalLM`.
        registry: The models that are known.
        needs_task: Whether a model whose task nothing tells is a mistake. To trace a model takes none.

    Raises:
        ConfigError: There is no such model or directory, or its config.json does not say what it is.
        CheckpointError: The directory holds no readable config.json.
        GatedError: The repository wants an accepted licence and a token.
        HubError: The hub was needed and did not answer.
    """
    if name in registry:
        return [registry.get(name)]
    several = is_wildcard(name)
    if _directory(name) is None:
        # What follows the `/` names a registered model too, unless it looks like a repository of its own.
        found = registry.match(name) if several or "/" not in name else []
        # Registered models are what a wildcard means first: `bert/*` means the classes of transformers.
        found = found or registry.informed(match_pairs(name))
        if found:
            return found
        if several:
            known = ", ".join(spec.name for spec in registry.specs)
            raise ConfigError(f"{name!r} matches no registered model.", hint=f"Registered: {known}.")
    return [resolve_unregistered(name, registry, needs_task=needs_task)]


def resolve_unregistered(name: str, registry: Registry, *, needs_task: bool = True) -> ModelSpec:
    """Learn what a local directory or a repository on the hub holds, from its config.json.

    The registry gives task, dependencies and the like of the architecture class. Raises what `resolve_model` raises.
    """
    directory = _directory(name)
    if directory is not None:
        config = directory / CONFIG
        fields = {"path": str(directory.resolve()), "source": str(config)}
        return spec_of_config(name, read_config(config), registry, needs_task=needs_task, **fields)
    if name.startswith((".", "/", "~")):
        is_file = os.path.isfile(os.path.expanduser(name))  # noqa: PTH111, PTH113 - never raises, unlike those of `Path`
        raise ConfigError(f"{name}: {'is a file; name its directory' if is_file else 'there is no such directory'}.")
    try:
        file, origin = fetch_config(name)
    except HfAccelError as error:
        near = registry.suggest(name)
        if near:
            error.hint = f"It is not registered.{near}" + (f"\n{error.hint}" if error.hint else "")
        raise
    known = {"hub_id": name, "source": f"{CONFIG} in the {origin}", **registry.unresolved.get(name, {})}
    return spec_of_config(name, read_config(file), registry, needs_task=needs_task, **known)


def _directory(name: str) -> Path | None:
    """Return the directory of that name; `None` where there is none, also because there cannot be."""
    try:
        directory = Path(name).expanduser()
        return directory if directory.is_dir() else None
    except (OSError, RuntimeError):  # too long for a file name, or not to be looked into; no such home directory
        return None


def with_distinct_ids(specs: Iterable[ModelSpec]) -> list[ModelSpec]:
    """Give directories of the same name ids that tell them apart, by the folders above them; each directory once."""
    by_place: dict[str, ModelSpec] = {}
    for spec in specs:
        by_place.setdefault(spec.path or spec.name, spec)
    found = list(by_place.values())
    parts = 1
    while True:
        count = Counter(spec.slug for spec in found)
        longer = [spec.path and count[spec.slug] > 1 and parts < len(Path(spec.path).parts) - 1 for spec in found]
        if not any(longer):
            return found
        parts += 1
        found = [
            replace(spec, label="--".join(Path(spec.path).parts[-parts:])) if more else spec
            for spec, more in zip(found, longer, strict=True)
        ]
