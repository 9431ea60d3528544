"""The JSON Schemas (draft 2020-12) of what is written; they are shipped with the package."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from pytest_hfaccel.core.errors import ConfigError

SCHEMAS = ("cell", "by-class", "by-hardware", "summary", "journal", "coverage", "common")
"""The schemas: of a cell's record, of the three kinds of report, of a line of the journal, of what `hfaccel coverage`
writes, and what they share."""


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
