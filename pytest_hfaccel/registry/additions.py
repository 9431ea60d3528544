"""Adds models to a user's registry file without changing its other entries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import CheckpointError, ConfigError, RegistryError
from pytest_hfaccel.core.files import replace_file
from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.registry.document import Document, parse_document, read_document, validate

_NEW_FILE = "version: 1\n\nmodels:\n"


def add_entry(file: Path, name: str, entry: dict[str, Any]) -> None:
    """Add an entry to a registry file, which is made if it is not there; raises what `add_entries` raises."""
    write_document(file, add_entries(open_document(file), {name: entry}))


def open_document(file: Path) -> Document:
    """Read a registry file that is to be added to; an empty one stands for one that is not there.

    Raises:
        RegistryError: The file has mistakes.
    """
    if file.exists():
        document = read_document(file)
    else:
        document = Document(str(file), file.resolve().parent, text=_NEW_FILE)
        parse_document(document)
    validate(document)
    if document.problems:
        raise RegistryError([str(problem) for problem in document.problems])
    return document


def add_entries(
    before: Document, entries: Mapping[str, dict[str, Any]], comments: Mapping[str, str] | None = None
) -> Document:
    """Return a registry file with further entries, which is not written yet.

    The entries go to the end of `models:`. The rest of the file, comments included, stays as it is to the byte.

    Args:
        before: The file, as `open_document` returns it.
        entries: The entries by name.
        comments: Lines above an entry, by its name.

    Raises:
        ConfigError: The file holds a name already, or writes `models:` in a form that cannot be added to.
    """
    models = before.data.get("models") or {}
    for name in entries:
        if name in models:
            raise ConfigError(f"{before.place(('models', name))}: {name!r} already exists.", hint="Edit it there.")
    indent = 2
    if models:
        line = before.text.splitlines()[before.lines[("models", next(iter(models)))] - 1]
        indent = len(line) - len(line.lstrip())
    texts = []
    for name, entry in entries.items():
        lines = (comments or {}).get(name, "").splitlines()
        texts.append("".join(f"{' ' * indent}# {line}\n" for line in lines) + entry_text(name, entry, indent))
    after = Document(before.file, before.directory, text=_insert(before, "\n".join(texts)))
    parse_document(after)
    validate(after)
    if after.problems or after.data.get("models") != {**models, **entries}:
        raise ConfigError(
            f"{before.file}: the entry cannot be added without rewriting the file.",
            hint=f"Write `models:` in block form, at the end of the file, and add:\n\n{''.join(texts)}",
        )
    return after


def write_document(file: Path, document: Document) -> None:
    """Replace a registry file in one step.

    Raises:
        CheckpointError: It cannot be written.
    """
    try:
        replace_file(file.resolve(), document.text)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be written: {error.strerror}.", stage="resolve") from error


def entry_text(name: str, entry: dict[str, Any], indent: int = 2) -> str:
    """Write an entry as YAML, indented to stand under `models:`."""
    import yaml

    text = yaml.safe_dump({name: entry}, sort_keys=False, allow_unicode=True, width=100)
    return "".join(f"{' ' * indent}{line}" for line in text.splitlines(keepends=True))


def _insert(document: Document, addition: str) -> str:
    """Put text after the last line of `models:`, before the comments that belong to the next key."""
    lines = document.text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    start = document.lines.get(("models",))
    if start is None:
        return "".join([*lines, "\nmodels:\n", addition])
    later = [line for loc, line in document.lines.items() if len(loc) == 1 and line > start]
    end = min(later, default=len(lines) + 1) - 1
    while end > start and (not lines[end - 1].strip() or lines[end - 1].startswith("#")):
        end -= 1
    return "".join([*lines[:end], "\n", addition, *lines[end:]])


def entry_of(spec: ModelSpec, defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the registry entry of a model that was resolved from its config.json.

    It never says `requires_remote_code`: that would be a consent which the checkpoint gives itself.

    Args:
        spec: The model; its `dims` are the whole config.
        defaults: The default config of its class; what is equal to it is left out of the entry.
    """
    entry: dict[str, Any] = {"path": spec.path} if spec.path else {}
    if spec.hub_id not in ("", spec.name):
        entry["hub_id"] = spec.hub_id
    entry |= {"architecture": spec.architecture, "task": spec.task}
    dims = _differing(dict(spec.dims), defaults)
    return entry | ({"dims": dims} if dims else {})


def _differing(dims: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    differing: dict[str, Any] = {}
    for key, value in dims.items():
        default = defaults.get(key)
        if isinstance(value, dict) and isinstance(default, dict) and "model_type" in value:
            # The defaults of another type of model say nothing about this one: all of it is written.
            if value["model_type"] == default.get("model_type"):
                inner = _differing(value, default)
                value = {"model_type": value["model_type"], **inner} if inner else {}
        elif key in defaults and value == default:
            continue
        if value != {}:
            differing[key] = value
    return differing
