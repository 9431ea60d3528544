"""Replacing a file as a whole: a reader sees the old content or the new one, also when the writer is killed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile


def replace_file(path: Path, content: str | bytes) -> None:
    """Write a file beside its place and move it there; parent directories are made.

    `os.replace` is atomic on POSIX and on Windows when both names are on one file system, as names in one folder are.

    Args:
        path: The file.
        content: Text is written as UTF-8, line ends as they are.

    Raises:
        OSError: The folder cannot be written; the old file is untouched and nothing is left beside it.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".new", delete=False) as new:
        try:
            new.write(data)
            new.close()  # Windows does not move open files
            os.replace(new.name, path)  # noqa: PTH105 - Path.replace would need a second object for the same call
        except BaseException:
            with suppress(OSError):
                Path(new.name).unlink()
            raise
