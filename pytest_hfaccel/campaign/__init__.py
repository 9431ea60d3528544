"""Verify and measure many cells, each in a separate process: the work of `hfaccel bench`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.benchmark.measurement import Measurement, NotMeasured, Point, points_for, summary_of
from pytest_hfaccel.benchmark.timing import TimingBudget
from pytest_hfaccel.campaign.processes import MODULE, WorkerRequest, record_of, run_isolated
from pytest_hfaccel.core.errors import format_bytes
from pytest_hfaccel.core.events import CheckFinished, RecordBuilder
from pytest_hfaccel.core.results import CellResult, CheckOutcome, Stage, Status
from pytest_hfaccel.core.spec import Weights

if TYPE_CHECKING:
    from pytest_hfaccel.core.spec import Cell


VERIFIED = ("placement", "forward", "parity")
"""The checks a cell must pass before it is measured; the whole battery is pytest's work."""
_BYTES_OF_FP32 = 4
_COPIES = 1.3
"""Times the weights that building or loading a checkpoint in fp32 takes at its peak, with room for activations."""
_COPIES_CONVERTING = 4.0
"""The same for a converter: torch's weights, the traced program, the converted one and the compiled one."""

PointResult = Measurement | NotMeasured


@dataclass(frozen=True)
class Campaign:
    """What is verified and measured, and how; see `WorkerRequest`. Without batch sizes nothing is measured."""

    cells: Sequence[Cell]
    batches: Sequence[int]
    lengths: Sequence[int]
    threads: int
    cache_dir: Path
    timeout: float
    budget: TimingBudget = field(default_factory=TimingBudget)
    verify: bool = True
    trust_remote_code: tuple[str, ...] = ()
    allow_pickle: bool = False

    def points(self, cell: Cell) -> list[Point]:
        """Where a cell is measured."""
        return points_for(cell.model, self.batches, self.lengths) if self.batches else []

    @property
    def steps(self) -> int:
        """Number of results of `run_campaign`: one per verified cell and one per point."""
        return sum(len(self.points(cell)) + self.verify for cell in self.cells)


Run = Callable[[WorkerRequest], Iterator[CellResult | Measurement | NotMeasured]]


def run_campaign(
    campaign: Campaign, report: Callable[[Cell, CellResult | PointResult], None], run: Run = run_isolated
) -> Iterator[CellResult]:
    """Verify and measure the cells.

    Yields:
        The record of each cell when it is done, with an outcome of the check `performance` per point.
    """
    from pytest_hfaccel.engine.cell_run import identity

    builder = RecordBuilder()
    for cell in campaign.cells:
        facts = identity(cell, MODULE)
        record = builder.update(facts)
        for result in _results(campaign, cell, run):
            report(cell, result)
            if isinstance(result, CellResult):
                known = {name: getattr(result, name) for name in ("implementation", "placement", "timings")}
                for outcome in result.checks:
                    builder.add(CheckFinished({**facts, **known}, outcome))
            else:
                builder.add(CheckFinished({**facts, **_facts(record, result)}, outcome_of(result)))
        yield record


def _results(campaign: Campaign, cell: Cell, run: Run) -> Iterator[CellResult | PointResult]:
    points = campaign.points(cell)
    reason = too_large(cell)
    if not reason:
        yield from run(_request(campaign, cell, points))
        return
    if campaign.verify:
        yield record_of(cell, CheckOutcome(VERIFIED[0], Status.SKIPPED, Stage.LOAD, reason))
    yield from (NotMeasured(at.batch, at.length, Status.SKIPPED, Stage.LOAD, reason) for at in points)


def _request(campaign: Campaign, cell: Cell, points: Sequence[Point]) -> WorkerRequest:
    return WorkerRequest(
        cell=cell,
        points=tuple(points),
        threads=campaign.threads,
        cache_dir=campaign.cache_dir,
        timeout=campaign.timeout,
        budget=campaign.budget,
        trust_remote_code=campaign.trust_remote_code,
        allow_pickle=campaign.allow_pickle,
        checks=VERIFIED if campaign.verify else (),
    )


def outcome_of(result: PointResult) -> CheckOutcome:
    """Return a point's result as an outcome of the check `performance`."""
    if isinstance(result, NotMeasured):
        measures = {"batch": result.batch, "length": result.length}
        return CheckOutcome("performance", result.status, result.stage, result.reason, measures)
    return CheckOutcome("performance", measures={**summary_of(result), "measurements": [result.to_json()]})


def _facts(record: CellResult, result: PointResult) -> dict[str, Any]:
    """Take from a measurement what only the checks of a verified cell would record."""
    if isinstance(result, NotMeasured) or record.placement:
        return {}
    timings = {"load": result.load_s, "convert": result.convert_s, "compile": result.compile_s}
    placement = result.details.get("placement", {})
    return {"placement": placement, "timings": timings, "implementation": result.implementation}


def too_large(cell: Cell, available_bytes: int | None = None) -> str:
    """Return why a cell would not fit into main memory, or an empty text where it fits or its size is not known.

    A process that takes more memory than there is may have the system end any process.
    """
    parameters = cell.model.parameters
    if cell.weights.kind == Weights.TINY or not parameters:
        return ""
    if available_bytes is None:
        from pytest_hfaccel.hardware.cpu import read_cpu

        available_bytes = read_cpu().available_bytes
    copies = _COPIES_CONVERTING if cell.device.traits.exported else _COPIES
    need = int(copies * _BYTES_OF_FP32 * parameters)
    if need <= available_bytes:
        return ""
    return f"it takes about {format_bytes(need)} of main memory, {format_bytes(available_bytes)} are free"
