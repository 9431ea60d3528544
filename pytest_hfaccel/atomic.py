"""Replacing a file as a whole: a reader sees the old content or the new one, also when the writer is killed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from secrets import token_hex


def replace_file(path: Path, content: str | bytes) -> None:
    """Write a file beside its place and move it there; parent directories are made.

    `os.replace` is atomic on POSIX and on Windows when both names are on one file system, as names in one folder are.
    A file that was there keeps its permissions, a new one gets those the process gives to any file.

    Args:
        path: The file.
        content: Text is written as UTF-8, line ends as they are.

    Raises:
        OSError: The folder cannot be written; the old file is untouched and nothing is left beside it.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{token_hex(4)}.new")
    try:
        with new.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave an empty file under the new name
        if path.exists():
            shutil.copymode(path, new)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
