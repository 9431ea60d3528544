"""Check `canary`: one wrong weight fails parity on this device, so that a pass of parity means something."""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.checks.base import CheckContext, failed, passed, skipped
from pytest_hfaccel.checks.parity import compare_with_reference
from pytest_hfaccel.checks.perturbation import Perturbation, find_perturbation
from pytest_hfaccel.results import CheckOutcome

NAME = "canary"


def canary(context: CheckContext) -> CheckOutcome:
    """With one weight made wrong the device's outputs fail parity, and with the weight restored they pass again."""
    if not any(leaf.is_floating_point() for leaf in context.reference.outputs.values()):
        return skipped(NAME, "the outputs are integers, which parity compares exactly: there is no tolerance to doubt")
    chosen = find_perturbation(context)
    if chosen is None:
        return failed(NAME, "no single weight moves the reference's outputs visibly: parity could not notice an error")
    measures = _measures(chosen)
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


def _measures(chosen: Perturbation) -> dict[str, Any]:
    change = chosen.change
    return {
        "parameter": change.parameter,
        "index": change.index,
        "delta": change.delta,
        "reference_rel_l2": chosen.rel_l2,
        "margin": chosen.margin,
    }
