"""What pytest has selected, as plain data: `hfaccel plan` deals it to shards, a shard compares it with its plan."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pytest_hfaccel.core.results import CellKey


@dataclass(frozen=True)
class SelectedCell:
    """A cell in a model class module, and its tests.

    Attributes:
        module: The module's name in reports.
        cell: The cell's id.
        model: The model's name; all its cells belong to one shard.
        architecture: Its transformers class.
        device: The device's id.
        checks: A hash of the names of its tests.
        tests: Their node ids.
    """

    module: str
    cell: str
    model: str
    architecture: str
    device: str
    checks: str
    tests: tuple[str, ...]

    @property
    def key(self) -> CellKey:
        """Module and cell."""
        return (self.module, self.cell)


def hash_of_names(names: list[str]) -> str:
    """Return a short hash of the names of a cell's tests, whatever their order."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:12]


@dataclass
class Selection:
    """The cells that a run has selected, and what decides how they end.

    Attributes:
        cells: The cells, in the order in which they run.
        other_tests: Node ids of the tests that belong to no model class.
        entries: A hash of each model's registry entry.
        versions: The installed packages that can change a result.
        options: The options that can change a result, by their names in the configuration.
    """

    cells: list[SelectedCell] = field(default_factory=list)
    other_tests: list[str] = field(default_factory=list)
    entries: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str | None] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Selection:
        """Rebuild a selection from what `to_json` returned."""
        cells = [SelectedCell(**{**cell, "tests": tuple(cell["tests"])}) for cell in data["cells"]]
        return cls(**{**data, "cells": cells})
