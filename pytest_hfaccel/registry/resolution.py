"""Resolves the name of a model: a registered name, a wildcard, a directory or a repository on the hub."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import CheckpointError, ConfigError, HfAccelError
from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.core.tasks import TASKS
from pytest_hfaccel.registry.auto_classes import auto_entries, infer_task, match_pairs
from pytest_hfaccel.registry.catalog import Registry, is_wildcard
from pytest_hfaccel.registry.hub import CONFIG, fetch_config
from pytest_hfaccel.registry.loading import build_spec


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
        specs = registry.match(name) if several or "/" not in name else []
        # Registered models are what a wildcard means first: `bert/*` means the classes of transformers.
        specs = specs or registry.informed(match_pairs(name))
        if specs:
            return specs
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
    distinct = list(by_place.values())
    parts = 1
    while True:
        count = Counter(spec.slug for spec in distinct)
        longer = [spec.path and count[spec.slug] > 1 and parts < len(Path(spec.path).parts) - 1 for spec in distinct]
        if not any(longer):
            return distinct
        parts += 1
        distinct = [
            replace(spec, label="--".join(Path(spec.path).parts[-parts:])) if more else spec
            for spec, more in zip(distinct, longer, strict=True)
        ]


_NOT_DIMS = frozenset(
    "_commit_hash _name_or_path architectures auto_map custom_pipelines dtype model_type quantization_config "  # noqa: SIM905
    "task_specific_params torch_dtype transformers_version".split()
)
"""What config.json says about its own origin and storage, and not about the model it configures."""


def read_config(path: Path) -> dict[str, Any]:
    """Read a config.json.

    Raises:
        CheckpointError: It is not there, cannot be read, or is not a JSON object.
    """
    if path.exists() and not path.is_file():  # to read a pipe or a device might never end
        raise CheckpointError(f"{path} is not a file.", stage="resolve")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path.parent} has no config.json, so it is not a transformers checkpoint.",
            stage="resolve",
            hint="Name the directory that `save_pretrained` wrote.",
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.", stage="resolve") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}.", stage="resolve") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} is not a JSON object.", stage="resolve")
    return config


def spec_of_config(
    name: str, config: dict[str, Any], registry: Registry, *, needs_task: bool = True, **fields: Any
) -> ModelSpec:
    """Make the spec of a model from its config.json and what the registry says about its class.

    Args:
        name: What the user called the model.
        config: The content of config.json.
        registry: Gives task, dependencies and the like of the architecture class.
        needs_task: Whether a class whose task nothing tells is a mistake; without, its task is empty, and a model type
            stands for a class that is not named.
        fields: Further fields of the spec: `hub_id` or `path`, `source`, and what a registry file says of the model.

    Raises:
        ConfigError: The config names no class, or nothing tells the task of the class. The hint is the YAML to add.
    """
    architecture = (not needs_task and _class_of_type(config)) or _architecture(name, config, fields)
    shared = dict(registry.classes.get(architecture, {}))
    task = fields.get("task") or shared.get("task") or infer_task(architecture, config)
    dims = {key: value for key, value in config.items() if key not in _NOT_DIMS}
    fields["dims"] = dims | fields.get("dims", {})
    if task is None and not needs_task:
        fields["requires_remote_code"] = bool(config.get("auto_map"))
        return ModelSpec(**{**fields, "name": name, "architecture": architecture, "task": ""})
    if task is None:
        raise ConfigError(
            f"{name}: the task is not known for {architecture}.",
            hint=_yaml_hint(f"classes:\n  {architecture}:\n    task: <one of {', '.join(TASKS)}>"),
        )
    fields |= {
        "architecture": architecture,
        "task": task,
        "requires_remote_code": bool(config.get("auto_map")),
        "remote_code_registered": bool(fields.get("requires_remote_code")),
    }
    return build_spec(name, fields, shared)


def _class_of_type(config: dict[str, Any]) -> str | None:
    """Return the base model of the model type where no class is named, as `AutoModel` would choose; else `None`."""
    if config.get("architectures"):
        return None
    named = (each.architecture for each in auto_entries() if each.model_type == config.get("model_type"))
    return next(named, None)


def _architecture(name: str, config: dict[str, Any], fields: dict[str, Any]) -> str:
    architectures = config.get("architectures")
    named = architectures[0] if isinstance(architectures, list) and architectures else None
    # The name becomes part of generated code and of attribute lookups in transformers: it must be a plain identifier.
    if isinstance(named, str) and re.fullmatch(r"[A-Za-z]\w*", named):
        return named
    problem = "names no architecture class" if not named else f"names {named!r}, which is not a class name"
    origin = f"path: {json.dumps(fields['path'])}" if fields.get("path") else f"hub_id: {fields.get('hub_id')}"
    entry = f"models:\n  <a name>:\n    {origin}\n    architecture: <transformers class>"
    raise ConfigError(f"{name}: its config.json {problem} (`architectures`).", hint=_yaml_hint(entry))


def _yaml_hint(lines: str) -> str:
    return f"Say it in a file and name that with --hf-registry:\n\nversion: 1\n{lines}"
