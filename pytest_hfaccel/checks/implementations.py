"""Checks `attention` and `compile`: other ways to run a model of torch give the same outputs.

The implementations of attention that transformers has, only with `--hf-attention`; the backends of torch.compile, only
with `--hf-compile`.
"""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.backends.base import flatten_outputs
from pytest_hfaccel.checks.base import (
    CheckContext,
    built_in,
    failed,
    is_eager_cell,
    move_to,
    passed,
    private_copy,
    skipped,
)
from pytest_hfaccel.checks.outputs import compare_on_cell
from pytest_hfaccel.core.devices import COMPILERS, GPU_KINDS
from pytest_hfaccel.core.errors import LoadError
from pytest_hfaccel.core.results import CheckOutcome, Stage
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.numerics.compare import compare, difference
from pytest_hfaccel.numerics.positions import real_positions
from pytest_hfaccel.numerics.tolerances import tolerance_of
from pytest_hfaccel.upstream.openvino import clear_compiled_graphs, compile_refusals, compiled_graphs
from pytest_hfaccel.upstream.torch import compile_counters, compile_options, compiling_in_process, why_not_compiled
from pytest_hfaccel.upstream.transformers import attention_implementation, can_exchange_attention, supports_attention

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]

EAGER, SDPA, FLASH, FLEX = "eager", "sdpa", "flash_attention_2", "flex_attention"
_OTHERS = (SDPA, FLASH, FLEX)
_FLASH_DTYPES = frozenset({"fp16", "bf16"})


def _skipped(left_out: dict[str, str]) -> CheckOutcome:
    return skipped("; ".join(f"{name}: {reason}" for name, reason in left_out.items()), left_out=left_out)


@built_in("attention", applies=is_eager_cell, option="attention")
def attention(context: CheckContext) -> CheckOutcome:
    """Attention written out (eager), torch's fused one, and flash and flex attention where they run, agree."""
    left_out = _attention_left_out(context)
    implementations = [one for one in _OTHERS if one not in left_out]
    if not implementations:
        return _skipped(left_out)
    tolerance, reference = tolerance_of(context.cell), context.reference.real_outputs
    eager, fused_in_eager = _run_with(context, EAGER, context.sample.forward)
    # Two implementations cannot agree better than the one written out is right: in 16 bits it rounds more.
    written_out = real_positions(eager, context.sample.forward)
    # X-CLIP keeps a fused one in a part that transformers does not reach.
    measures: dict[str, Any] = {"left_out": left_out, "fused_calls": {EAGER: fused_in_eager}}
    for name, inputs in {"plain": context.sample.forward, "padded": context.sample.padded}.items():
        if inputs is None:
            continue
        expected = eager if name == "plain" else _run_with(context, EAGER, inputs)[0]
        for implementation in implementations:
            outputs, fused = _run_with(context, implementation, inputs)
            measures["fused_calls"][implementation] = fused
            comparison = compare(
                real_positions(outputs, inputs),
                real_positions(expected, inputs),
                tolerance,
                lambda: {k: difference(k, leaf, reference[k]) for k, leaf in written_out.items() if k in reference},
            )
            measures.setdefault(implementation, {})[name] = comparison.measures().get("rel_l2")
            if not comparison.ok:
                return failed(f"{implementation} against {EAGER}, {name} inputs: {comparison.text()}", **measures)
            if implementation == SDPA and fused <= fused_in_eager:
                reason = f"torch's fused attention was asked for, and called {fused} times; by eager, {fused_in_eager}"
                return failed(reason, stage=Stage.RUN, **measures)
    return passed(**measures)


def _attention_left_out(context: CheckContext) -> dict[str, str]:
    """Return the implementations that are not compared with eager, and why not."""
    from transformers.utils import is_flash_attn_2_available

    model = context.loaded.pipeline_model()
    name = type(model).__name__
    if not can_exchange_attention(model):
        return dict.fromkeys(_OTHERS, f"{name} has its own attention, which cannot be exchanged")
    left_out = {one: f"{name} does not support it" for one in _OTHERS if not supports_attention(model, one)}
    on_gpu = context.cell.device.kind in GPU_KINDS
    if not on_gpu or not is_flash_attn_2_available():
        left_out.setdefault(FLASH, "the package flash-attn is not installed, or not for this device")
    elif context.cell.dtype not in _FLASH_DTYPES:
        left_out.setdefault(FLASH, f"it runs at {' and '.join(sorted(_FLASH_DTYPES))} only")
    if not on_gpu:
        left_out.setdefault(FLEX, "on this device torch has no fused kernel for it")
    return left_out


def _run_with(context: CheckContext, implementation: str, inputs: Tensors) -> tuple[dict[str, torch.Tensor], int]:
    """Run a copy of the model with an implementation.

    Returns:
        The outputs on the CPU, and the calls of torch's fused attention that they took.

    Raises:
        LoadError: The model keeps another implementation.
    """
    import torch

    model = private_copy(context)
    model.set_attn_implementation(_by_submodel(model, implementation))
    with torch.no_grad(), _counted_sdpa_calls() as calls:
        outputs = flatten_outputs(model(**move_to(model, inputs)))
    chosen = attention_implementation(model.config)
    if chosen != implementation:
        raise LoadError(
            f"{type(model).__name__}: asked for {implementation}, but its config says {chosen}", stage="run"
        )
    return {name: leaf.cpu() for name, leaf in outputs.items()}, len(calls)


def _by_submodel(model: Any, implementation: str) -> dict[str, str]:
    """Return what each part of the model is to use; parts without attention (DETR's ResNet) refuse any but eager."""
    from transformers import PreTrainedModel

    chosen = {"": implementation}
    parts = {id(part.config): part for part in model.modules() if isinstance(part, PreTrainedModel)}
    for key in model.config.sub_configs:
        part = parts.get(id(getattr(model.config, key, None)))
        supported = implementation == EAGER or part is None or supports_attention(part, implementation)
        chosen[key] = implementation if supported else EAGER
    return chosen


@contextmanager
def _counted_sdpa_calls() -> Iterator[list[str]]:
    """Give a list that gets an entry with every call of torch's fused attention."""
    from torch.nn.functional import scaled_dot_product_attention
    from torch.overrides import TorchFunctionMode

    calls: list[str] = []

    class Counter(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is scaled_dot_product_attention:
                calls.append(func.__name__)
            return func(*args, **(kwargs or {}))

    with Counter():
        yield calls


OPENVINO = "openvino"

Compilers = dict[str, dict[str, Any]]
"""Backend of torch.compile -> its options."""


class NotCompiled(Exception):
    """Compilation failed, or quietly did not happen."""


@built_in("compile", applies=is_eager_cell, option="compile")
def compilation(context: CheckContext) -> CheckOutcome:
    """With torch.compile, by its default backend and by OpenVINO's where present, the outputs are those without."""
    usable, left_out = compilers(context.cell.device, context.cell.dtype)
    if not usable:
        return _skipped(left_out)
    measures: dict[str, Any] = {"left_out": left_out}
    expected = context.outputs
    for name, options in usable.items():
        try:
            outputs, facts = run_compiled(context.loaded.pipeline_model(), context.sample.forward, name, options)
        except NotCompiled as error:
            return failed(f"{name}: {error}", stage=Stage.COMPILE, **measures)
        comparison = compare_on_cell(context, outputs, expected)
        measures[name] = {"rel_l2": comparison.measures().get("rel_l2"), **facts}
        if not comparison.ok:
            return failed(f"{name} against eager: {comparison.text()}", **measures)
    return passed(**measures)


def compilers(device: Device, dtype: str) -> tuple[Compilers, dict[str, str]]:
    """Return the backends of torch.compile that can run here, and for each of the others why not."""
    reasons = {name: why_not_compiled(device, dtype, name) for name in COMPILERS}
    usable = {name: compile_options(name) for name, reason in reasons.items() if not reason}
    return usable, {name: reason for name, reason in reasons.items() if reason}


def run_compiled(
    model: Any, inputs: Tensors, backend: str, options: Mapping[str, Any]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Compile a model and run it twice: the second run is that of the compiled code alone.

    Models with a cache are compiled without it: it is no result of a single pass.

    Args:
        model: The transformers model; it is not changed.
        inputs: The inputs of `forward`.
        backend: The backend of torch.compile.
        options: Its options.

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
        # In this process, without a pool of workers that outlives the check.
        with warnings.catch_warnings(), compiling_in_process(), compile_refusals() as failures, torch.no_grad():
            warnings.simplefilter("ignore")
            if backend == OPENVINO:
                import openvino.torch  # noqa: F401 - registers the backend

                clear_compiled_graphs()
            compiled = torch.compile(model, backend=backend, options=dict(options) or None)
            compiled(**arguments)
            seconds = time.perf_counter() - started
            outputs = flatten_outputs(compiled(**arguments))
        graphs = counters["stats"]["unique_graphs"]
        if not graphs:
            raise NotCompiled("torch.compile made no graph: the model ran as it is")
        if backend == OPENVINO and (failures or not compiled_graphs()):
            what = "\n".join(failures) or "no reason reported"
            raise NotCompiled(f"OpenVINO ran {compiled_graphs()} graphs, and gave others back to torch: {what}")
        breaks = sum(counters["graph_break"].values())
        facts = {"graphs": graphs, "breaks": breaks, "first_run_seconds": round(seconds, 3)}
        return {name: leaf.cpu() for name, leaf in outputs.items()}, facts
    except NotCompiled:
        raise
    except Exception as error:
        raise NotCompiled(f"{type(error).__name__}: {str(error).strip()}") from error
    finally:
        torch.compiler.reset()
