"""The inside of a measuring process: imports once, then each point in a fork of its own.

Reads a `Request` as JSON from standard input and writes one line of JSON per point to standard output: a
`Measurement`, or `{"error": ...}`. Three things keep memory exact: the imports are done before the baseline is read,
building a checkpoint and converting it happen in a fork before, and no point inherits what another one left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from pytest_hfaccel.backends import Backends
from pytest_hfaccel.benchmark.forking import Ended, run_in_fork
from pytest_hfaccel.benchmark.isolated import FORKS
from pytest_hfaccel.benchmark.measured_model import measure_point, prepare, verify
from pytest_hfaccel.benchmark.points import Point
from pytest_hfaccel.benchmark.process import error_answer, how_it_ended, last_words
from pytest_hfaccel.benchmark.request import Request
from pytest_hfaccel.core.errors import HfAccelError, is_out_of_memory
from pytest_hfaccel.core.results import CellResult, Stage, Status

_FRAMES = 3
_RIGHT = frozenset({Status.PASSED, Status.XPASSED})


def main() -> None:
    """Serve one request."""
    request = Request.from_json(json.load(sys.stdin))
    with _standard_output_for_answers() as answer:
        serve(request, answer)


def serve(request: Request, answer: Callable[[dict[str, Any]], None]) -> None:
    """Measure every point of a request.

    Args:
        request: What to measure.
        answer: Called with the record of the checks, if there are any, then with the answer for each point, in order.
    """
    try:
        _import_everything(request)
    except Exception as error:
        for _ in [*request.checks[:1], *request.points]:
            answer(_failed(error))
        return
    prepared = _in_a_process(request, lambda: prepare(request))
    refusal = prepared if "error" in prepared else None
    if request.checks:
        verified = refusal or _in_a_process(request, lambda: verify(request))
        answer(verified)
        refusal = _refusal(verified)
    for point in request.points:
        answer(refusal or _at(request, point, prepared))


def _at(request: Request, point: Point, prepared: dict[str, Any]) -> dict[str, Any]:
    """Measure a point; again if that made the backend convert, whose memory is not the model's."""
    found = _in_a_process(request, lambda: measure_point(request, point, prepared, own_process=FORKS))
    converting_s = found.get("convert_s", 0.0)
    if converting_s:
        found = _in_a_process(request, lambda: measure_point(request, point, prepared, own_process=FORKS))
    if "error" not in found:
        found["convert_s"] = converting_s + prepared["convert_s"]
    return found


@contextlib.contextmanager
def _standard_output_for_answers() -> Iterator[Callable[[dict[str, Any]], None]]:
    """Keep what libraries print out of the answers: file descriptor 1 becomes standard error."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)

        def answer(data: dict[str, Any]) -> None:
            answers.write(json.dumps(data) + "\n")
            answers.flush()

        yield answer


def _import_everything(request: Request) -> None:
    """Import what loading and running will need, so that it is not counted as the model's memory."""
    from importlib import import_module

    import safetensors.torch  # noqa: F401
    import torch

    from pytest_hfaccel.checkpoints.configs import model_class

    torch.set_num_threads(request.threads)
    Backends().for_kind(request.cell.device.kind)
    if not request.cell.model.requires_remote_code:
        model_class(request.cell.model)
    if request.cell.device.kind == "openvino":
        # What its backend imports when it converts, reads and runs.
        import_module("transformers.exporters.exporter_openvino")
        import_module("transformers.exporters.runners.runner_openvino")
    for module in ("checkpoints.building", "tracing.input_shapes"):
        import_module(f"pytest_hfaccel.{module}")


def _in_a_process(request: Request, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    if not FORKS:
        return _attempted(work)
    with tempfile.TemporaryFile() as errors:
        found = run_in_fork(lambda: _attempted(work), request.timeout, errors)
        if not isinstance(found, Ended):
            return found
        if found.timed_out:
            reason, status = f"took more than {request.timeout:.0f} s", Status.TIMEOUT
        else:
            reason, status = f"the process {how_it_ended(found.code)}{last_words(errors)}", Status.CRASHED
    return error_answer(status, Stage.RUN, reason)


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
