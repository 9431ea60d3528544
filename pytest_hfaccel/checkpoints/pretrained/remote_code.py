"""Model classes that a repository brings itself. Its code runs only with the user's consent, never with its own."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.config import REGISTERED
from pytest_hfaccel.core.errors import ConfigError, HfAccelError, LoadError
from pytest_hfaccel.core.files import hash_of
from pytest_hfaccel.core.spec import ModelSpec

_FLAG = "--hf-trust-remote-code"
_FILES_SHOWN = 20


def require_trust_remote_code(spec: ModelSpec, trusted: Collection[str], directory: Path | None) -> None:
    """Refuse a model that needs its repository's code, unless the user allowed exactly that.

    Args:
        spec: The model.
        trusted: The values of `--hf-trust-remote-code`; see `ModelSpec.may_run_its_code`.
        directory: Where its checkpoint lies; `None` where it is not on this machine. Then its Python files are
            downloaded, for the user to read.

    Raises:
        ConfigError: Without consent. The message lists the files that would run, with their SHA-256.
    """
    if not spec.requires_remote_code or spec.may_run_its_code(trusted):
        return
    exact = f"{_FLAG}={spec.path or spec.hub_id}"
    if spec.remote_code_registered:
        hint = f"Read these files; {_FLAG} then runs them."
    elif REGISTERED in trusted:
        hint = (
            f"{_FLAG} without a value covers models whose entry in your registry says `requires_remote_code: true`; "
            f"this one has no such entry. Read these files; {exact} then runs them."
        )
    else:
        hint = f"Read these files; {exact} then runs them."
    raise ConfigError(f"{spec.name} needs the code of its repository:\n{_listing(spec, directory)}", hint=hint)


def _listing(spec: ModelSpec, directory: Path | None) -> str:
    if directory is None:
        from pytest_hfaccel.checkpoints.pretrained.hub import download_code

        try:
            directory = download_code(spec)
        except HfAccelError as error:
            return f"  (the Python files of {spec.hub_id}; they could not be fetched: {error.message})"
    files = sorted(path for path in directory.rglob("*.py") if path.is_file())
    lines = [f"  {_printable(path.relative_to(directory))}  sha256 {hash_of(path)}" for path in files[:_FILES_SHOWN]]
    more = [f"  and {len(files) - _FILES_SHOWN} more in {directory}"] if len(files) > _FILES_SHOWN else []
    return "\n".join([*lines, *more]) or f"  (there is no Python file in {directory})"


def _printable(path: Path) -> str:
    """A name that cannot steer a terminal, so that no listing can hide one of its lines."""
    return str(path) if str(path).isprintable() else ascii(str(path))


def require_trust_of_other_repositories(directory: Path, trusted: Collection[str]) -> None:
    """Refuse a checkpoint that names code of another repository (`owner/repo--module.Class`) without consent to that.

    Raises:
        ConfigError: With the file and the repository.
    """
    for path in sorted(path for path in directory.glob("*.json") if path.is_file()):
        for reference in _auto_map_classes(path):
            repository, separator, _ = reference.rpartition("--")
            if separator and repository not in trusted:
                raise ConfigError(
                    f"{path}: auto_map names {reference!r}, the code of another repository.",
                    hint=f"Read that code, too; {_FLAG}={repository} then runs it.",
                )


def _auto_map_classes(path: Path) -> Iterator[str]:
    """The classes that the `auto_map`s of a JSON file name, also those of sub-configs."""
    try:
        open_nodes = [json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, RecursionError):
        return  # whoever reads the file next says what is wrong with it
    while open_nodes:
        node = open_nodes.pop()
        if isinstance(node, dict):
            yield from _strings_in(node.get("auto_map"))
            open_nodes += node.values()
        elif isinstance(node, list):
            open_nodes += node


def _strings_in(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _strings_in(value)


def remote_class(directory: Path, spec: ModelSpec) -> Any:
    """Import the class that the checkpoint's `auto_map` names as the model's architecture.

    Raises:
        LoadError: It names no such class.
    """
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    references = list(_strings_in(config.get("auto_map")))
    reference = next((name for name in references if name.rpartition(".")[2] == spec.architecture), None)
    if reference is None:
        raise LoadError(
            f"{directory / 'config.json'}: auto_map names no class {spec.architecture!r}.",
            stage="resolve",
            hint=f"It names: {', '.join(references) or 'none'}.",
        )
    return get_class_from_dynamic_module(reference, directory, local_files_only=True)
