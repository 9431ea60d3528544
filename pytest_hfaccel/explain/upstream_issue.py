"""Writes a report for the project at fault, as Markdown to paste: versions, what was expected, where it diverges, why.

Nothing private is in it: no directory, no name of a user or a machine, no token.
"""

from __future__ import annotations

import base64
import getpass
import platform
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_hfaccel.core.results import Cause
from pytest_hfaccel.explain.cause import NOT_TRIED, Experiment, Verdict
from pytest_hfaccel.reporting.plain import redact, without_folders
from pytest_hfaccel.reporting.run_facts import installed_versions
from pytest_hfaccel.reporting.tables import markdown_table

if TYPE_CHECKING:
    from pytest_hfaccel.core.spec import Cell

_RUNTIMES = {
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "executorch": "ExecuTorch",
    "wasm": "ONNX Runtime Web",
    "webgpu": "ONNX Runtime Web",
    "webnn": "ONNX Runtime Web",
}
_PACKAGES = {
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
    "openvino": ("openvino",),
    "executorch": ("executorch",),
    "wasm": ("onnx", "onnxscript"),
    "webgpu": ("onnx", "onnxscript"),
    "webnn": ("onnx", "onnxscript"),
}
_WHOSE = {
    Cause.TRANSFORMERS: "transformers",
    Cause.EXPORTER: "transformers (`transformers.exporters`), or the converter of the runtime",
    Cause.RUNTIME: "the runtime",
    Cause.DRIVER: "the maker of the device's driver",
    Cause.NUMERICS: "nobody: the error is what the dtype must cost",
    Cause.OURS: "pytest-hfaccel",
}
_INLINE_BYTES = 24 * 2**10
"""Data of a script up to this size stands in the report; GitHub takes 64 KiB in all."""

_SAY_NOTHING = frozenset({"", "localhost", "root", "user", "runner", "python", "torch", "cpu", "cuda", "main", "test"})
"""Names of users and machines that give nobody away, and that stand in reports as other words."""

_DATA = "<data>"


@dataclass(frozen=True)
class Finding:
    """What a report says.

    Attributes:
        cell: The cell.
        reason: Why the check failed, as the run or the repeated check says.
        verdict: The cause.
        divergence: Lines about the first module, operator or node that is off.
        script: A script that shows the error with public packages only; `None` where there is none.
        printed: What it printed.
    """

    cell: Cell
    reason: str
    verdict: Verdict
    divergence: Sequence[str]
    script: Path | None = None
    printed: str = ""


def write_issue(found: Finding) -> str:
    """Return the report."""
    cell, verdict = found.cell, found.verdict
    spec, runtime = cell.model, runtime_of(cell)
    where = f"{runtime} ({cell.device.target or cell.device.kind}, {cell.dtype})"
    measured = _measured(verdict.experiments)
    lines = [f"# {spec.architecture} on {where}: {_title(verdict, measured)}", ""]
    lines += [
        f"`{spec.architecture}` ({_model_name(cell)}, {cell.weights.kind} weights) fails the check `{verdict.check}`: "
        "its outputs are compared with those of the same weights and inputs in fp64, computed by torch on the CPU.",
        "",
        f"Probably a matter for {_WHOSE.get(Cause(verdict.cause), 'whoever the experiments below point to')}"
        f"{': ' + verdict.because if verdict.cause != Cause.UNDECIDED else ''}.",
        "",
        "## Expected and got",
        "",
    ]
    if measured is not None:
        lines += [
            f"- expected: `{measured.leaf or 'the outputs'}` within a relative L2 error of {measured.allowed:.1e}",
            f"- got: {measured.error:.1e}",
        ]
    else:
        lines.append("- expected: the check passes")
    lines += [f"- the check says: {found.reason}", "", "## First divergence", "", *_listed(found.divergence)]
    lines += ["", "## Experiments", "", *_experiments(verdict.experiments), "", "## Reproduce", "", *_reproduce(found)]
    lines += ["", "## Versions", "", *_versions(cell)]
    lines += ["", "Found with pytest-hfaccel.", ""]
    text = without_private("\n".join(lines), [spec.path] if spec.path else [])
    return text.replace(_DATA, _data(found))


def runtime_of(cell: Cell) -> str:
    """Return the name of the software that runs a cell."""
    compiler = cell.device.compiler
    return _RUNTIMES.get(cell.device.kind, f"torch.compile ({compiler})" if compiler else "torch")


def without_private(text: str, paths: Iterable[str] = ()) -> str:
    """Return a text without tokens, credentials, names of the user and of the machine; of paths the last part stays.

    Args:
        text: The text.
        paths: Paths that are private whatever they look like, such as that of a local checkpoint.
    """
    for path in paths:
        text = text.replace(path, Path(path).name)
    text = without_folders(redact(text))
    names = {socket.gethostname(), socket.gethostname().partition(".")[0], platform.node()}
    with suppress(KeyError, OSError):  # a user without a name
        names.add(getpass.getuser())
    for name in names - _SAY_NOTHING:
        text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", "***", text)
    return text


def _title(verdict: Verdict, measured: Experiment | None) -> str:
    if measured is not None and measured.error is not None and measured.finite:
        return f"{measured.leaf or 'outputs'} off by {measured.error:.1e} (relative L2)"
    if measured is not None:
        return f"{measured.leaf or 'outputs'} not finite"
    return f"{verdict.check} fails"


def _measured(experiments: Sequence[Experiment]) -> Experiment | None:
    return next((each for each in experiments if each.error is not None and each.allowed is not None), None)


def _model_name(cell: Cell) -> str:
    return "a local checkpoint" if cell.model.path else f"`{cell.model.name}`"


def _listed(lines: Sequence[str]) -> list[str]:
    return [f"- {line.strip()}" for line in lines] or ["- not known"]


def _experiments(experiments: Sequence[Experiment]) -> list[str]:
    rows = []
    for each in experiments:
        if each.outcome != NOT_TRIED:
            numbers = ["" if value is None else f"{value:.1e}" for value in (each.error, each.allowed)]
            about = each.about.replace("|", "\\|")
            rows.append((each.name, each.outcome, *numbers, about))
    heads = ("experiment", "outcome", "error", "allowed", "")
    return [*markdown_table(heads, rows)] if rows else ["None was made."]


def _reproduce(found: Finding) -> list[str]:
    cell = found.cell
    if found.script is None:
        name = "<the checkpoint>" if cell.model.path else cell.model.name
        command = f"hfaccel explain {name} --device {cell.device} --dtype {cell.dtype} --weights {cell.weights.kind}"
        return ["There is no script without pytest-hfaccel. With it:", "", "```console", f"$ {command}", "```"]
    text = found.script.read_text(encoding="utf-8").rstrip()
    lines = [f"`{found.script.name}` needs its data beside it, prints the error and exits with 1:", ""]
    lines += ["```python", text, "```", "", f"It prints: `{found.printed.strip()}`", ""]
    return [*lines, _DATA]


def _data(found: Finding) -> str:
    """Return the files beside the script as text, or how to attach them; put in last, as text may look like paths."""
    if found.script is None:
        return ""
    files = sorted(each for each in found.script.parent.glob(f"{found.script.stem}.*") if each != found.script)
    if sum(each.stat().st_size for each in files) > _INLINE_BYTES:
        sizes = ", ".join(f"`{each.name}` ({each.stat().st_size / 2**10:.0f} KiB)" for each in files)
        return f"Its data, {sizes}, is attached."
    return "\n\n".join(map(_inline, files))


def _inline(file: Path) -> str:
    encoded = base64.b64encode(file.read_bytes()).decode()
    wrapped = [encoded[at : at + 120] for at in range(0, len(encoded), 120)]
    head = [f"Its data (`base64 -d > {file.name}`):", "", "<details>", "", "```"]
    return "\n".join([*head, *wrapped, "```", "", "</details>"])


def _versions(cell: Cell) -> list[str]:
    installed: Mapping[str, str | None] = installed_versions()
    names = ("python", "torch", "transformers", *_PACKAGES.get(cell.device.kind, ()), "pytest-hfaccel")
    lines = [f"- {name} {installed[name]}" for name in names if installed.get(name)]
    return [*lines, f"- {platform.system()} {platform.machine()}"]
