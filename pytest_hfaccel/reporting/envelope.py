"""What every file says about itself and about the run it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.results import SCHEMA_VERSION
from pytest_hfaccel.reporting.commit import git_commit
from pytest_hfaccel.reporting.plain import to_plain
from pytest_hfaccel.reporting.versions import installed_versions

SCHEMA_PREFIX = "pytest-hfaccel/"
_OWN_FIELDS = ("machine", "versions", "commit", "options")
_ONLY_IN_SUMMARY = ("pool", "absent_devices")


def envelope(schema: str, header: Mapping[str, Any], root: str | None = None) -> dict[str, Any]:
    """Return the fields that all files share: schema, machine, versions, commit, options, and the run.

    Args:
        schema: Which schema the file follows; one of `pytest_hfaccel.reporting.SCHEMAS`.
        header: Plain JSON about the run. `machine` and `options` are taken as they are; `versions` and `commit` are
            found out where the header has none; everything else is listed under `run`.
        root: A directory: paths below it become relative to it.
    """
    known = {key: header[key] for key in _OWN_FIELDS if key in header}
    shared = {
        "machine": {},
        "versions": known.get("versions") or installed_versions(),
        "commit": known["commit"] if "commit" in known else git_commit(Path.cwd()),
        "options": {},
    }
    dropped = _OWN_FIELDS if schema in ("summary", "journal") else (*_OWN_FIELDS, *_ONLY_IN_SUMMARY)
    run = {key: value for key, value in header.items() if key not in dropped}
    fields = {"schema": SCHEMA_PREFIX + schema, "schema_version": SCHEMA_VERSION, **shared, **known, "run": run}
    plain: dict[str, Any] = to_plain(fields, root)
    return plain
