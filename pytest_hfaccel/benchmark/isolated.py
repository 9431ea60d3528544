"""Measuring in processes of their own: exact memory, and a crash that costs one point instead of the run.

`measure_isolated` starts one process per model and device, which does the imports once and measures each point in a
fork of itself (where the system forks safely; else one process per point).
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.benchmark.points import NotMeasured, Point
from pytest_hfaccel.benchmark.process import MeasuringProcess
from pytest_hfaccel.benchmark.request import Request
from pytest_hfaccel.benchmark.timing import Effort
from pytest_hfaccel.core.results import CellResult, CheckOutcome
from pytest_hfaccel.core.spec import Cell, Device, ModelSpec, Weights, WeightsChoice

FORKS = sys.platform == "linux"
"""Whether a process with torch in it can be forked: on macOS its frameworks cannot, Windows has no fork."""

_GRACE = 60.0
"""Seconds beyond the time limit that a measuring process gets to start, or to report a point that it has ended."""


def measure_isolated(
    spec: ModelSpec,
    weights_kind: Weights | WeightsChoice | str,
    device: Device | str,
    dtype: str,
    points: Sequence[Point | tuple[int, int]],
    *,
    threads: int,
    cache_dir: Path,
    timeout: float,
    effort: Effort | None = None,
    generation: bool = True,
    trust_remote_code: tuple[str, ...] = (),
    allow_pickle: bool = False,
) -> Iterator[Measurement | NotMeasured]:
    """Measure a model on a device at several points, each in a process of its own.

    Args:
        spec: The model; it need not be in a registry.
        weights_kind: The kind of weights; for `pretrained` ones in a directory, the choice with its path.
        device: The device, or its id.
        dtype: The precision.
        points: Batch sizes and sequence lengths; length 0 for models without text.
        threads: CPU threads of the runtime.
        cache_dir: Where checkpoints and converted models are kept.
        timeout: Seconds for preparing the model, and for each point.
        effort: How much work the timing of a point may be.
        generation: Whether the tokens of generating models are timed.
        trust_remote_code: Models whose repository's code may run; see `ModelSpec.may_run_its_code`.
        allow_pickle: Whether weights that are not safetensors may be loaded.

    Yields:
        One result per point, in the order of the points: what was measured, or why it was not. A crash, an error and
        a time-out are results; nothing is raised for them.
    """
    choice = weights_kind if isinstance(weights_kind, WeightsChoice) else WeightsChoice(Weights(weights_kind), "asked")
    request = Request(
        cell=Cell(spec, device if isinstance(device, Device) else Device.parse(device), dtype, choice),
        points=tuple(point if isinstance(point, Point) else Point(*point) for point in points),
        threads=threads,
        cache_dir=Path(cache_dir),
        timeout=timeout,
        effort=effort or Effort(),
        generation=generation,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
    )
    for found in run_isolated(request):
        assert not isinstance(found, CellResult)  # noqa: S101 - nothing is checked
        yield found


def run_isolated(request: Request) -> Iterator[CellResult | Measurement | NotMeasured]:
    """Serve a request in processes of their own.

    Yields:
        The record of the cell's checks, if there are any, then one result per point in the order of the points. After
        a failed check nothing is measured, and every point says so.
    """
    whole = FORKS or not request.points
    groups = [request.points] if whole else [(point,) for point in request.points]
    for number, group in enumerate(groups):
        for found in _run_process(replace(request, points=group)):
            if number == 0 or not isinstance(found, CellResult):
                yield found


def _run_process(request: Request) -> Iterator[CellResult | Measurement | NotMeasured]:
    with tempfile.TemporaryFile() as errors:
        body = json.dumps(request.to_json())
        with MeasuringProcess(body, request.threads, errors) as process:
            # A model is prepared before the first answer; a point that made it convert is measured twice.
            limit = 3 * request.timeout + _GRACE
            if request.checks:
                yield _record(process.answer(limit), request)
            for point in request.points:
                yield _result(process.answer(limit), point)


def _result(data: dict[str, Any], point: Point) -> Measurement | NotMeasured:
    if "error" not in data:
        return Measurement.from_json(data)
    return replace(NotMeasured.from_json(data["error"]), batch=point.batch, length=point.length)


def _record(data: dict[str, Any], request: Request) -> CellResult:
    """Return the record of the checks; a crash is an outcome of the first one."""
    if "error" not in data:
        return CellResult.from_json(data)
    from pytest_hfaccel.engine.runner import identity

    error = NotMeasured.from_json(data["error"])
    outcome = CheckOutcome(request.checks[0], error.status, error.stage, error.reason)
    return CellResult(**identity(request.cell, ""), checks=[outcome])


if __name__ == "__main__":
    from pytest_hfaccel.benchmark.measuring_process import main

    main()
