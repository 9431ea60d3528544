"""Check `attention`: every implementation of attention gives the same outputs. Only with `--hf-attention`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checks.base import CheckContext, failed, passed, skipped
from pytest_hfaccel.checks.compare import compare
from pytest_hfaccel.checks.leaf import LeafDifference, difference
from pytest_hfaccel.checks.positions import real_positions
from pytest_hfaccel.checks.tolerances import tolerance_of
from pytest_hfaccel.core.results import CheckOutcome, Stage

if TYPE_CHECKING:
    import torch

    Tensors = Mapping[str, torch.Tensor]

NAME = "attention"
OPTION = "attention"


def attention(context: CheckContext) -> CheckOutcome:
    """Attention written out (eager), torch's fused one, and flash and flex attention where they run, agree."""
    from pytest_hfaccel.checks.attending import EAGER, SDPA, implementations, ran_with

    found, left_out = implementations(context)
    measures: dict[str, Any] = {"left_out": left_out}
    if not found:
        return skipped(NAME, "; ".join(f"{name}: {why}" for name, why in left_out.items()), **measures)
    eager, fused_in_eager = ran_with(context, EAGER, context.sample.forward)
    measures["fused_calls"] = {EAGER: fused_in_eager}  # X-CLIP keeps one in a part that transformers does not reach
    for name, inputs in {"plain": context.sample.forward, "padded": context.sample.padded}.items():
        if inputs is None:
            continue
        expected = eager if name == "plain" else ran_with(context, EAGER, inputs)[0]
        for implementation in found:
            outputs, fused = ran_with(context, implementation, inputs)
            measures["fused_calls"][implementation] = fused
            comparison = compare(
                real_positions(outputs, inputs),
                real_positions(expected, inputs),
                tolerance_of(context.cell),
                # Two implementations cannot agree better than the one written out is right: in 16 bits it rounds more.
                lambda: _errors(eager, context),
            )
            measures.setdefault(implementation, {})[name] = comparison.measures().get("rel_l2")
            if not comparison.ok:
                where = f"{implementation} against {EAGER}, {name} inputs"
                return failed(NAME, f"{where}: {comparison.text()}", **measures)
            if implementation == SDPA and fused <= fused_in_eager:
                reason = f"torch's fused attention was asked for, and called {fused} times; by eager, {fused_in_eager}"
                return failed(NAME, reason, stage=Stage.RUN, **measures)
    return passed(NAME, **measures)


def _errors(eager: Tensors, context: CheckContext) -> dict[str, LeafDifference]:
    """How far eager attention at this dtype is from the reference at real positions, by leaf."""
    expected = context.reference.real_outputs
    found = real_positions(eager, context.sample.forward)
    return {name: difference(name, leaf, expected[name]) for name, leaf in found.items() if name in expected}
