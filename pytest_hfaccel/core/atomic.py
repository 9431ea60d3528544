"""Replacing a file as a whole: a reader sees the old content or the new one, also when the writer is killed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO


def replace_file(path: Path, content: str | bytes, *, mode: int | None = None) -> None:
    """Write a file beside its place and move it there; parent directories are made.

    `os.replace` is atomic on POSIX and on Windows when both names are on one file system, as names in one folder are.
    A file that was there keeps its permissions, a new one gets those the process gives to any file.

    Args:
        path: The file.
        content: Text is written as UTF-8, line ends as they are.
        mode: The file's permissions, whatever it had and whatever the umask is. It never has wider ones on the way.

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
