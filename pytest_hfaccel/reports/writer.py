"""The reports of a finished run: by class, by hardware, and a summary."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_hfaccel.reports.envelope import envelope
from pytest_hfaccel.reports.files import remove_stale, write_json
from pytest_hfaccel.reports.plain import to_plain
from pytest_hfaccel.reports.summary import counts_of, summary_of
from pytest_hfaccel.results import CellResult

_CLASS_LEVEL = "class"


def write_reports(directory: Path, results: Sequence[CellResult], header: Mapping[str, Any]) -> list[Path]:
    """Write the reports of a run, each file as a whole, and remove those of an earlier run.

    Args:
        directory: Where they go; it is made.
        results: The records of all cells of the run.
        header: Plain JSON about the run: `started`, `finished`, `machine`, `options`, `absent_devices`, `pool` (a list:
            the statistics of each process's pool), and what else is worth keeping. `versions` and `commit` are found
            out where it has none.

    Returns:
        The files written, `summary.json` last.

    Raises:
        ConfigError: A file cannot be written; names it. Files written before stand, each complete.
    """
    written = _write_groups(directory / "by_class", "models", "by-class", _by_module(results), header)
    written += _write_groups(directory / "by_hardware", "results", "by-hardware", _by_kind(results), header)
    summary = directory / "summary.json"
    write_json(summary, summary_of(results, header))
    return [*written, summary]


def _write_groups(
    directory: Path, suffix: str, schema: str, groups: Mapping[str, dict[str, Any]], header: Mapping[str, Any]
) -> list[Path]:
    shared = envelope(schema, header)
    written = []
    for name, group in groups.items():
        path = directory / f"{_file_name(name)}_{suffix}.json"
        write_json(path, {**shared, **to_plain(group)})
        written.append(path)
    remove_stale(directory, f"*_{suffix}.json", written)
    return written


def _by_module(results: Sequence[CellResult]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "module": name,
            "architectures": sorted({result.architecture for result in group}),
            "counts": counts_of(group),
            "cells": [result.to_json() for result in group],
        }
        for name, group in _grouped(results, lambda result: result.module).items()
    }


def _by_kind(results: Sequence[CellResult]) -> dict[str, dict[str, Any]]:
    on_devices = [result for result in results if result.device != _CLASS_LEVEL]
    return {
        name: {
            "kind": name,
            "devices": sorted({result.device for result in group}),
            "counts": counts_of(group),
            "cells": [result.to_json() for result in group],
        }
        for name, group in _grouped(on_devices, lambda result: result.device.partition(":")[0]).items()
    }


def _grouped(results: Sequence[CellResult], key: Callable[[CellResult], str]) -> dict[str, list[CellResult]]:
    groups: dict[str, list[CellResult]] = defaultdict(list)
    for result in results:
        groups[key(result)].append(result)
    return groups


def _file_name(name: str) -> str:
    """A user's module may have any name that Python takes; a file name keeps to a few characters."""
    return re.sub(r"[^a-z0-9_.-]+", "-", name.lower()).strip("-.") or "unnamed"
