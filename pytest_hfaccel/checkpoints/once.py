"""Directories that are either complete or not there, also under parallel processes, kills and full disks."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from pytest_hfaccel.errors import CheckpointError

LOCK_SECONDS = 1800
"""How long a process waits for another that builds the same directory: the random weights of a large model."""

_NEXT_STEPS = {
    errno.ENOSPC: "Free space, or choose another directory with --hf-cache.",
    errno.EDQUOT: "Free space within your quota, or choose another directory with --hf-cache.",
}
_USUAL_NEXT_STEP = "Make it writable for this user, or choose another directory with --hf-cache."


def build_once(directory: Path, build: Callable[[Path], None]) -> None:
    """Make a directory, unless it is there.

    Args:
        directory: The directory to make; left alone when it exists.
        build: Fills an empty directory beside it, which then takes its place.

    Raises:
        CheckpointError: It cannot be written; nothing is left behind.
    """
    if directory.is_dir():
        return
    from filelock import FileLock, Timeout

    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{directory}.lock", timeout=LOCK_SECONDS):
            if not directory.is_dir():
                _build_aside(directory, build)
    except Timeout as error:
        raise CheckpointError(
            f"{directory}: another process has been building it for {LOCK_SECONDS} s.",
            hint=f"If no such process is left, delete {error.lock_file}.",
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"{error.filename or directory} cannot be written: {error.strerror or error}.",
            hint=_NEXT_STEPS.get(error.errno or 0, _USUAL_NEXT_STEP),
        ) from error


def _build_aside(directory: Path, build: Callable[[Path], None]) -> None:
    prefix = f".{directory.name}-"
    # We hold the lock, so what lies there was left by a process that was killed.
    for abandoned in directory.parent.glob(f"{prefix}*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(prefix=prefix, dir=directory.parent))
    try:
        build(aside)
        aside.replace(directory)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
