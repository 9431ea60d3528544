"""The parent of measuring processes: exact memory, and a crash costs one point instead of the run.

`run_isolated` starts one process per model and device (`worker.py`). It imports everything once, then measures each
point in a fork of itself, where the system forks safely; elsewhere there is one process per point. The request goes to
the worker's standard input, and one line of JSON per result comes back on its standard output.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from pytest_hfaccel.benchmark.measurement import Measurement, NotMeasured, Point
from pytest_hfaccel.benchmark.timing import TimingBudget
from pytest_hfaccel.core.devices import DeviceKind, described_kinds
from pytest_hfaccel.core.results import CellResult, CheckOutcome, Stage, Status
from pytest_hfaccel.core.spec import Cell, Device, ModelSpec, Weights, WeightsChoice

FORKS = sys.platform == "linux"
"""Whether a process with torch in it can be forked: on macOS its frameworks cannot, Windows has no fork."""

MODULE = "bench"
"""What the records of cells name as their module."""

_GRACE = 60.0
"""Seconds beyond the time limit that a worker gets to start, or to report how a point ended."""
_FAULT = "Fatal Python error"
_SHOWN = 400
"""Characters of a dead process's standard error that are quoted."""


@dataclass(frozen=True)
class WorkerRequest:
    """A model on a device at several points, as `measure_isolated` describes it.

    The cell must pass `checks` before anything is measured; the model need not be in a registry.
    """

    cell: Cell
    points: tuple[Point, ...]
    threads: int
    cache_dir: Path
    timeout: float
    budget: TimingBudget = field(default_factory=TimingBudget)
    generation: bool = True
    trust_remote_code: tuple[str, ...] = ()
    allow_pickle: bool = False
    checks: tuple[str, ...] = ()
    described: tuple[DeviceKind, ...] = field(default_factory=described_kinds)
    """The kinds of device that a registry file told this process of, and that the worker must know, too."""


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
    budget: TimingBudget | None = None,
    generation: bool = True,
    trust_remote_code: tuple[str, ...] = (),
    allow_pickle: bool = False,
    effort: TimingBudget | None = None,
) -> Iterator[Measurement | NotMeasured]:
    """Measure a model on a device at several points, each in a process of its own.

    Args:
        spec: The model; it need not be in a registry.
        weights_kind: The kind of weights; for `pretrained` ones in a directory, the choice with its path.
        device: The device, or its id.
        dtype: The precision.
        points: Batch sizes and sequence lengths; length 0 for models without text.
        threads: CPU threads of the runtime.
        cache_dir: Where checkpoints and converted models are stored.
        timeout: Seconds for preparing the model, and for each point.
        budget: Limits on the timing of a point.
        generation: Whether the tokens of generating models are timed.
        trust_remote_code: Models whose repository's code may run; see `ModelSpec.may_run_its_code`.
        allow_pickle: Whether weights that are not safetensors may be loaded.
        effort: The old name of `budget`.

    Yields:
        One result per point, in the order of the points: a measurement, or why there is none. A crash, an error and
        a time-out are results; nothing is raised for them.
    """
    if effort is not None:
        import warnings

        warnings.warn("measure_isolated: effort is now budget.", DeprecationWarning, stacklevel=2)
    choice = weights_kind if isinstance(weights_kind, WeightsChoice) else WeightsChoice(Weights(weights_kind), "asked")
    request = WorkerRequest(
        cell=Cell(spec, device if isinstance(device, Device) else Device.parse(device), dtype, choice),
        points=tuple(point if isinstance(point, Point) else Point(*point) for point in points),
        threads=threads,
        cache_dir=Path(cache_dir),
        timeout=timeout,
        budget=budget or effort or TimingBudget(),
        generation=generation,
        trust_remote_code=trust_remote_code,
        allow_pickle=allow_pickle,
    )
    for result in run_isolated(request):
        assert not isinstance(result, CellResult)  # noqa: S101 - nothing is checked
        yield result


def run_isolated(request: WorkerRequest) -> Iterator[CellResult | Measurement | NotMeasured]:
    """Serve a request in processes of their own.

    Yields:
        The record of the cell's checks, if there are any, then one result per point in the order of the points. After
        a failed check nothing is measured, and every point says so.
    """
    if FORKS or not request.points:
        yield from _run_process(request)
        return
    for number, point in enumerate(request.points):
        for result in _run_process(replace(request, points=(point,))):
            if number == 0 or not isinstance(result, CellResult):
                yield result


def _run_process(request: WorkerRequest) -> Iterator[CellResult | Measurement | NotMeasured]:
    with tempfile.TemporaryFile() as errors, _worker(request, errors) as next_answer:
        # A model is prepared before the first answer; a point that made it convert is measured twice.
        limit = 3 * request.timeout + _GRACE
        if request.checks:
            yield _record(next_answer(limit), request)
        for point in request.points:
            answer = next_answer(limit)
            if "error" in answer:
                yield replace(NotMeasured.from_json(answer["error"]), batch=point.batch, length=point.length)
            else:
                yield Measurement.from_json(answer)


def _record(answer: dict[str, Any], request: WorkerRequest) -> CellResult:
    """The record of the checks; a crash is an outcome of the first one."""
    if "error" not in answer:
        return CellResult.from_json(answer)
    error = NotMeasured.from_json(answer["error"])
    return record_of(request.cell, CheckOutcome(request.checks[0], error.status, error.stage, error.reason))


def record_of(cell: Cell, outcome: CheckOutcome) -> CellResult:
    """Return the record of a cell of which only this is known."""
    from pytest_hfaccel.engine.cell_run import identity

    return CellResult(**identity(cell, MODULE), checks=[outcome])


@contextmanager
def _worker(request: WorkerRequest, errors: IO[bytes]) -> Iterator[Callable[[float], dict[str, Any]]]:
    """Start a process that serves a request; it ends with the block, and with it all its forks.

    Yields:
        A function that returns the next answer or, where none comes within so many seconds, an error in its place.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest_hfaccel.campaign.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=_environment(request.threads),
        # A group of its own: killing the process alone would leave the fork that measures running.
        start_new_session=True,
    )
    assert process.stdin is not None  # noqa: S101
    assert process.stdout is not None  # noqa: S101
    output, is_late = process.stdout, threading.Event()

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()

    def end_late() -> None:
        is_late.set()
        kill()

    def answer(limit: float) -> dict[str, Any]:
        timer = threading.Timer(limit, end_late)
        timer.start()
        line = output.readline()
        timer.cancel()
        if line.endswith(b"\n"):
            found: dict[str, Any] = json.loads(line)
            return found
        if is_late.is_set():
            return error_answer(Status.TIMEOUT, Stage.RUN, f"the measuring process did not answer within {limit:.0f} s")
        reason = f"the measuring process {how_it_ended(process.wait())}{error_output(errors)}"
        return error_answer(Status.CRASHED, Stage.LOAD, reason)

    with suppress(BrokenPipeError):  # it died at once: the missing answer says so
        process.stdin.write(pickle.dumps(request))
        process.stdin.close()
    try:
        yield answer
    finally:
        kill()
        process.wait()
        output.close()


def _environment(threads: int) -> dict[str, str]:
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        # Without this, asking whether there is a GPU initialises CUDA, and a fork could not use it.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }


def error_answer(status: Status, stage: Stage, reason: str) -> dict[str, Any]:
    """Return an answer without a result; the reader knows which point it is about."""
    return {"error": NotMeasured(0, 0, status, stage, reason).to_json()}


def how_it_ended(code: int) -> str:
    """Say how a process ended, by its exit code as `subprocess` gives it: negative for a signal."""
    if code >= 0:
        return f"exited with status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def error_output(errors: IO[bytes]) -> str:
    """Return the end of what a process wrote to its standard error, after a colon; empty where it wrote nothing.

    Of a crash it is the beginning of the report of Python's fault handler, which names the innermost function first.
    """
    errors.seek(0)
    text = errors.read().decode(errors="replace").strip()
    fault = text.rfind(_FAULT)
    shown = text[-_SHOWN:] if fault < 0 else text[fault : fault + _SHOWN]
    return f": {shown}" if text else ""
