"""Hashes of everything that decides the outcomes of a cell: a resumed run reuses a record only if none has changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.presence import Presence
from pytest_hfaccel.core.spec import CPU, Cell, Device, ModelSpec
from pytest_hfaccel.registry.requirements import installed_dependencies

_SELECTING = frozenset(
    {
        *("all_models", "all_hardware", "models", "devices", "parallel", "dtypes", "weights", "registries", "require"),
        *("performance", "batch_sizes", "seq_lengths", "prices", "training", "attention", "compile", "transformers_js"),
        *("resume", "retry", "reports", "reports_mode", "keep_runs", "database", "cache", "plan", "shard"),
        *("isolate", "timeout", "ledger", "explain", "baseline", "baseline_fail_on"),
    }
)
"""Options that select cells and checks, stand in a record anyway, or say where something is written. Any other option,
also a new one, is taken to change outcomes."""

_NO_FACTS = frozenset({"source"})
"""Fields of a registry entry that only locate it."""


class OutcomeKeys:
    """Finds out what decides the outcomes of a run's cells, without importing torch.

    Args:
        config: What the user asked for.
    """

    def __init__(self, config: RunConfig) -> None:
        self._config = config

    def decided_by(self, cell: Cell, module_file: Path | None) -> dict[str, str]:
        """Return hashes of everything that decides the outcomes of a cell by name; of the weights, their kind.

        Args:
            cell: The cell.
            module_file: The file of the model class module that tests it.
        """
        from pytest_hfaccel.checkpoints.fingerprint import fingerprint_of_source

        expected = tuple(one for one in cell.model.expect if one.covers(cell))  # of this cell alone
        checkpoint = fingerprint_of_source(cell.model, cell.weights, allow_pickle=self._config.allow_pickle)
        return {
            "checkpoint": checkpoint[:16],
            "registry entry": hash_of_entry(replace(cell.model, expect=expected)),
            "weights": str(cell.weights.kind),
            "device": self._device(cell.device),
            "versions": self._versions,
            "dependencies": _hash(installed_dependencies(cell.model)),
            "options": self._options,
            "module": _hash_of_file(module_file) if module_file else "",
        }

    @cached_property
    def _versions(self) -> str:
        from pytest_hfaccel.reporting.run_facts import installed_versions

        return _hash(installed_versions())

    @cached_property
    def _options(self) -> str:
        return _hash(options_that_decide(self._config))

    def _device(self, device: Device) -> str:
        """What stays of a device between two runs: not how much of its memory is free."""
        known = filter(None, (self._found.get(CPU.id), self._found.get(device.eager.id)))
        facts = [(one.name, one.details.get("driver"), one.details.get("flags")) for one in known]
        return _hash([device.id, facts])

    @cached_property
    def _found(self) -> dict[str, Presence]:
        from pytest_hfaccel.hardware import probe_devices

        return {presence.device.id: presence for presence in probe_devices().presences}


def options_that_decide(config: RunConfig) -> dict[str, Any]:
    """Return the options that can change outcomes, by name; those that select cells or say where files go are none."""
    plain = {name: value for name, value in config.to_json().items() if name not in _SELECTING}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def hash_of_entry(model: ModelSpec) -> str:
    """Return a hash of what the registry says about a model."""
    return _hash(model)


def what_changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return what has changed, in words; for a record without hashes, that they are missing."""
    if not before:
        return ["not recorded what it depends on"]
    return [
        f"other {name}" if name.endswith("s") else f"another {name}" for name in now if before.get(name) != now[name]
    ]


@cache
def _hash_of_file(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:
        return "unreadable"


def _hash(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=_to_json).encode()).hexdigest()[:16]


def _to_json(value: Any) -> Any:
    if is_dataclass(value):
        return {f.name: getattr(value, f.name) for f in fields(value) if f.name not in _NO_FACTS}
    return dict(value) if isinstance(value, Mapping) else str(value)
