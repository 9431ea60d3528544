"""The origin that every report states: schema, machine, versions, commit."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.presence import installed_version
from pytest_hfaccel.core.results import SCHEMA_VERSION
from pytest_hfaccel.reporting.plain import to_plain

SCHEMA_PREFIX = "pytest-hfaccel/"
_OWN_FIELDS = ("machine", "versions", "commit", "options")
_ONLY_IN_SUMMARY = ("pool", "absent_devices")


def envelope(schema: str, header: Mapping[str, Any], root: str | None = None) -> dict[str, Any]:
    """Return the fields that all files share: schema, machine, versions, commit, options, and the run.

    Args:
        schema: Which schema the file follows; one of `SCHEMAS`.
        header: Plain JSON about the run. `versions` and `commit` are looked up where it has none; what is not a field
            of its own is listed under `run`.
        root: A directory: paths below it become relative to it.
    """
    known = {key: header[key] for key in _OWN_FIELDS if key in header}
    shared = {
        "machine": {},
        "versions": known.get("versions") or installed_versions(),
        "commit": known["commit"] if "commit" in known else git_commit(Path.cwd()),
        "options": {},
    }
    dropped = _OWN_FIELDS if schema in ("summary", "journal") else (*_OWN_FIELDS, *_ONLY_IN_SUMMARY)
    run = {key: value for key, value in header.items() if key not in dropped}
    fields = {"schema": SCHEMA_PREFIX + schema, "schema_version": SCHEMA_VERSION, **shared, **known, "run": run}
    plain: dict[str, Any] = to_plain(fields, root)
    return plain


_OBJECT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_HOPS = 5  # a symbolic reference may name another; git itself follows at most five
_BRANCH = "ref: refs/heads/"


def git_commit(directory: Path) -> str | None:
    """Return the full hash of the commit checked out around `directory`, from git's files: no process is started.

    Returns:
        `None` outside a repository, before its first commit, and where references are in neither files nor
        `packed-refs`.
    """
    git_dir = _git_dir_around(directory)
    return _resolve(git_dir, "HEAD") if git_dir else None


def git_branch(directory: Path) -> str | None:
    """Return the branch checked out around `directory`; `None` outside a repository, or where a commit is."""
    git_dir = _git_dir_around(directory)
    head = _read(git_dir / "HEAD") if git_dir else ""
    return head.removeprefix(_BRANCH) if head.startswith(_BRANCH) else None


def _git_dir_around(directory: Path) -> Path | None:
    for folder in (directory.absolute(), *directory.absolute().parents):
        dot_git = folder / ".git"
        if dot_git.exists():
            # In a work tree or submodule `.git` is a file that names the repository's directory.
            text = _read(dot_git)
            return dot_git.parent / text.removeprefix("gitdir:").strip() if text.startswith("gitdir:") else dot_git
    return None


def _resolve(git_dir: Path, name: str) -> str | None:
    common = git_dir / (_read(git_dir / "commondir") or ".")
    for _ in range(_HOPS):
        text = _read(git_dir / name) or _read(common / name)
        packed = re.search(rf"^(\S+) {re.escape(name)}$", _read(common / "packed-refs"), re.MULTILINE)
        text = text or (packed[1] if packed else "")
        if not text.startswith("ref:"):
            return text if _OBJECT.fullmatch(text) else None
        name = text.removeprefix("ref:").strip()
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # there is no such file: the caller looks elsewhere
        return ""


_PACKAGES = (
    *("pytest-hfaccel", "pytest", "torch", "transformers", "tokenizers", "safetensors", "huggingface-hub", "numpy"),
    *("accelerate", "openvino", "nncf", "torchao", "onnx", "onnxscript", "onnxruntime", "executorch"),
)


def installed_versions() -> dict[str, str | None]:
    """Return the versions of Python and the packages that decide a result, without importing them.

    They are read once per process: what was imported stays, whatever is installed meanwhile.

    Returns:
        The versions; `None` for a package that is not installed.
    """
    return dict(_versions_at_the_start())


@cache
def _versions_at_the_start() -> dict[str, str | None]:
    return {"python": platform.python_version(), **{name: installed_version(name) for name in _PACKAGES}}


SCHEMAS = ("cell", "by-class", "by-hardware", "summary", "journal", "coverage", "comparison", "common")
"""The schemas: of a cell's record, of the three kinds of report, of a line of the journal, of what `hfaccel support`
and `hfaccel compare` write, and what they share."""


def load_schema(name: str) -> dict[str, Any]:
    """Return a JSON Schema. It refers to the others by their `$id`.

    Raises:
        ConfigError: There is no schema of that name.
    """
    if name not in SCHEMAS:
        raise ConfigError(f"{name!r} is not a schema. Allowed: {', '.join(SCHEMAS)}.")
    file = resources.files(__package__).joinpath("schema", f"{name.replace('-', '_')}.json")
    schema: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return schema
