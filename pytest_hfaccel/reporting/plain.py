"""Values on their way into a file: strict JSON, no secret and no name of a home directory in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

from pytest_hfaccel.reporting.redact import redact


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
