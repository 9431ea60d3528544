"""Traces a transformers model and has a runtime convert the trace, with transformers' own exporters.

What is shared is all that decides the trace: how the model is prepared, which axes stay open, which inputs are
constants or computed, and what is tried when the first way fails. The trace itself is not shared: each exporter of
transformers calls `torch.export` inside, under patches of its own, and takes no `ExportedProgram`. transformers 5.23
replaces 48 functions of torch and of models for OpenVINO and 33 for ONNX, on top of 41 that all exporters replace.

It was tried: traced under the patches for ONNX, and handed to the inner functions of the exporter for OpenVINO, tiny
BERT, GPT-2, ViT and CLIP are as exact as ever (6e-7), but T5 is wrong without an error (logits off by 7e-3). And it
saves little: the trace is 35 to 40 % of a conversion, and to read a saved one takes a quarter to two fifths of that.
What is cached is therefore the conversion, per format (`conversions.py`): all runtimes of ONNX share one.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from pytest_hfaccel.backends.exported.inputs import (
    FOLDED,
    GEOMETRY,
    computed_inputs,
    folded_geometry,
    varying_axes,
    without_geometry,
)
from pytest_hfaccel.backends.generation import neutral_settings
from pytest_hfaccel.core.errors import LoadError, OutOfMemory, error_line, is_out_of_memory
from pytest_hfaccel.upstream import TORCHAO, errors_only
from pytest_hfaccel.upstream.torch import no_printed_traces, no_stacks_in_traces
from pytest_hfaccel.upstream.transformers import decoding_step, traced_names, traced_tensors

if TYPE_CHECKING:
    from pytest_hfaccel.backends.exported import ExportedRuntime

    Exported = tuple[Any, str, list[str]]

_FOLDED = "folded"

# The exporter patches torch and the model's class while it traces.
_ONE_AT_A_TIME = threading.Lock()

_CHATTY = (
    "transformers",
    "torch.export",
    "torch._export",
    "torch.fx.experimental",
    "torch._dynamo",
    "torch._inductor",
    "torch.onnx",
    "onnxscript",
    "onnx_ir",
    "executorch",
    *TORCHAO,
)


def export_model(runtime: ExportedRuntime, model: Any, inputs: Mapping[str, torch.Tensor], *, static: bool) -> Exported:
    """Trace and convert a model.

    Several ways are tried, the first that works counts: only the axes that vary between calls are kept open
    (`varying`), every axis is (`all`), none is (`static`), and the sizes of images are constants besides (`folded`).

    Args:
        runtime: Converts.
        model: The transformers model on the CPU in fp32.
        inputs: Example inputs of `forward`.
        static: The device takes static shapes only: neither of the first two ways. They are left out, too, for a model
            some of whose inputs are computed of others before tracing (see `computed_inputs`).

    Returns:
        transformers' `ExportedModel`, the way that worked, and one line per way that did not.

    Raises:
        LoadError: No way worked.
        OutOfMemory: Memory ran out.
    """
    _switch_off_caches(model.config)
    problems: dict[str, str] = {}
    first: Exception | None = None
    with tracing():
        computed = computed_inputs(model, inputs)
        for name, options in _ways(inputs, static or bool(computed)).items():
            try:
                if name == _FOLDED:
                    with folded_geometry(model, inputs):
                        rest = without_geometry({**inputs, **computed})
                        exported = runtime.convert(model, rest, options, stateful=False)
                else:
                    exported = runtime.convert(model, dict(inputs), options, stateful=False)
            except Exception as error:
                if is_out_of_memory(error):
                    raise OutOfMemory(f"memory ran out while converting: {error}", stage="convert") from error
                first = first or error
                problems[name] = error_line(said_by_exporter(error))
                continue
            _require_feedable(exported, inputs, computed)
            return exported, name, [f"{way}: {problem}" for way, problem in problems.items()]
    raise LoadError(
        f"{type(model).__name__} cannot be converted to {runtime.title}. Tried: {_grouped(problems)}", stage="convert"
    ) from first


def export_decoder(runtime: ExportedRuntime, model: Any, prompts: Mapping[str, torch.Tensor]) -> Exported:
    """Trace and convert a decoding step that keeps the key-value cache as state inside the graph.

    Args:
        runtime: Converts.
        model: A decoder-only transformers model on the CPU in fp32.
        prompts: `input_ids` and `attention_mask` to generate a few tokens from, at least 2 x 2.

    Returns:
        As `export_model`.

    Raises:
        LoadError: The step cannot be converted.
    """
    with tracing(), neutral_settings(model, use_cache=True):
        try:
            step, inputs = decoding_step(model, prompts)
            # A class that keeps no cache (GPT-1) takes the prompt again in every step.
            if inputs["input_ids"].shape[1] > prompts["input_ids"].shape[1]:
                raise LoadError(f"{type(model).__name__} hands no cache from one step to the next.", stage="convert")
            exported = runtime.convert(step, inputs, {"dynamic": True}, stateful=True)
        except LoadError:
            raise
        except Exception as error:
            raise LoadError(
                f"{type(model).__name__} cannot be converted with a cache: {type(error).__name__}: {error}",
                stage="convert",
            ) from error
    return exported, "all", []


def _ways(inputs: Mapping[str, torch.Tensor], static: bool) -> dict[str, dict[str, Any]]:
    folded: dict[str, dict[str, Any]] = {_FOLDED: {}} if GEOMETRY & inputs.keys() else {}
    if static:
        return {"static": {}, **folded}
    auto = torch.export.Dim.AUTO
    axes = {
        # The exporter turns these into lists of tuples of numbers, none of which is an axis.
        name: [(None,) * tensor.shape[1]] * tensor.shape[0]
        if name in FOLDED
        else dict.fromkeys(varying_axes(name, tensor), auto)
        for name, tensor in inputs.items()
    }
    return {"varying": {"dynamic_shapes": axes}, "all": {"dynamic": True}, "static": {}, **folded}


def said_by_exporter(error: BaseException) -> BaseException:
    """Return what torch's exporter to ONNX met; the exception around it tells only which of its steps failed."""
    while type(error).__module__.startswith("torch.onnx.") and error.__cause__ is not None:
        error = error.__cause__
    return error


def _grouped(problems: Mapping[str, str]) -> str:
    """Return the ways that failed on one line, those with the same problem together."""
    ways: dict[str, list[str]] = {}
    for way, problem in problems.items():
        ways.setdefault(problem, []).append(way)
    return "; ".join(f"{', '.join(names)}: {problem}" for problem, names in ways.items())


def _switch_off_caches(config: Any) -> None:
    """Set `use_cache` to false on a config and every config in it, so that no cache becomes an output of the graph."""
    from transformers import PretrainedConfig

    if hasattr(config, "use_cache"):
        config.use_cache = False
    for value in list(vars(config).values()):
        if isinstance(value, PretrainedConfig):
            _switch_off_caches(value)


def _require_feedable(exported: Any, inputs: Mapping[str, torch.Tensor], computed: Mapping[str, Any]) -> None:
    """Refuse a graph with inputs that the exporter made in a way that nobody can repeat for later calls."""
    (component,) = exported.components.values()
    tensors = traced_tensors(component.metadata)
    names = traced_names(component.metadata)
    added = [name for name in tensors if name not in inputs and name not in computed]
    folded = [name for name in inputs if name in names and name not in tensors and name not in FOLDED]
    if added or folded:
        raise LoadError(
            f"{component.metadata.architecture}: transformers' exporter computes {', '.join(added + folded)} outside "
            "the graph, from values of the example inputs. This backend cannot do so for other inputs.",
            stage="convert",
        )


@contextmanager
def tracing() -> Iterator[None]:
    """Trace alone in this process, without remarks, without the garbage collector, without a stack for each node.

    The tracer's remarks are about its own work, and in a test run a warning may be an error. It makes millions of
    objects, and each pass of the collector goes over all of transformers: in a fresh process that is a few percent of
    a conversion. The stacks, which say where in the model's code a node comes from, are read by nobody here.
    """
    with _ONE_AT_A_TIME, errors_only(*_CHATTY):
        collects = gc.isenabled()
        gc.disable()
        try:
            with no_stacks_in_traces(), no_printed_traces():
                yield
        finally:
            if collects:
                gc.enable()
