"""The argument CELL: a cell of an earlier run, or a model with a device, a precision and weights."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pytest_hfaccel.core.errors import ConfigError, first_line
from pytest_hfaccel.core.results import NOT_REACHED, CellResult, CheckOutcome, headline
from pytest_hfaccel.core.spec import CLASS_LEVEL

if TYPE_CHECKING:
    from pytest_hfaccel.reporting.journal import JournalContents

_DTYPES = ("fp32", "bf16", "fp16")
_CELL_ID = re.compile(rf"-({'|'.join(_DTYPES)}|int8)(-b\d+(-s\d+)?)?\]?$")
_OF_RUN = ("registries", "cache", "trust_remote_code", "allow_pickle", "browser", "node_modules")
"""Options of a run that decide how its models are found and loaded."""


def add_cell_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what names a cell; see `target_of`."""
    text = (
        "a cell of a run (gpt2-cuda0-fp16, as reports have it, or gpt2-cuda:0-fp16), or the node id of a test; or, "
        "with --device, a model: registered name, hub id or directory"
    )
    parser.add_argument("cell", metavar="CELL", help=text)
    text = "the run that CELL is looked up in: its id, number or folder (default: the latest one)"
    parser.add_argument("--run", metavar="RUN", dest="which", help=text)
    text = "directory of reports (default: %(default)s)"
    parser.add_argument("--reports", type=Path, default=Path("reports"), metavar="DIR", help=text)
    parser.add_argument("--device", metavar="X", help="device, for a model (default: cpu)")
    parser.add_argument("--dtype", choices=_DTYPES, help="precision, for a model (default: fp32)")
    parser.add_argument("--weights", metavar="KIND", help="auto, tiny, random or pretrained (default: as in a run)")


@dataclass(frozen=True)
class Target:
    """A cell that a command is about.

    Attributes:
        values: What a run's options would say: model, device, dtype, weights, and options of the cell's run.
        record: The cell's record; `None` where a model was named.
        check: The check that a node id names; else empty.
        run: The id of the cell's run.
        starts: The tests of the cell that its run started, as the journal has them.
    """

    values: dict[str, Any]
    record: CellResult | None = None
    check: str = ""
    run: str = ""
    starts: tuple[Mapping[str, str], ...] = ()

    def tests(self, check: str) -> tuple[str, ...]:
        """Return the tests that ran a check on the cell in its run, if their files are here: `file::class::test`."""
        tests = [each["test"].partition("[")[0] for each in self.starts if each.get("check") == check]
        return tuple(test for test in dict.fromkeys(tests) if Path(test.partition("::")[0]).is_file())

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
            yield f"In run {self.run}: {first_line(headline(outcome, self.record.device))}"
        if not bad:
            yield f"In run {self.run} no check of it failed."


def target_of(arguments: argparse.Namespace) -> Target:
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
        starts = tuple(each for each in contents.starts if each.get("cell") == record.cell)
        cell = {"models": (record.model,), "devices": (record.device,), "dtypes": (record.dtype,)}
        return Target({**values, **cell, "weights": record.weights}, record, check, folder.name, starts)
    if not named and (arguments.which or "::" in name or _CELL_ID.search(name)):
        _refuse(name, arguments.reports, folder, contents)
    values = {"models": (name,), "devices": (arguments.device or "cpu",), "dtypes": (arguments.dtype or "fp32",)}
    return Target({**values, **({"weights": arguments.weights} if arguments.weights else {})})


def _run_folder(arguments: argparse.Namespace) -> Path | None:
    from pytest_hfaccel.reporting.runs import find_run, latest_run

    if arguments.which and arguments.which != "latest":
        return find_run(arguments.reports, arguments.which, "--run")
    return latest_run(arguments.reports)


def _refuse(name: str, reports: Path, folder: Path | None, contents: JournalContents) -> NoReturn:
    if folder is None:
        raise ConfigError(
            f"{name}: there is no run in {reports} whose cell it could be.",
            hint="--reports names another directory of reports; --device X takes a model without a run.",
        )
    cells = sorted({each.cell for each in contents.cells if each.device != CLASS_LEVEL.id})
    near = get_close_matches(name.rpartition("[")[2].rstrip("]"), cells, 3, 0.5) or cells[:3]
    raise ConfigError(
        f"{name}: run {folder.name} in {reports} has no such cell. Its {len(cells)} cells are like: "
        f"{', '.join(near) or 'none'}.",
        hint="`hfaccel runs` lists the runs, --run names one; --device X takes a model without a run.",
    )
