"""Check `canary`: what must fail parity on this cell does, so that a pass of parity means something.

One wrong weight must; and the precision twin should, which is the same model at the next lower precision: a tolerance
that lets it pass cannot tell whether the device computed at the precision that was asked for.
"""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.checks.base import CheckContext, failed, passed, skipped
from pytest_hfaccel.checks.memory_need import is_small
from pytest_hfaccel.checks.parity import compare_with_reference
from pytest_hfaccel.checks.perturbation import Perturbation, find_perturbation
from pytest_hfaccel.checks.planted import rounded
from pytest_hfaccel.core.errors import HfAccelError
from pytest_hfaccel.core.results import BLIND_TO, TWIN, CheckOutcome

NAME = "canary"


_NEXT_LOWER = {"fp32": "fp16", "fp16": "bf16", "bf16": "fp8"}
"""fp16 has 11 binary digits, bf16 8, fp8 (e4m3) 4. int8 has no twin: its row is no statement on arithmetic."""
_RUNS_ON_CPU = ("fp16", "bf16")


def canary(context: CheckContext) -> CheckOutcome:
    """With one weight made wrong the device's outputs fail parity, and with the weight restored they pass again.

    What the model gives at the next lower precision is held against the reference, too. Where it passes, the measure
    `blind_to` names that precision, and the run's summary counts the cell; it is no failure.
    """
    if not any(leaf.is_floating_point() for leaf in context.reference.outputs.values()):
        return skipped(NAME, "the outputs are integers, which parity compares exactly: there is no tolerance to doubt")
    twin = _precision_twin(context)
    chosen = find_perturbation(context)
    if chosen is None:
        reason = "no single weight moves the reference's outputs visibly: parity could not notice an error"
        return failed(NAME, reason, **twin)
    measures = {**_measures(chosen), **twin}
    inputs = context.sample.forward
    with context.loaded.perturbed(chosen.change) as wrong:
        alarm = compare_with_reference(context, wrong.forward(inputs))
    measures["rel_l2"] = alarm.measures().get("rel_l2")
    if alarm.ok:
        change = chosen.change
        return failed(
            NAME,
            f"{change.parameter}[{change.index}] is off by {change.delta:.3g}, which moves the reference by rel-L2 "
            f"{chosen.rel_l2:.3g}, {chosen.margin:.1f}x what passes; yet the device's outputs passed parity",
            **measures,
        )
    restored = compare_with_reference(context, context.loaded.forward(inputs))
    if not restored.ok:
        return failed(NAME, f"with the weight restored the outputs do not pass parity\n{restored.text()}", **measures)
    return passed(NAME, **measures)


def _precision_twin(context: CheckContext) -> dict[str, Any]:
    """Compare the model at the next lower precision with the reference, by the rules of the cell.

    A small model is run at that precision on the CPU. The outputs of the reference are rounded to it instead where the
    model is large, where torch's CPU cannot run it so, and for fp8. Rounding loses less than computing, so that a cell
    may be called blind that a real run at that precision would not pass.
    """
    lower = _NEXT_LOWER.get(context.cell.dtype)
    if lower is None:
        return {}
    how, comparison = f"run in {lower} on the CPU", None
    if lower in _RUNS_ON_CPU and is_small(context.source):
        try:
            with context.on_cpu(lower) as loaded:
                comparison = compare_with_reference(context, loaded.forward(context.sample.forward))
        except (HfAccelError, RuntimeError, NotImplementedError):
            comparison = None
    if comparison is None:
        how = f"outputs rounded to {lower}"
        comparison = compare_with_reference(context, rounded(context.reference.outputs, lower))
    twin = {TWIN: how, "twin_rel_l2": comparison.measures().get("rel_l2")}
    return {**twin, BLIND_TO: lower} if comparison.ok else twin


def _measures(chosen: Perturbation) -> dict[str, Any]:
    change = chosen.change
    return {
        "parameter": change.parameter,
        "index": change.index,
        "delta": change.delta,
        "reference_rel_l2": chosen.rel_l2,
        "margin": chosen.margin,
    }
