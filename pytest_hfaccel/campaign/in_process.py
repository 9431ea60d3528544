"""Measure in this process, with models from the pool: for systems and devices that allow only one process."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_hfaccel.benchmark.measurement import Measurement, NotMeasured
from pytest_hfaccel.benchmark.measuring import PerformanceRequest
from pytest_hfaccel.campaign.processes import WorkerRequest
from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.results import CellResult, CheckOutcome, Stage
from pytest_hfaccel.engine.cell_run import PERFORMANCE, CellRun
from pytest_hfaccel.engine.runner import Runner


class InProcessWorker:
    """Serves requests one after the other.

    Memory is that of the weights plus the rise while running, and a crash ends the whole campaign.

    Args:
        config: The run; its cache, and what may be loaded.
        pooled: Whether models stay loaded between cells; else each cell loads its own.
    """

    def __init__(self, config: RunConfig, *, pooled: bool = True) -> None:
        self._config = config.replace(performance=True)
        self._pooled = pooled
        self._runner: Runner | None = None

    def __call__(self, request: WorkerRequest) -> Iterator[CellResult | Measurement | NotMeasured]:
        """Serve a request; see `processes.run_isolated`."""
        import torch

        torch.set_num_threads(request.threads)
        runner = self._runner = self._runner or Runner(self._config)
        run = runner.open(request.cell)
        try:
            yield from _served(run, request)
        finally:
            run.close()
            if not self._pooled:
                self.close()

    def close(self) -> None:
        """Free the models."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None


def _served(run: CellRun, request: WorkerRequest) -> Iterator[CellResult | Measurement | NotMeasured]:
    if request.checks:
        for check in run.runner.checks_of(request.cell):
            if check.name in request.checks:
                run.check(check.name)
        yield run.result()
    for point in request.points:
        performance = PerformanceRequest((point,), request.budget, only_right=bool(request.checks))
        outcome = run.check(PERFORMANCE, performance)
        measured = outcome.measures.get("measurements")
        yield Measurement.from_json(measured[0]) if measured else _not_measured(outcome, point.batch, point.length)


def _not_measured(outcome: CheckOutcome, batch: int, length: int) -> NotMeasured:
    return NotMeasured(batch, length, outcome.status, outcome.stage or Stage.RUN, outcome.reason or "")
