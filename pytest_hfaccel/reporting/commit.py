"""The git commit of the user's project, read from its files: no git needed, and no process started."""

from __future__ import annotations

import re
from pathlib import Path

_OBJECT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_HOPS = 5  # a symbolic reference may name another; git itself follows at most five


def git_commit(directory: Path) -> str | None:
    """Return the commit checked out in the repository around `directory`.

    Returns:
        The commit's full hash; `None` outside a repository, before its first commit, and where references are kept in
        a form other than files and `packed-refs`.
    """
    for folder in (directory.absolute(), *directory.absolute().parents):
        dot_git = folder / ".git"
        if dot_git.exists():
            return _resolve(_git_dir(dot_git), "HEAD")
    return None


def _git_dir(dot_git: Path) -> Path:
    """Return the repository's directory; in a work tree or submodule `.git` is a file that names it."""
    text = _read(dot_git)
    return dot_git.parent / text.removeprefix("gitdir:").strip() if text.startswith("gitdir:") else dot_git


def _resolve(git_dir: Path, name: str) -> str | None:
    common = git_dir / (_read(git_dir / "commondir") or ".")
    for _ in range(_HOPS):
        text = _read(git_dir / name) or _read(common / name) or _packed(common, name)
        if not text.startswith("ref:"):
            return text if _OBJECT.fullmatch(text) else None
        name = text.removeprefix("ref:").strip()
    return None


def _packed(common: Path, name: str) -> str:
    for line in _read(common / "packed-refs").splitlines():
        commit, _, packed_name = line.partition(" ")
        if packed_name == name:
            return commit
    return ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # there is no such file: the caller looks elsewhere
        return ""
