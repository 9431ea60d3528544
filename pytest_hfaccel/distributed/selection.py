"""What pytest has selected, as plain data: `hfaccel plan` deals it to shards, a shard compares it with its plan."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pytest_hfaccel.core.results import CellKey
from pytest_hfaccel.core.spec import Weights


@dataclass(frozen=True)
class SelectedCell:
    """A cell in a model class module, and its tests.

    Attributes:
        module: The module's name in reports.
        cell: The cell's id.
        model: The model's name.
        architecture: Its transformers class.
        device: The device's id.
        checks: A hash of the names of its tests.
        tests: Their node ids.
        names: The check of each test, by node id; a check that measures at several points has several tests.
        facts: What its `CellResult` says before anything runs; see `engine.cell_run.identity`.
        memory_bytes: Bytes of host memory that its weights and the reference need; 0 where that is not known.
    """

    module: str
    cell: str
    model: str
    architecture: str
    device: str
    checks: str
    tests: tuple[str, ...]
    names: Mapping[str, str] = field(default_factory=dict, hash=False)
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)
    memory_bytes: int = 0

    @property
    def is_full_size(self) -> bool:
        """Whether its weights are known to be others than those of a tiny checkpoint."""
        return bool(self.facts.get("weights", Weights.TINY) != Weights.TINY)

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
        run: What a run that started here would do: the `header` of its reports, the `root` that paths in them are
            relative to, `reports`, `mode` and `keep_runs` of its folder, `database`, and `refused`: an option that
            makes no sense on several machines.
    """

    cells: list[SelectedCell] = field(default_factory=list)
    other_tests: list[str] = field(default_factory=list)
    entries: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str | None] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the plain-JSON form."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Selection:
        """Rebuild a selection from what `to_json` returned."""
        cells = [SelectedCell(**{**cell, "tests": tuple(cell["tests"])}) for cell in data["cells"]]
        return cls(**{**data, "cells": cells})
