"""The reports of a finished run: by class, by hardware, and a summary."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.atomic import replace_file
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.results import CellResult, Ended
from pytest_hfaccel.reporting.envelope import envelope
from pytest_hfaccel.reporting.plain import to_plain
from pytest_hfaccel.reporting.summary import counts_of, summary_of

BY_CLASS, BY_HARDWARE, SUMMARY = "by_class", "by_hardware", "summary.json"

_CLASS_LEVEL = "class"


def write_reports(
    directory: Path,
    results: Sequence[CellResult],
    header: Mapping[str, Any],
    *,
    ended: Ended = Ended.FINISHED,
    mode: int | None = None,
    root: str | None = None,
) -> list[Path]:
    """Write the reports of a run, each file as a whole.

    Args:
        directory: The run's own directory; it is made.
        results: The records of all cells of the run.
        header: Plain JSON about the run: `started`, `finished`, `machine`, `options`, `absent_devices`, `pool` (a list:
            the statistics of each process's pool), and what else is worth keeping. `versions` and `commit` are found
            out where it has none.
        ended: How the run ended; one that did not finish has not passed.
        mode: The files' permissions; those the process gives to any file when not given.
        root: A directory: paths below it are written relative to it.

    Returns:
        The files written, `summary.json` last.

    Raises:
        ConfigError: A file cannot be written; names it. Files written before stand, each complete.
    """
    contents: dict[str, Mapping[str, Any]] = {}
    for folder, suffix, groups in (
        (BY_CLASS, "models", _by_module(results)),
        (BY_HARDWARE, "results", _by_kind(results)),
    ):
        shared = envelope(folder.replace("_", "-"), header, root)
        for name, group in groups.items():
            contents[f"{folder}/{_file_name(name)}_{suffix}.json"] = {**shared, **to_plain(group, root)}
    contents[SUMMARY] = summary_of(results, header, ended, root)
    for name, data in contents.items():
        _write_json(directory / name, data, mode)
    return [directory / name for name in contents]


def _write_json(path: Path, data: Mapping[str, Any], mode: int | None) -> None:
    """Write a JSON file so that a reader sees the old one or the new one, never a part."""
    try:
        replace_file(path, json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False) + "\n", mode=mode)
    except OSError as error:
        raise ConfigError(
            f"{path}: the report cannot be written: {error.strerror}",
            hint="Free space or change the permissions, or choose another directory with --hf-reports.",
        ) from error


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
