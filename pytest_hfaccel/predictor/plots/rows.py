"""Rows as a list of mappings, whether they come as that or as a pandas frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pytest_hfaccel.errors import ConfigError


def read_rows(given: Any, name: str, needed: Iterable[str]) -> list[Mapping[str, Any]]:
    """Return the rows of a frame or of an iterable of mappings.

    Args:
        given: A pandas frame, or an iterable of mappings.
        name: What it is called in errors.
        needed: Columns that every row must have; their values may be `None`.

    Raises:
        ConfigError: There is no row, something is no row, or columns are missing.
    """
    rows = _of_frame(given) if hasattr(given, "to_dict") else _as_list(given, name)
    if not rows:
        raise ConfigError(f"{name}: there is no row, so there is nothing to plot.")
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ConfigError(f"{name}[{index}]: a mapping is needed, not {type(row).__name__}.")
        missing = [column for column in needed if column not in row]
        if missing:
            columns = ", ".join(needed)
            raise ConfigError(f"{name}[{index}]: {', '.join(missing)} is missing.", hint=f"Needed: {columns}.")
    return list(rows)


def _of_frame(frame: Any) -> list[Any]:
    # pandas has several ways to say that a value is missing, and not all of them are numbers.
    return list(frame.astype(object).where(frame.notna(), None).to_dict("records"))


def _as_list(given: Any, name: str) -> list[Any]:
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        raise ConfigError(f"{name}: a frame or a list of rows is needed, not {type(given).__name__}.")
    return list(given)
