"""Many cells verified and measured one after the other: the work of `hfaccel bench`, without its words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.benchmark.fitting import too_large
from pytest_hfaccel.benchmark.isolated import run_isolated
from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.benchmark.points import NotMeasured, Point, points_for
from pytest_hfaccel.benchmark.request import Request
from pytest_hfaccel.benchmark.summary import summary_of
from pytest_hfaccel.benchmark.timing import Effort
from pytest_hfaccel.core.results import CellResult, CheckOutcome, Stage, Status

if TYPE_CHECKING:
    from pytest_hfaccel.core.spec import Cell

VERIFIED = ("placement", "forward", "parity")
"""The checks a cell must pass before it is measured; the whole battery is pytest's work."""
MODULE = "bench"
"""What the records of cells name as their module."""

Found = Measurement | NotMeasured


@dataclass(frozen=True)
class Campaign:
    """What is verified and measured, and how.

    Attributes:
        cells: The cells, in order.
        batches: Batch sizes; none: nothing is measured.
        lengths: Tokens per sample, for models with text.
        threads: CPU threads of the runtimes.
        cache_dir: Where checkpoints and converted models are kept.
        timeout: Seconds for preparing a cell, and for each point.
        effort: How much work the timing of a point may be.
        verify: Whether cells are verified first.
        trust_remote_code: Models whose repository's code may run; see `ModelSpec.may_run_its_code`.
        allow_pickle: Whether weights that are not safetensors may be loaded.
    """

    cells: Sequence[Cell]
    batches: Sequence[int]
    lengths: Sequence[int]
    threads: int
    cache_dir: Path
    timeout: float
    effort: Effort = field(default_factory=Effort)
    verify: bool = True
    trust_remote_code: tuple[str, ...] = ()
    allow_pickle: bool = False

    def points(self, cell: Cell) -> list[Point]:
        """Where a cell is measured."""
        return points_for(cell.model, self.batches, self.lengths) if self.batches else []

    @property
    def steps(self) -> int:
        """Results that `run_campaign` will tell: one per verified cell and one per point."""
        return sum(len(self.points(cell)) + self.verify for cell in self.cells)


Run = Callable[[Request], Iterator[CellResult | Measurement | NotMeasured]]


def run_campaign(
    campaign: Campaign, tell: Callable[[Cell, CellResult | Found], None], run: Run = run_isolated
) -> Iterator[CellResult]:
    """Verify and measure the cells.

    Args:
        campaign: What to do.
        tell: Called with each result as soon as it is there.
        run: Serves a request; in processes of their own when not given.

    Yields:
        The record of each cell when it is done, with an outcome of the check `performance` per point.
    """
    for cell in campaign.cells:
        record = _empty(cell)
        for found in _results(campaign, cell, run):
            tell(cell, found)
            record = _with(record, found)
        yield record


def _results(campaign: Campaign, cell: Cell, run: Run) -> Iterator[CellResult | Found]:
    points = campaign.points(cell)
    reason = too_large(cell)
    if not reason:
        yield from run(_request(campaign, cell, points))
        return
    if campaign.verify:
        outcome = CheckOutcome(VERIFIED[0], Status.SKIPPED, Stage.LOAD, reason)
        yield replace(_empty(cell), checks=[outcome])
    yield from (NotMeasured(at.batch, at.length, Status.SKIPPED, Stage.LOAD, reason) for at in points)


def _request(campaign: Campaign, cell: Cell, points: Sequence[Point]) -> Request:
    return Request(
        cell=cell,
        points=tuple(points),
        threads=campaign.threads,
        cache_dir=campaign.cache_dir,
        timeout=campaign.timeout,
        effort=campaign.effort,
        trust_remote_code=campaign.trust_remote_code,
        allow_pickle=campaign.allow_pickle,
        checks=VERIFIED if campaign.verify else (),
    )


def _empty(cell: Cell) -> CellResult:
    from pytest_hfaccel.engine.runner import identity

    return CellResult(**identity(cell, MODULE))


def _with(record: CellResult, found: CellResult | Found) -> CellResult:
    """Add a result to the record of its cell."""
    if isinstance(found, CellResult):
        return replace(found, module=record.module, weights_reason=record.weights_reason)
    return replace(record, checks=[*record.checks, outcome_of(found)], **_facts(record, found))


def outcome_of(found: Found) -> CheckOutcome:
    """Return a point's result as an outcome of the check `performance`."""
    if isinstance(found, NotMeasured):
        measures = {"batch": found.batch, "length": found.length}
        return CheckOutcome("performance", found.status, found.stage, found.reason, measures)
    return CheckOutcome("performance", measures={**summary_of(found), "measurements": [found.to_json()]})


def _facts(record: CellResult, found: Found) -> dict[str, Any]:
    """Fill in what a cell that was not verified only tells by its measurements."""
    if isinstance(found, NotMeasured) or record.placement:
        return {}
    timings = {"load": found.load_s, "convert": found.convert_s, "compile": found.compile_s}
    placement = found.details.get("placement", {})
    return {"placement": placement, "timings": timings, "implementation": found.implementation}
