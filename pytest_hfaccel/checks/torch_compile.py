"""Check `compile`: a model run through torch.compile gives what the model gives. Only with `--hf-compile`."""

from __future__ import annotations

import contextlib
import inspect
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.backends.base import flatten_outputs
from pytest_hfaccel.checks.base import CheckContext, built_in, failed, is_torch_cell, move_to, passed, skipped
from pytest_hfaccel.core.results import CheckOutcome, Stage
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.numerics.compare import compare
from pytest_hfaccel.numerics.tolerances import tolerance_of
from pytest_hfaccel.upstream.openvino import clear_compiled_graphs, compile_refusals, compiled_graphs
from pytest_hfaccel.upstream.torch import compile_counters, compiling_in_process, has_triton, why_no_cpp_compiler

if TYPE_CHECKING:
    import torch

INDUCTOR, OPENVINO = "inductor", "openvino"
_HINTS = {"fp32": "f32", "bf16": "bf16"}
"""OpenVINO's names of the precisions that its CPU has. Left alone it takes bf16 where the processor has it."""


class NotCompiled(Exception):
    """Compilation failed, or quietly did not happen."""


@dataclass(frozen=True)
class Compiler:
    """A backend of torch.compile.

    Attributes:
        name: Its name there.
        options: Its options.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)


@built_in("compile", applies=is_torch_cell, option="compile")
def compilation(context: CheckContext) -> CheckOutcome:
    """With torch.compile, by its default backend and by OpenVINO's where present, the outputs are those without."""
    usable, left_out = compilers(context.cell.device, context.cell.dtype)
    measures: dict[str, Any] = {"left_out": left_out}
    if not usable:
        return skipped("; ".join(f"{name}: {reason}" for name, reason in left_out.items()), **measures)
    expected = context.outputs
    for compiler in usable:
        try:
            outputs, facts = run_compiled(context.loaded.pipeline_model(), context.sample.forward, compiler)
        except NotCompiled as error:
            return failed(f"{compiler.name}: {error}", stage=Stage.COMPILE, **measures)
        comparison = compare(
            outputs, expected, tolerance_of(context.cell), lambda: context.reference.error_of(context.cell.dtype)
        )
        measures[compiler.name] = {"rel_l2": comparison.measures().get("rel_l2"), **facts}
        if not comparison.ok:
            return failed(f"{compiler.name} against eager: {comparison.text()}", **measures)
    return passed(**measures)


def compilers(device: Device, dtype: str) -> tuple[list[Compiler], dict[str, str]]:
    """Return the backends of torch.compile that can run here, and for each of the others why not."""
    usable, left_out = [], {}
    reason = _why_no_inductor(device)
    if reason:
        left_out[INDUCTOR] = reason
    else:
        usable.append(Compiler(INDUCTOR))
    if device.kind != "cpu":
        left_out[OPENVINO] = f"OpenVINO's backend of torch.compile supports the CPU only here; the model is on {device}"
    elif find_spec("openvino") is None:
        left_out[OPENVINO] = "openvino is not installed"
    elif dtype not in _HINTS:
        left_out[OPENVINO] = f"its CPU does not compute at {dtype}"
    else:
        config = {"INFERENCE_PRECISION_HINT": _HINTS[dtype]}
        usable.append(Compiler(OPENVINO, {"device": "CPU", "config": config}))
    return usable, left_out


def run_compiled(
    model: Any, inputs: Mapping[str, torch.Tensor], compiler: Compiler
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Compile a model and run it twice: the second run is that of the compiled code alone.

    Models with a cache are compiled without it: it is no result of a single pass.

    Args:
        model: The transformers model; it is not changed.
        inputs: The inputs of `forward`.
        compiler: The backend.

    Returns:
        The outputs on the CPU, and facts: seconds of the first run, number of graphs and of breaks between them.

    Raises:
        NotCompiled: The backend failed, or no graph came of it.
    """
    import torch

    counters = compile_counters()
    torch.compiler.reset()
    counters.clear()
    arguments: dict[str, Any] = move_to(model, inputs)
    if "use_cache" in inspect.signature(model.forward).parameters:
        arguments["use_cache"] = False
    started = time.perf_counter()
    try:
        with _quiet_in_this_process(compiler), compile_refusals() as failures, torch.no_grad():
            compiled = torch.compile(model, backend=compiler.name, options=compiler.options or None)
            compiled(**arguments)
            seconds = time.perf_counter() - started
            outputs = flatten_outputs(compiled(**arguments))
        _require_evidence(compiler, counters["stats"]["unique_graphs"], failures)
        breaks = sum(counters["graph_break"].values())
        facts = {"graphs": counters["stats"]["unique_graphs"], "breaks": breaks, "first_run_seconds": round(seconds, 3)}
        return {name: leaf.cpu() for name, leaf in outputs.items()}, facts
    except NotCompiled:
        raise
    except Exception as error:
        raise NotCompiled(f"{type(error).__name__}: {str(error).strip()}") from error
    finally:
        torch.compiler.reset()


@contextlib.contextmanager
def _quiet_in_this_process(compiler: Compiler) -> Iterator[None]:
    """Compile in this process, without a pool of workers that outlives the check, and without warnings."""
    with warnings.catch_warnings(), compiling_in_process():
        warnings.simplefilter("ignore")
        if compiler.name == OPENVINO:
            import openvino.torch  # noqa: F401 - registers the backend

            clear_compiled_graphs()
        yield


def _require_evidence(compiler: Compiler, graphs: int, failures: list[str]) -> None:
    if not graphs:
        raise NotCompiled("torch.compile made no graph: the model ran as it is")
    if compiler.name == OPENVINO and (failures or not compiled_graphs()):
        what = "\n".join(failures) or "no reason reported"
        raise NotCompiled(f"OpenVINO ran {compiled_graphs()} graphs, and gave others back to torch: {what}")


def _why_no_inductor(device: Device) -> str:
    if device.kind == "cpu":
        reason = why_no_cpp_compiler()
        return f"it needs a C++ compiler: {reason}" if reason else ""
    return "" if device.kind == "mps" or has_triton() else "it needs triton"
