"""Check `canary`: what must fail parity on this cell does, so that a pass of parity means something.

One wrong weight must; and the precision twin should, which is the same model at the next lower precision: a tolerance
that lets it pass cannot tell whether the device computed at the precision that was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checks.base import CheckContext, built_in, failed, passed, skipped
from pytest_hfaccel.checks.outputs import compare_with_reference, limits_of
from pytest_hfaccel.checks.planted import rounded
from pytest_hfaccel.core.errors import HfAccelError
from pytest_hfaccel.core.results import BLIND_TO, TWIN, CheckOutcome
from pytest_hfaccel.numerics.perturbation import Perturbation, find_perturbation, find_power
from pytest_hfaccel.numerics.reference import is_small

if TYPE_CHECKING:
    from pytest_hfaccel.backends.base import WeightChange

_NEXT_LOWER = {"fp32": "fp16", "fp16": "bf16", "bf16": "fp8"}
"""fp16 has 11 binary digits, bf16 8, fp8 (e4m3) 4. int8 has no twin: its row is no statement on arithmetic."""
_RUNS_ON_CPU = ("fp16", "bf16")


@built_in("canary")
def canary(context: CheckContext) -> CheckOutcome:
    """With one weight made wrong the device's outputs fail parity, and with the weight restored they pass again.

    The outputs at the next lower precision are compared with the reference, too. Where they pass, the measure
    `blind_to` names that precision, and the run's summary counts the cell; it is no failure. With `--hf-power` the
    measure `power` says how small a fault of that weight may be for the cell to notice it.
    """
    if not any(leaf.is_floating_point() for leaf in context.reference.outputs.values()):
        return skipped("the outputs are integers, which parity compares exactly: there is no tolerance to doubt")
    measures = _precision_twin(context)
    inputs = context.sample.forward
    unchanged = compare_with_reference(context, context.outputs)
    if unchanged.is_refused:  # no search then: it takes longest where nothing is noticed
        return failed(f"without a wrong weight the outputs do not pass parity either\n{unchanged.text()}", **measures)
    unjudged = unchanged.unjudged  # says nothing with a wrong weight either
    limits = {name: limit for name, limit in limits_of(context).items() if name not in unjudged}
    if unjudged:
        measures["not_judged"] = unjudged
    if not limits:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in unjudged.items())
        return skipped(f"no output can be judged on the sample: {reasons}", **measures)
    perturbation = find_perturbation(context.reference, context.loaded, inputs, limits)
    if perturbation is None:
        reason = "no single weight moves the reference's outputs visibly: parity could not notice an error"
        return failed(reason, **measures)
    change = perturbation.change
    measures = {
        "parameter": change.parameter,
        "index": change.index,
        "delta": change.delta,
        "reference_rel_l2": perturbation.rel_l2,
        "margin": perturbation.margin,
        **measures,
    }
    with context.loaded.perturbed(change) as wrong:
        alarm = compare_with_reference(context, wrong.forward(inputs))
    measures["rel_l2"] = alarm.measures().get("rel_l2")
    if not alarm.is_refused:
        moved = f"rel-L2 {perturbation.rel_l2:.3g}, {perturbation.margin:.1f}x what passes"
        return failed(
            f"{change.parameter}[{change.index}] is off by {change.delta:.3g}, which moves the reference by {moved}; "
            "yet the device's outputs passed parity",
            **measures,
        )
    restored = compare_with_reference(context, context.loaded.forward(inputs))
    if restored.is_refused:
        return failed(f"with the weight restored the outputs do not pass parity\n{restored.text()}", **measures)
    if context.budget_request.power:
        measures["power"] = _measure_power(context, perturbation, limits)
    return passed(**measures)


def _measure_power(context: CheckContext, perturbation: Perturbation, limits: Mapping[str, float]) -> dict[str, Any]:
    """Find the smallest fault of the weight that the cell notices; its size is what it does to the reference."""

    def is_noticed(change: WeightChange) -> bool:
        with context.loaded.perturbed(change) as wrong:
            return compare_with_reference(context, wrong.forward(context.sample.forward)).is_refused

    found = find_power(context.reference, perturbation, limits, is_noticed)
    noticed, missed = found.noticed, found.missed
    measures = {
        "rel_l2": noticed.rel_l2,
        "leaf": noticed.leaf,
        "delta": noticed.change.delta,
        "missed_rel_l2": missed.rel_l2 if missed else None,
        "passes": found.passes,
    }
    if context.budget_request.when in ("report", "enforce"):
        cost = context.reference.budget_of(context.cell.dtype).costs.get(noticed.leaf)
        measures["of_budget"] = float(f"{noticed.rel_l2 / cost:.3g}") if cost else None
    return {name: value for name, value in measures.items() if value is not None}


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
    return twin if comparison.is_refused else {**twin, BLIND_TO: lower}
