"""The measuring process: imports once, then prepares, verifies and measures a model, each in a fork of its own.

Reads a pickled `WorkerRequest` from standard input and writes one line of JSON per result to standard output: a
`Measurement`, or `{"error": ...}`. Three things keep memory exact: the imports are done before the baseline is read,
building a checkpoint and converting it happen in a fork before, and no point inherits memory of another one.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import multiprocessing
import os
import pickle
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pytest_hfaccel.backends import Backends
from pytest_hfaccel.backends.base import SampleInputs
from pytest_hfaccel.benchmark.inputs import make_inputs
from pytest_hfaccel.benchmark.measuring import measure
from pytest_hfaccel.benchmark.memory import OwnProcess, SharedProcess
from pytest_hfaccel.campaign.processes import FORKS, WorkerRequest, error_answer, error_output, how_it_ended
from pytest_hfaccel.core.devices import register_kind
from pytest_hfaccel.core.errors import HfAccelError, is_out_of_memory
from pytest_hfaccel.core.results import CellResult, Stage, Status

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from pytest_hfaccel.backends.base import LoadedModel
    from pytest_hfaccel.benchmark.inputs import MeasuredInputs
    from pytest_hfaccel.benchmark.measurement import Point
    from pytest_hfaccel.checkpoints import Checkpoint

_FRAMES = 3
_RIGHT = frozenset({Status.PASSED, Status.XPASSED})
_STANDARD_ERROR = 2


def main() -> None:
    """Serve one request."""
    request: WorkerRequest = pickle.load(sys.stdin.buffer)  # noqa: S301 - written by our own parent process
    for kind in request.described:
        register_kind(kind)
    with _standard_output_for_answers() as answer:
        serve(request, answer)


def serve(request: WorkerRequest, answer: Callable[[dict[str, Any]], None]) -> None:
    """Measure every point of a request."""
    try:
        _import_everything(request)
    except Exception as error:
        for _ in [*request.checks[:1], *request.points]:
            answer(_failed(error))
        return
    prepared = _in_a_process(request, lambda: _prepare(request))
    refusal = prepared if "error" in prepared else None
    if request.checks:
        verified = refusal or _in_a_process(request, lambda: _verify(request))
        answer(verified)
        refusal = _refusal(verified)
    for point in request.points:
        answer(refusal or _at(request, point, prepared))


def _at(request: WorkerRequest, point: Point, prepared: dict[str, Any]) -> dict[str, Any]:
    """Measure a point; again if that made the backend convert, whose memory is not the model's."""
    measured = _in_a_process(request, lambda: _measure_point(request, point, prepared))
    converting_s = measured.get("convert_s", 0.0)
    if converting_s:
        measured = _in_a_process(request, lambda: _measure_point(request, point, prepared))
    if "error" not in measured:
        measured["convert_s"] = converting_s + prepared["convert_s"]
    return measured


@contextlib.contextmanager
def _standard_output_for_answers() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Keep what libraries print out of the answers: file descriptor 1 becomes standard error."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)

        def answer(data: dict[str, Any]) -> None:
            answers.write(json.dumps(data) + "\n")
            answers.flush()

        yield answer


def _import_everything(request: WorkerRequest) -> None:
    """Import what loading and running will need, so that it is not counted as the model's memory."""
    from importlib import import_module

    import safetensors.torch  # noqa: F401
    import torch

    from pytest_hfaccel.checkpoints.configs import model_class

    torch.set_num_threads(request.threads)
    Backends().for_kind(request.cell.device.kind)
    if not request.cell.model.requires_remote_code:
        model_class(request.cell.model)
    exporter = {"openvino": "openvino", "onnxruntime": "onnx", "executorch": "executorch"}.get(request.cell.device.kind)
    if exporter is not None:
        # What its backend imports when it converts, reads and runs.
        import_module(f"transformers.exporters.exporter_{exporter}")
        import_module(f"transformers.exporters.runners.runner_{exporter}")
    for module in ("checkpoints.build", "tracing.input_shapes"):
        import_module(f"pytest_hfaccel.{module}")


def _verify(request: WorkerRequest) -> dict[str, Any]:
    """Run the request's checks, in the order of the battery; return the cell's record."""
    from pytest_hfaccel.core.config import RunConfig
    from pytest_hfaccel.engine.runner import Runner

    config = RunConfig(
        cache=str(request.cache_dir),
        trust_remote_code=request.trust_remote_code,
        allow_pickle=request.allow_pickle,
    )
    runner = Runner(config)
    run = runner.open(request.cell)
    try:
        for check in runner.checks_of(request.cell):
            if check.name in request.checks:
                run.check(check.name)
    finally:
        run.close()
    return run.result().to_json()


def _refusal(verified: dict[str, Any]) -> dict[str, Any] | None:
    """Return the answer for every point of a cell whose checks did not pass; `None` where they did."""
    if "error" in verified:
        return verified
    record = CellResult.from_json(verified)
    bad = next((check for check in record.checks if check.status not in _RIGHT), None)
    if bad is None:
        return None
    if bad.status == Status.UNAVAILABLE:
        return error_answer(bad.status, bad.stage or Stage.LOAD, bad.reason or "")
    reason = f"the check {bad.name!r} ended with {bad.status}: the speed of wrong results is not measured"
    return error_answer(Status.SKIPPED, bad.stage or Stage.RUN, reason)


def _prepare(request: WorkerRequest) -> dict[str, Any]:
    """Build the checkpoint and, by loading it once, what the backend derives from it.

    Returns:
        Plain JSON for `_measure_point`: where the checkpoint is, its number of parameters, seconds of conversion.
    """
    from pytest_hfaccel.checkpoints import CheckpointStore
    from pytest_hfaccel.registry import require_installed

    require_installed(request.cell.model)
    store = CheckpointStore(
        request.cache_dir, trust_remote_code=request.trust_remote_code, allow_pickle=request.allow_pickle
    )
    checkpoint = store.prepare(request.cell.model, request.cell.weights)
    seconds = 0.0
    # What runs torch's own module does not convert it.
    if not request.cell.device.traits.torch_module and request.points:
        point = request.points[0]
        loaded = _load(request, checkpoint, make_inputs(checkpoint, point.batch, point.length))
        seconds = loaded.timings.get("convert", 0.0)
    return {
        "directory": str(checkpoint.directory),
        "fingerprint": checkpoint.fingerprint,
        "parameters": checkpoint.parameters,
        "convert_s": seconds,
    }


def _measure_point(request: WorkerRequest, point: Point, prepared: dict[str, Any]) -> dict[str, Any]:
    checkpoint = _prepared_checkpoint(request, prepared)
    inputs = make_inputs(checkpoint, point.batch, point.length)
    # In a fork that does nothing else, the memory of the process is the model's.
    memory = OwnProcess() if FORKS else SharedProcess()
    return measure(
        _load(request, checkpoint, inputs),
        request.cell,
        inputs,
        budget=request.budget,
        memory=memory,
        generation=request.generation,
        parameters=prepared["parameters"],
    ).to_json()


def _prepared_checkpoint(request: WorkerRequest, prepared: dict[str, Any]) -> Checkpoint:
    """Return the checkpoint that the preparing process made, without building or searching for anything."""
    from pytest_hfaccel.checkpoints import Checkpoint

    model = request.cell.model
    return Checkpoint(
        spec=model,
        weights=request.cell.weights,
        directory=Path(prepared["directory"]),
        fingerprint=prepared["fingerprint"],
        cache_dir=request.cache_dir,
        trust_remote_code=model.requires_remote_code and model.may_run_its_code(request.trust_remote_code),
        allow_pickle=request.allow_pickle,
    )


def _load(request: WorkerRequest, checkpoint: Checkpoint, inputs: MeasuredInputs) -> LoadedModel:
    """Load with the measured inputs in the place of the sample: a backend that traces makes one graph, for these."""
    sample = SampleInputs(inputs.forward, inputs.generate, batch=inputs.batch)
    backend = Backends().for_kind(request.cell.device.kind)
    return backend.load(request.cell, replace(checkpoint, _sample=sample))


def _in_a_process(request: WorkerRequest, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    if not FORKS:
        return _attempted(work)
    with tempfile.TemporaryFile() as errors:
        result = run_in_fork(lambda: _attempted(work), request.timeout, errors)
        if not isinstance(result, Ended):
            return result
        if result.timed_out:
            return error_answer(Status.TIMEOUT, Stage.RUN, f"took more than {request.timeout:.0f} s")
        reason = f"the process {how_it_ended(result.code)}{error_output(errors)}"
        return error_answer(Status.CRASHED, Stage.RUN, reason)


def _attempted(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return work()
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> dict[str, Any]:
    if isinstance(error, HfAccelError):
        return error_answer(Status(error.status), Stage(error.stage), str(error))
    status = Status.OUT_OF_MEMORY if is_out_of_memory(error) else Status.ERROR
    where = "".join(traceback.format_list(traceback.extract_tb(error.__traceback__)[-_FRAMES:]))
    return error_answer(status, Stage.RUN, f"{type(error).__name__}: {error}\n{where}".rstrip())


@dataclass(frozen=True)
class Ended:
    """A fork that gave no result.

    Attributes:
        code: Exit code as `subprocess` gives it: negative for a signal.
        timed_out: Whether it was killed for taking too long.
    """

    code: int
    timed_out: bool = False


def run_in_fork(work: Callable[[], dict[str, Any]], timeout: float, errors: IO[bytes]) -> dict[str, Any] | Ended:
    """Run a function in a forked child and return its JSON result, or how the child ended.

    Args:
        work: Returns plain JSON. An exception it raises ends the fork with status 1.
        timeout: Seconds after which the fork is killed.
        errors: File the fork's standard error, and that of the libraries in it, goes to.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(work, sender, errors.fileno()))
    process.start()
    sender.close()
    with receiver:
        timed_out = not receiver.poll(timeout)
        try:
            result: dict[str, Any] | None = None if timed_out else receiver.recv()
        except (EOFError, OSError):  # it ended before, or while, it sent
            result = None
    if timed_out or result is not None:
        process.kill()  # what it would do before its end is of no use
    process.join()
    return Ended(process.exitcode or 0, timed_out) if result is None else result


def _send_result(work: Callable[[], dict[str, Any]], sender: Connection, errors: int) -> None:
    os.dup2(errors, _STANDARD_ERROR)
    sys.stderr = os.fdopen(_STANDARD_ERROR, "w", closefd=False)
    faulthandler.enable(file=_STANDARD_ERROR)  # reports where in Python a crash happened
    sender.send(work())


if __name__ == "__main__":
    main()
