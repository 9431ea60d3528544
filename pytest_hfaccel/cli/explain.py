"""`hfaccel explain`: where a model on a device leaves the reference."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pytest_hfaccel.cli import print_json
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.results import NOT_REACHED, CellResult, CheckOutcome, headline
from pytest_hfaccel.core.spec import CLASS_LEVEL

if TYPE_CHECKING:
    from pytest_hfaccel.core.spec import Cell
    from pytest_hfaccel.engine.session import Session
    from pytest_hfaccel.reporting.journal import JournalContents


_DTYPES = ("fp32", "bf16", "fp16")
_CELL_ID = re.compile(rf"-({'|'.join(_DTYPES)}|int8)(-b\d+(-s\d+)?)?\]?$")
_OF_RUN = ("registries", "cache", "trust_remote_code", "allow_pickle", "browser", "node_modules")
"""Options of a run that decide how its models are found and loaded."""


def add_parser(commands: Any) -> None:
    """Add `explain` to the parsers of `hfaccel`."""
    text = (
        "Run a model beside its fp64 reference, module by module and then operator by operator, and name the first "
        "that adds an error. For devices of torch, and of ONNX Runtime and OpenVINO, there node by node. Name a cell "
        "of an earlier run, or a model and a device. The exit code is 1 where one is found."
    )
    parser = commands.add_parser("explain", help="find the module and the operator that are wrong", description=text)
    text = (
        "a cell of a run (gpt2-cuda0-fp16, as reports have it, or gpt2-cuda:0-fp16), or the node id of a test; or, "
        "with --device, a model: registered name, hub id or directory"
    )
    parser.add_argument("cell", metavar="CELL", help=text)
    text = "the run that CELL is looked up in: its id, number or folder (default: the latest one)"
    parser.add_argument("--run", metavar="RUN", dest="which", help=text)
    text = "directory of reports (default: %(default)s)"
    parser.add_argument("--reports", type=Path, default=Path("reports"), metavar="DIR", help=text)
    parser.add_argument("--device", metavar="X", help="of a model (default: cpu)")
    parser.add_argument("--dtype", choices=_DTYPES, help="of a model (default: fp32)")
    parser.add_argument("--weights", metavar="KIND", help="auto, tiny, random or pretrained (default: as in a run)")
    text = "write a script that shows the operator's error with torch alone to this directory"
    parser.add_argument("--script", type=Path, metavar="DIR", help=text)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


@dataclass(frozen=True)
class _Target:
    """What is explained.

    Attributes:
        values: What a run's options would say: model, device, dtype, weights, and options of the cell's run.
        record: The cell's record; `None` where a model was named.
        check: The check that a node id names; else empty.
        run: The id of the cell's run.
    """

    values: dict[str, Any]
    record: CellResult | None = None
    check: str = ""
    run: str = ""

    def failures(self) -> list[CheckOutcome]:
        """The outcomes that there is something to explain of, the named one first."""
        checks = self.record.checks if self.record else []
        bad = [check for check in checks if check.status.is_bad and NOT_REACHED not in (check.reason or "")]
        return sorted(bad, key=lambda check: check.name != self.check)

    def lines(self) -> Iterator[str]:
        """Say what the run found."""
        if self.record is None:
            return
        bad = self.failures()
        for outcome in bad:
            yield f"In run {self.run}: {headline(outcome, self.record.device).splitlines()[0]}"
        if not bad:
            yield f"In run {self.run} no check of it failed."


def _target_of(arguments: argparse.Namespace) -> _Target:
    """Find the cell in a run, or take a model's name for one.

    Raises:
        ConfigError: There is no such cell, or there are several.
    """
    from pytest_hfaccel.reporting.journal import JOURNAL, JournalContents, read_journal
    from pytest_hfaccel.reporting.runs import find_cells

    name: str = arguments.cell
    named = arguments.device or arguments.dtype or arguments.weights
    if named and (arguments.which or "::" in name):
        raise ConfigError(
            f"{name}: --device, --dtype and --weights are those of a model; a cell of a run has its own.",
            hint="Leave them out, or name a model without --run.",
        )
    folder = None if named else _run_folder(arguments)
    contents = read_journal(folder / JOURNAL) if folder is not None else JournalContents()
    found, check = find_cells(contents, name)
    found = [each for each in found if each.device != CLASS_LEVEL.id]
    if len(found) > 1:
        listed = "\n".join(f"  {each.cell}  {each.status}  {each.model}, {each.weights} weights" for each in found)
        raise ConfigError(f"{name} names {len(found)} cells of run {folder.name if folder else ''}:\n{listed}")
    if found and folder is not None:
        (record,) = found
        options = contents.header.get("options", {})
        values = {key: options[key] for key in _OF_RUN if options.get(key)}
        cell = {"models": (record.model,), "devices": (record.device,), "dtypes": (record.dtype,)}
        return _Target({**values, **cell, "weights": record.weights}, record, check, folder.name)
    if not named and (arguments.which or "::" in name or _CELL_ID.search(name)):
        _refuse(name, arguments.reports, folder, contents)
    values = {"models": (name,), "devices": (arguments.device or "cpu",), "dtypes": (arguments.dtype or "fp32",)}
    return _Target({**values, **({"weights": arguments.weights} if arguments.weights else {})})


def _run_folder(arguments: argparse.Namespace) -> Path | None:
    from pytest_hfaccel.reporting.runs import find_run, latest_run

    if arguments.which and arguments.which != "latest":
        return find_run(arguments.reports, arguments.which, "--run")
    return latest_run(arguments.reports)


def _refuse(name: str, reports: Path, folder: Path | None, contents: JournalContents) -> NoReturn:
    if folder is None:
        raise ConfigError(
            f"{name}: there is no run in {reports} whose cell it could be.",
            hint="--reports names another directory of reports; --device X explains a model without a run.",
        )
    cells = sorted({each.cell for each in (*contents.results, *contents.kept) if each.device != CLASS_LEVEL.id})
    near = get_close_matches(name.rpartition("[")[2].rstrip("]"), cells, 3, 0.5) or cells[:3]
    raise ConfigError(
        f"{name}: run {folder.name} in {reports} has no such cell. Its {len(cells)} cells are like: "
        f"{', '.join(near) or 'none'}.",
        hint="`hfaccel runs` lists the runs, --run names one; --device X explains a model without a run.",
    )


def _explain_graph(session: Session, cell: Cell, arguments: argparse.Namespace, target: _Target) -> int:
    """Explain a model that runs as a graph; see `pytest_hfaccel.explain.graphs`."""
    from pytest_hfaccel.explain.graphs import explain_loaded, require_readable

    require_readable(cell.device)
    if arguments.script:
        raise ConfigError(
            f"{cell.device}: --script writes scripts for devices of torch only.", hint="Leave --script out."
        )
    run = session.runner.open(cell)
    try:
        found = explain_loaded(run.loaded, run.source, cell.device, cell.dtype)
    finally:
        run.close()
    if arguments.json:
        print_json({"cell": cell.id, "run": target.run, **found.to_json()})
    else:
        print("\n".join([cell.id, *target.lines()]))
        print("\n".join(found.lines()))
    return 0 if found.error <= found.budget else 1


def _run(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.core.config import RunConfig
    from pytest_hfaccel.engine.session import Session
    from pytest_hfaccel.explain import explain
    from pytest_hfaccel.explain.reproduction import write_reproduction
    from pytest_hfaccel.registry.resolution import resolve_model
    from pytest_hfaccel.upstream.transformers import quiet

    target = _target_of(arguments)
    session = Session(RunConfig.from_values(target.values))
    try:
        with quiet:
            cell = session.plan.cells(resolve_model(target.values["models"][0], session.registry), session.store)[0]
            if not cell.device.traits.torch_module:
                return _explain_graph(session, cell, arguments, target)
            run = session.runner.open(cell)
            source = run.source
            model, reference = run.loaded.pipeline_model(), source.torch_model("fp64")
            found = explain(model, reference, source.torch_model(cell.dtype), source.sample().forward)
            run.close()
        script, about = None, ""
        if arguments.script and found.guilty is not None:
            script, about = write_reproduction(found, arguments.script, cell.id)
    finally:
        session.close()
    if arguments.json:
        print_json(
            {
                "cell": cell.id,
                "run": target.run,
                **found.to_json(),
                "script": script and str(script),
                "reproduction": about,
            }
        )
    else:
        print("\n".join([cell.id, *target.lines(), *found.lines()]))
        if about:
            print(f"Reproduction: {script}: {about}" if script else f"Reproduction: {about}")
    return 0 if found.guilty is None else 1
