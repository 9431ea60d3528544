"""`hfaccel explain`: where a model on a device leaves the reference."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.cli import print_json
from pytest_hfaccel.core.errors import ConfigError

if TYPE_CHECKING:
    from pytest_hfaccel.core.spec import Cell
    from pytest_hfaccel.engine.session import Session


def add_parser(commands: Any) -> None:
    """Add `explain` to the parsers of `hfaccel`."""
    text = (
        "Run a model beside its fp64 reference, module by module and then operator by operator, and name the first "
        "that adds an error. For devices of torch and of ONNX Runtime, there node by node. The exit code is 1 where "
        "one is found."
    )
    parser = commands.add_parser("explain", help="find the module and the operator that are wrong", description=text)
    parser.add_argument("model", metavar="MODEL", help="registered name, hub id or directory")
    parser.add_argument("--device", default="cpu", metavar="X", help="default: %(default)s")
    parser.add_argument("--dtype", default="fp32", choices=("fp32", "bf16", "fp16"), help="default: %(default)s")
    parser.add_argument("--weights", metavar="KIND", help="auto, tiny, random or pretrained (default: as in a run)")
    text = "write a script that shows the operator's error with torch alone to this directory"
    parser.add_argument("--script", type=Path, metavar="DIR", help=text)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _explain_graph(session: Session, cell: Cell, arguments: argparse.Namespace) -> int:
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
        print_json({"cell": cell.id, **found.to_json()})
    else:
        print(cell.id)
        print("\n".join(found.lines()))
    return 0 if found.error <= found.budget else 1


def _run(arguments: argparse.Namespace) -> int:
    from pytest_hfaccel.core.config import RunConfig
    from pytest_hfaccel.engine.session import Session
    from pytest_hfaccel.explain import explain
    from pytest_hfaccel.explain.reproduction import write_reproduction
    from pytest_hfaccel.registry.resolution import resolve_model
    from pytest_hfaccel.upstream.transformers import quiet

    values = {"models": (arguments.model,), "devices": (arguments.device,), "dtypes": (arguments.dtype,)}
    if arguments.weights:
        values["weights"] = arguments.weights
    session = Session(RunConfig.from_values(values))
    try:
        with quiet:
            cell = session.plan.cells(resolve_model(arguments.model, session.registry), session.store)[0]
            if not cell.device.traits.torch_module:
                return _explain_graph(session, cell, arguments)
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
        print_json({"cell": cell.id, **found.to_json(), "script": script and str(script), "reproduction": about})
    else:
        print(cell.id)
        print("\n".join(found.lines()))
        if about:
            print(f"Reproduction: {script}: {about}" if script else f"Reproduction: {about}")
    return 0 if found.guilty is None else 1
