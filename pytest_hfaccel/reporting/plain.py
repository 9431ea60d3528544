"""Values prepared for a file: strict JSON, without secrets and without names of home directories."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any


def to_plain(value: Any, root: str | None = None) -> Any:
    """Return `value` as strict JSON with its texts redacted; see `redact` for `root`.

    JSON has no NaN and no infinity: they become the texts `nan`, `inf` and `-inf`, which `float()` reads back. What is
    not JSON at all becomes its text, so that an odd measure costs no report.
    """
    if isinstance(value, Enum):
        return to_plain(value.value, root)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {redact(str(key), root=root): to_plain(item, root) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item, root) for item in value]
    return redact(str(value), root=root)


MASK = "***"
"""Replaces a secret."""

_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACEHUB_API_TOKEN")
_SHORTEST_SECRET = 8  # a shorter value of a variable is a placeholder, and would be found inside ordinary words

# Tokens of the hub: `hf_` or `api_org_` and 34 letters or digits. Shorter ones with a digit are taken for tokens, too,
# but `hf_performance` is an option.
_HUB_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(hf_|api_org_)(?:(?=[A-Za-z]*[0-9])[A-Za-z0-9]{8,}|[A-Za-z0-9]{16,})(?![A-Za-z0-9_])"
)
_BEARER = re.compile(r"\b(bearer\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
_URL_USER = re.compile(r"\b([a-z][a-z0-9+.-]*://)[^\s/@]+@", re.IGNORECASE)


def redact(text: str, environ: Mapping[str, str] | None = None, root: str | None = None) -> str:
    """Return `text` without hub tokens, bearer tokens, credentials in URLs, and the name of the home directory.

    Args:
        text: What is about to be written.
        environ: Environment to read instead of `os.environ`: the values of its token variables are secrets as well, and
            the directory `HOME` names becomes `~`.
        root: A directory: paths below it become relative to it.
    """
    environ = os.environ if environ is None else environ
    for name in _TOKEN_VARIABLES:
        secret = environ.get(name, "").strip()
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, MASK)
    # Reports have thousands of texts, and few of them hold anything of this: `in` is ten times as fast as a pattern.
    if "hf_" in text or "api_org_" in text:
        text = _HUB_TOKEN.sub(rf"\1{MASK}", text)
    if "bearer" in text.lower():
        text = _BEARER.sub(rf"\1{MASK}", text)
    if "://" in text:
        text = _URL_USER.sub(rf"\1{MASK}@", text)
    if root and _without_separator(root) in text:
        text = _path_below(root, anywhere=False).sub(lambda found: "" if found[1] else ".", text)
    if (home := environ.get("HOME") or environ.get("USERPROFILE")) and _without_separator(home) in text:
        text = _path_below(home, anywhere=True).sub(lambda found: "~/" if found[1] else "~", text)
    return text


_FOLDERS = re.compile(r"""(?<![\w.:/\\])(?:~|[A-Za-z]:)?[/\\](?:[^\s'"`/\\()]+[/\\])+(?=[^\s'"`/\\()])""")


def without_folders(text: str, instead: str = "") -> str:
    """Return `text` with the last part of each absolute path: the others say where things lie on one machine.

    Args:
        text: What is about to be shown to others.
        instead: What stands for the folders.
    """
    return _FOLDERS.sub(instead, text)


@cache
def _path_below(directory: str, *, anywhere: bool) -> re.Pattern[str]:
    """Match a directory's name in a path, and the separator after it if more follows.

    Args:
        directory: An absolute path.
        anywhere: Whether it may follow other letters (`-I/home/me`). One of a single part, like `/root`, may not: it
            is no secret, and stands in other paths as well.
    """
    parts = Path(directory).parts
    if len(parts) < 2:
        return re.compile(r"(?!)()")
    before = "" if anywhere and len(parts) > 2 else r"(?<![\w.~-])"
    name = re.escape(_without_separator(directory))
    return re.compile(rf"{before}{name}(?:([/\\])(?=[\w.~@+-])|(?![\w.@+-]))")


def _without_separator(directory: str) -> str:
    return directory.rstrip("/\\")
