"""Files that are replaced atomically, and folders that are built once and cached."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from typing import Any, BinaryIO

from pytest_hfaccel.core.errors import CheckpointError


def replace_file(path: Path, content: str | bytes, *, mode: int | None = None) -> None:
    """Write a file beside its place and move it there; parent directories are made.

    `os.replace` is atomic on POSIX and on Windows when both names are on one file system, as names in one folder are.
    A file that was there keeps its permissions, a new one gets those the process gives to any file.

    Args:
        path: The file.
        content: Text is written as UTF-8, line ends as they are.
        mode: The file's permissions, whatever it had and whatever the umask is; it never has wider ones meanwhile.

    Raises:
        OSError: The folder cannot be written; the old file is untouched and nothing is left beside it.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{token_hex(4)}.new")
    try:
        with open_new(new, mode) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave an empty file under the new name
        if mode is None and path.exists():
            shutil.copymode(path, new)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def open_new(path: Path, mode: int | None = None, buffering: int = -1) -> BinaryIO:
    """Make a file and open it for writing.

    Args:
        path: The file.
        mode: Its permissions, whatever the umask is; those the process gives to any file when not given.
        buffering: As of `open`.

    Raises:
        OSError: It is there already, or cannot be made.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags, 0o666 if mode is None else mode)

    file = open(path, "xb", buffering=buffering, opener=opener)  # noqa: SIM115
    if mode is not None:
        path.chmod(mode)
    return file


MANIFEST = "manifest.json"

LOCK_SECONDS = 1800
"""How long a process waits for another that builds the same folder: the random weights of a large model."""

LARGE_BYTES = 64 * 2**20
"""Files from this size on are not hashed again while their size and time of change are those of the manifest."""

_NEXT_STEPS = {
    errno.ENOSPC: "Free space, or choose another directory with --hf-cache.",
    errno.EDQUOT: "Free space within your quota, or choose another directory with --hf-cache.",
}
_USUAL_NEXT_STEP = "Make it writable for this user, or choose another directory with --hf-cache."

_Stamp = tuple[int, int]
_SOUND: dict[Path, dict[str, _Stamp]] = {}
"""Folders that this process has verified, with the size and time of change of each file."""


class DamagedCacheWarning(UserWarning):
    """A folder in the cache had changed since it was written; it was built again."""


def build_once(directory: Path, build: Callable[[Path], object], *, stage: str = "load") -> None:
    """Make a folder, unless it is there and sound.

    Args:
        directory: The folder to make; left alone when it is what its manifest says.
        build: Fills an empty folder beside it, which then takes its place.
        stage: The stage of the error if it cannot be written.

    Raises:
        CheckpointError: It cannot be written; nothing is left behind.

    Warns:
        DamagedCacheWarning: It was there, but damaged.
    """
    if not directory.is_dir() or find_damage(directory):
        damage = _build_locked(directory, build, stage)
        if damage:
            message = f"{directory} was damaged ({damage}) and has been built again."
            warnings.warn(message, DamagedCacheWarning, stacklevel=2)


def find_damage(directory: Path) -> str:
    """Return which file of a built folder is not as it was written, and how; empty when all are.

    Files that came later are not looked at. The hashes are computed once per process, and again for a file whose size
    or time of change is another than before.
    """
    try:
        files: dict[str, dict[str, Any]] = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))["files"]
        known = _SOUND.setdefault(directory, {})
        for name, written in files.items():
            path = directory / name
            stamp = _stamp(path)
            if known.get(name) == stamp:
                continue
            if stamp[0] != written["bytes"]:
                return f"{name} has {stamp[0]} bytes instead of {written['bytes']}"
            is_trusted = stamp[0] >= LARGE_BYTES and stamp[1] == written["mtime_ns"]
            if not is_trusted and hash_of(path) != written["sha256"]:
                return f"the content of {name} has changed"
            known[name] = stamp
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} or a file it names cannot be read: {type(error).__name__}: {error}"
    return ""


def hashes_in(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a built folder by its name, as the manifest has it."""
    files = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))["files"]
    return {name: facts["sha256"] for name, facts in files.items()}


def hash_of(path: Path, prefix: bytes = b"", algorithm: str = "sha256") -> str:
    """Return the hash of a file's content, after some bytes in front of it, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, prefix, usedforsecurity=False)).hexdigest()


def files_below(directory: Path) -> list[tuple[str, Path]]:
    """Return the files of a folder and of those in it, each with its name relative to it, sorted."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return [(path.relative_to(directory).as_posix(), path) for path in files]


def _build_locked(directory: Path, build: Callable[[Path], object], stage: str) -> str:
    """Build under the folder's lock; return what was wrong with an existing folder, if anything."""
    from filelock import FileLock, Timeout

    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{directory}.lock", timeout=LOCK_SECONDS):
            damage = find_damage(directory) if directory.is_dir() else ""
            if damage or not directory.is_dir():
                _build_aside(directory, build)
            return damage
    except Timeout as error:
        raise CheckpointError(
            f"{directory}: another process has been building it for {LOCK_SECONDS} s.",
            stage=stage,
            hint=f"If no such process is left, delete {error.lock_file}.",
        ) from error
    except OSError as error:
        damage = f"{directory} is damaged ({find_damage(directory)}), and " if directory.is_dir() else ""
        raise CheckpointError(
            f"{damage}{error.filename or directory} cannot be written: {error.strerror or error}.",
            stage=stage,
            hint=_NEXT_STEPS.get(error.errno or 0, _USUAL_NEXT_STEP),
        ) from error


def _build_aside(directory: Path, build: Callable[[Path], object]) -> None:
    prefix = f".{directory.name}-"
    # We hold the lock, so what lies there was left by a process that was killed.
    for abandoned in directory.parent.glob(f"{prefix}*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(prefix=prefix, dir=directory.parent))
    try:
        build(aside)
        _write_manifest(aside)
        if directory.is_dir():  # the damaged one: moved away first, a folder does not replace one that holds files
            directory.replace(aside.with_name(f"{aside.name}-damaged"))
        aside.replace(directory)
        _SOUND.pop(directory, None)
    finally:
        for left in directory.parent.glob(f"{prefix}*"):
            shutil.rmtree(left, ignore_errors=True)


def _write_manifest(directory: Path) -> None:
    files = {}
    for name, path in files_below(directory):
        size, changed = _stamp(path)
        files[name] = {"bytes": size, "mtime_ns": changed, "sha256": hash_of(path)}
    (directory / MANIFEST).write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")


def _stamp(path: Path) -> _Stamp:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns
