"""`hfaccel compatibility`: which family of models runs on which kind of hardware, and how that is known."""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.cli import can_print, print_json
from pytest_hfaccel.core.devices import kind_of
from pytest_hfaccel.core.errors import ConfigError

if TYPE_CHECKING:
    from pytest_hfaccel.core.presence import HardwareReport
    from pytest_hfaccel.predict.support import CompatibilityMatrix

Families = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Family -> kind of device -> entry (`CompatibilityMatrix.by_family`)."""

FORMATS = ("text", "markdown", "json", "csv")

_COLUMNS = {
    "cuda": "CUDA",
    "mps": "MPS (Apple)",
    "rocm": "ROCm",
    "openvino": "OpenVINO",
    "webnn": "WebNN",
    "webgpu": "WebGPU",
    "onnxruntime": "ONNX Runtime",
    "wasm": "WASM",
    "executorch": "ExecuTorch",
    "cpu": "CPU",
    "xpu": "XPU (Intel)",
}
"""The columns in the order of the guide's table, then those that it did not have."""

_ROWS = {
    "embedding": "Embedding (BERT, ...)",
    "text_generation": "Text generation (GPT-2, ...)",
    "vision": "Vision (ViT, ...)",
    "audio": "Audio (Whisper, ...)",
    "multimodal": "Multimodal (LLaVA, ...)",
    "video": "Video (X-CLIP, ...)",
}
_MARKS = {"real": "\N{WHITE HEAVY CHECK MARK}", "emulated": "\N{WARNING SIGN}", "failing": "\N{CROSS MARK}"}
_MEANINGS = (
    "REAL: that hardware ran it. EMULATED: the real runtime on a software adapter. FAILING: it was tried and failed.",
    "UNTESTED: nothing speaks against it, but no run is known. UNAVAILABLE: nothing runs such models there.",
    "Numbers are the cells that passed of those that were tried; * is declared, not measured.",
)
_FIELDS = (
    *("family", "hardware", "support", "basis", "cells_that_ran", "cells_measured", "checks_passed", "checks_run"),
    *("run", "when", "where", "cell", "reason"),
)
_SHOWN_OPERATORS = 4


def add_parser(commands: Any) -> None:
    """Add `compatibility` to the parsers of `hfaccel`."""
    from pytest_hfaccel.predict.support import KINDS

    text = (
        "Print a table of families of models x kinds of hardware. An entry is measured where earlier runs tried a "
        "model of the family on that hardware, and declared otherwise; the lines below the table say what was run."
    )
    parser = commands.add_parser(
        "compatibility", help="print which families of models run on which hardware", description=text
    )
    text = (
        "directories of reports, journals, support matrices (JSON) or databases to read (default: the reports and the "
        "database of this project)"
    )
    parser.add_argument("places", nargs="*", type=Path, metavar="PLACE", help=text)
    parser.add_argument("--hardware", nargs="+", choices=KINDS, metavar="KIND", help="kinds of hardware to show")
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: %(default)s")
    parser.add_argument("--json", action="store_const", dest="format", const="json", help="the same as --format json")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.hardware import probe_devices

    report = None if arguments.places else probe_devices()
    matrix = _matrix(arguments.places)
    families, devices = matrix.by_family(), matrix.by_device()
    kinds = arguments.hardware or _kinds(families)
    families = {family: {kind: row[kind] for kind in kinds if kind in row} for family, row in families.items()}
    devices = {device: found for device, found in devices.items() if kind_of(device) in kinds}
    if arguments.format == "json":
        machine = {} if report is None else {"machine": _machine(report, kinds)}
        print_json({"families": families, "devices": devices, **machine})
    elif arguments.format == "csv":
        _write_csv(families)
    elif arguments.format == "markdown":
        print("\n".join(_markdown(families, devices, kinds, report)))
    else:
        print("\n".join(_text(families, devices, kinds, report)))
    return 0


def _matrix(places: Sequence[Path]) -> CompatibilityMatrix:
    from pytest_hfaccel.predict.measured_cells import cells_in
    from pytest_hfaccel.predict.support import CompatibilityMatrix

    if not places:
        from pytest_hfaccel.compat.hardware_model_integration import HardwareAwareModelClassifier

        return HardwareAwareModelClassifier().matrix
    cells = cells_in(places)
    if not cells:
        raise ConfigError(f"{', '.join(map(str, places))}: no cell of a device is in it.")
    return CompatibilityMatrix(cells)


def _kinds(families: Families) -> list[str]:
    """Return the columns: those of the guide, then kinds that a third party serves, if they were measured."""
    known = next(iter(families.values()))
    return [*(kind for kind in _COLUMNS if kind in known), *(kind for kind in known if _is_extra(kind, families))]


def _is_extra(kind: str, families: Families) -> bool:
    return kind not in _COLUMNS and any(row[kind]["basis"] == "measured" for row in families.values() if kind in row)


def _machine(report: HardwareReport, kinds: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return by device what is known of it here."""
    return {
        each.device.id: {"implementation": each.implementation, "reason": each.reason}
        for each in report.presences
        if each.device.kind in kinds
    }


def _rows(families: Families, kinds: Sequence[str], report: HardwareReport | None, *, marks: bool) -> list[list[str]]:
    rows = [
        [_ROWS.get(family, family), *(_entry(row[kind], marks=marks) if kind in row else "" for kind in kinds)]
        for family, row in families.items()
    ]
    here = [] if report is None else [["This machine", *(_here(report, kind) for kind in kinds)]]
    return [["Model family", *(_COLUMNS.get(kind, kind) for kind in kinds)], *rows, *here]


def _entry(entry: Mapping[str, Any], *, marks: bool) -> str:
    word = str(entry["support"])
    text = f"{_MARKS[word]} {word.upper()}" if marks and word in _MARKS else word.upper()
    if entry["basis"] != "measured":
        return f"{text} (declared)" if marks else f"{text}*"
    count = f"{entry['cells_that_ran']}/{entry['cells_measured']}"
    return f"{text} ({count})" if marks else f"{text} {count}"


def _here(report: HardwareReport, kind: str) -> str:
    found = [each.implementation for each in report.presences if each.device.kind == kind and each.present]
    if not found:
        return "absent"
    return "emulated" if set(found) == {"emulated"} else "present"


def _text(
    families: Families, devices: Mapping[str, Any], kinds: Sequence[str], report: HardwareReport | None
) -> Iterator[str]:
    from pytest_hfaccel.reporting.tables import table_in_blocks

    width = max(80, shutil.get_terminal_size((120, 24)).columns)
    yield table_in_blocks(_rows(families, kinds, report, marks=False), width)
    yield ""
    yield from _MEANINGS
    yield ""
    yield from _evidence(devices)


def _markdown(
    families: Families, devices: Mapping[str, Any], kinds: Sequence[str], report: HardwareReport | None
) -> Iterator[str]:
    head, *rows = _rows(families, kinds, report, marks=can_print("".join(_MARKS.values())))
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""
    yield from _MEANINGS[:2]
    yield "Numbers are the cells that passed of those that were tried; declared entries were not measured."
    yield ""
    yield from (f"- {line}" for line in _evidence(devices))


def _evidence(devices: Mapping[str, Any]) -> Iterator[str]:
    if not devices:
        yield "Nothing was measured: everything is declared. `pytest --all-models --all-hardware` measures it."
    yield from (f"{device}: {evidence_text(found)}" for device, found in devices.items())


def evidence_text(found: Mapping[str, Any]) -> str:
    """Return what was measured on a device (`CompatibilityMatrix.by_device`) as one line."""
    parts = [
        f"{found['implementation'].upper()}, {found['cells_that_ran']} of {found['cells_measured']} cells and "
        f"{found['checks_passed']} of {found['checks_run']} checks passed",
        ", ".join(filter(None, [f"run {found['run']}" if "run" in found else "", found.get("when", "")[:10]])),
    ]
    if found.get("not_taken"):
        total, left = sum(found.get("nodes", {}).values()), sum(found["not_taken"].values())
        shown = list(found["not_taken"].items())[:_SHOWN_OPERATORS]
        named = ", ".join(f"{count} {operator}" for operator, count in shown)
        more = ", ..." if len(shown) < len(found["not_taken"]) else ""
        parts.append(f"{left} of {total} nodes were left to the CPU ({named}{more})")
    return "; ".join(filter(None, parts))


def _write_csv(families: Families) -> None:
    writer = csv.DictWriter(sys.stdout, _FIELDS, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for family, row in families.items():
        writer.writerows({"family": family, "hardware": kind, **entry} for kind, entry in row.items())
