"""The git branch of the user's project, read from its files as the commit is: no process is started."""

from __future__ import annotations

from pathlib import Path

_HEAD = "ref: refs/heads/"


def git_branch(directory: Path) -> str | None:
    """Return the branch checked out in the repository around `directory`.

    Returns:
        Its name; `None` outside a repository, and where a commit is checked out rather than a branch.
    """
    for folder in (directory.absolute(), *directory.absolute().parents):
        dot_git = folder / ".git"
        if dot_git.exists():
            head = _read(_git_dir(dot_git) / "HEAD")
            return head.removeprefix(_HEAD) if head.startswith(_HEAD) else None
    return None


def _git_dir(dot_git: Path) -> Path:
    """Return the repository's directory; in a work tree or submodule `.git` is a file that names it."""
    text = _read(dot_git)
    return dot_git.parent / text.removeprefix("gitdir:").strip() if text.startswith("gitdir:") else dot_git


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # a directory, or not there
        return ""
