"""What a measuring process does with a model, each in a fork of its own: prepare it, verify it, measure it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.backends import Backends
from pytest_hfaccel.backends.base import SampleInputs
from pytest_hfaccel.benchmark.inputs import make_inputs
from pytest_hfaccel.benchmark.measuring import measure
from pytest_hfaccel.benchmark.memory import OwnProcess, SharedProcess

if TYPE_CHECKING:
    from pytest_hfaccel.backends.base import LoadedModel
    from pytest_hfaccel.benchmark.inputs import MeasuredInputs
    from pytest_hfaccel.benchmark.points import Point
    from pytest_hfaccel.benchmark.request import Request
    from pytest_hfaccel.checkpoints import Checkpoint

"""Device kinds that run the checkpoint as it is; every other one may convert it first."""


def verify(request: Request) -> dict[str, Any]:
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


def prepare(request: Request) -> dict[str, Any]:
    """Build the checkpoint and, by loading it once, what the backend derives from it.

    Returns:
        Plain JSON for `measure_point`: where the checkpoint is, its number of parameters, seconds of conversion.
    """
    checkpoint = _checkpoint(request)
    seconds = 0.0
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


def measure_point(request: Request, point: Point, prepared: dict[str, Any], *, own_process: bool) -> dict[str, Any]:
    """Load the prepared model and measure it.

    Args:
        request: The request.
        point: Where to measure.
        prepared: What `prepare` returned.
        own_process: Whether this process does nothing else, so that its memory is the model's.
    """
    checkpoint = _prepared_checkpoint(request, prepared)
    inputs = make_inputs(checkpoint, point.batch, point.length)
    memory = OwnProcess() if own_process else SharedProcess()
    return measure(
        _load(request, checkpoint, inputs),
        request.cell,
        inputs,
        effort=request.effort,
        memory=memory,
        generation=request.generation,
        parameters=prepared["parameters"],
    ).to_json()


def _checkpoint(request: Request) -> Checkpoint:
    from pytest_hfaccel.checkpoints import CheckpointStore
    from pytest_hfaccel.registry import require_installed

    require_installed(request.cell.model)
    store = CheckpointStore(
        request.cache_dir, trust_remote_code=request.trust_remote_code, allow_pickle=request.allow_pickle
    )
    return store.prepare(request.cell.model, request.cell.weights)


def _prepared_checkpoint(request: Request, prepared: dict[str, Any]) -> Checkpoint:
    """Return the checkpoint that the preparing process made; nothing is built, nothing is looked for."""
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


def _load(request: Request, checkpoint: Checkpoint, inputs: MeasuredInputs) -> LoadedModel:
    """Load with the measured inputs in the place of the sample: a backend that traces makes one graph, for these."""
    sample = SampleInputs(inputs.forward, inputs.generate, batch=inputs.batch)
    backend = Backends().for_kind(request.cell.device.kind)
    return backend.load(request.cell, replace(checkpoint, _sample=sample))
