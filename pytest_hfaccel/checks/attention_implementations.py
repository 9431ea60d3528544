"""Check `attention`: transformers' implementations of attention give the same outputs. Only with `--hf-attention`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.backends.base import flatten_outputs
from pytest_hfaccel.checks.base import (
    CheckContext,
    built_in,
    failed,
    is_torch_cell,
    move_to,
    passed,
    private_copy,
    skipped,
)
from pytest_hfaccel.core.devices import GPU_KINDS
from pytest_hfaccel.core.errors import LoadError
from pytest_hfaccel.core.results import CheckOutcome, Stage
from pytest_hfaccel.numerics.compare import LeafDifference, compare, difference
from pytest_hfaccel.numerics.positions import real_positions
from pytest_hfaccel.numerics.tolerances import tolerance_of
from pytest_hfaccel.upstream.transformers import attention_implementation, can_exchange_attention, supports_attention

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]

EAGER, SDPA, FLASH, FLEX = "eager", "sdpa", "flash_attention_2", "flex_attention"
_OTHERS = (SDPA, FLASH, FLEX)
_FLASH_DTYPES = frozenset({"fp16", "bf16"})


@built_in("attention", applies=is_torch_cell, option="attention")
def attention(context: CheckContext) -> CheckOutcome:
    """Attention written out (eager), torch's fused one, and flash and flex attention where they run, agree."""
    implementations, left_out = _choose_implementations(context)
    measures: dict[str, Any] = {"left_out": left_out}
    if not implementations:
        return skipped("; ".join(f"{name}: {reason}" for name, reason in left_out.items()), **measures)
    eager, fused_in_eager = _run_with(context, EAGER, context.sample.forward)
    measures["fused_calls"] = {EAGER: fused_in_eager}  # X-CLIP keeps one in a part that transformers does not reach
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
                tolerance_of(context.cell),
                # Two implementations cannot agree better than the one written out is right: in 16 bits it rounds more.
                lambda: _errors_of(eager, context),
            )
            measures.setdefault(implementation, {})[name] = comparison.measures().get("rel_l2")
            if not comparison.ok:
                return failed(f"{implementation} against {EAGER}, {name} inputs: {comparison.text()}", **measures)
            if implementation == SDPA and fused <= fused_in_eager:
                reason = f"torch's fused attention was asked for, and called {fused} times; by eager, {fused_in_eager}"
                return failed(reason, stage=Stage.RUN, **measures)
    return passed(**measures)


def _choose_implementations(context: CheckContext) -> tuple[list[str], dict[str, str]]:
    """Return the implementations to compare with eager, and for each of the others why it is left out."""
    model = context.loaded.pipeline_model()
    name = type(model).__name__
    if not can_exchange_attention(model):
        return [], dict.fromkeys(_OTHERS, f"{name} has its own attention, which cannot be exchanged")
    reasons = {one: "" if supports_attention(model, one) else f"{name} does not support it" for one in _OTHERS}
    reasons[FLASH] = reasons[FLASH] or _why_no_flash(context)
    if context.cell.device.kind not in GPU_KINDS:
        reasons[FLEX] = reasons[FLEX] or "on this device torch has no fused kernel for it"
    return [one for one in reasons if not reasons[one]], {one: reason for one, reason in reasons.items() if reason}


def _why_no_flash(context: CheckContext) -> str:
    from transformers.utils import is_flash_attn_2_available

    if context.cell.device.kind not in GPU_KINDS or not is_flash_attn_2_available():
        return "the package flash-attn is not installed, or not for this device"
    return "" if context.cell.dtype in _FLASH_DTYPES else f"it runs at {' and '.join(sorted(_FLASH_DTYPES))} only"


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


def _errors_of(eager: Tensors, context: CheckContext) -> dict[str, LeafDifference]:
    """How far eager attention at this dtype is from the reference at real positions, by leaf."""
    expected = context.reference.real_outputs
    actual = real_positions(eager, context.sample.forward)
    return {name: difference(name, leaf, expected[name]) for name, leaf in actual.items() if name in expected}
