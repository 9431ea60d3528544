"""Checks `forward`, `parity` and `determinism`: the outputs are numbers, those of the reference, and stay the same."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.backends.base import flatten_outputs
from pytest_hfaccel.checks.base import CheckContext, built_in, failed, passed, passed_unless, skipped
from pytest_hfaccel.core.errors import HfAccelError, first_line
from pytest_hfaccel.core.results import Cause, CheckOutcome, Stage
from pytest_hfaccel.core.tasks import generates
from pytest_hfaccel.numerics.budgets import ALLOWED_FACTOR, ALLOWED_ON_AVERAGE, FURTHER_INPUTS, LEAST_INPUTS_OF_AVERAGE
from pytest_hfaccel.numerics.compare import Comparison, compare, largest_passing
from pytest_hfaccel.numerics.positions import real_positions
from pytest_hfaccel.numerics.sampling import CONFIDENCE, bound_of_failures, compare_tokens
from pytest_hfaccel.numerics.tolerances import Tolerance, tolerance_of

if TYPE_CHECKING:
    import torch

    from pytest_hfaccel.backends.base import LoadedModel
    from pytest_hfaccel.numerics.reference import Reference

    Tensors = Mapping[str, torch.Tensor]


_FILL = 1e8
"""A finite reference beyond this means "never"; the device may turn it into an infinity of the same sign."""

INFINITE_BY_DESIGN: tuple[tuple[str, str, str], ...] = (
    ("*GroundingDino*", "*logits", "-inf where max_text_len goes beyond the text, +inf for proposals at the border"),
    ("*GroundingDino*", "enc_outputs_class", "-inf where max_text_len goes beyond the text"),
    ("DeformableDetr*", "enc_outputs_coord_logits", "+inf for proposals at the border of the image, with two_stage"),
)
"""Outputs that transformers' own code fills with infinities: class and leaf (wildcards), and what they mean there.

A NaN is never meant. Everywhere else an infinity is an overflow.
"""


@built_in("forward", stage=Stage.RUN)
def forward(context: CheckContext) -> CheckOutcome:
    """The outputs have the reference's names, shapes and kinds of dtype, and are finite, as the reference's are.

    Infinities pass where `INFINITE_BY_DESIGN` names them, and where the reference has a fill value beyond the range of
    the device's dtype. For the others the reason names the first module that made one: of the device's own model where
    that is a torch module, else of the reference.
    """
    outputs = context.outputs
    reference = context.reference.outputs
    problems = [f"missing output {name!r}" for name in reference if name not in outputs]
    problems += [f"unexpected output {name!r}" for name in outputs if name not in reference]
    both = [name for name in outputs if name in reference]
    problems += [f"{name}: {problem}" for name in both if (problem := _other_kind(outputs[name], reference[name]))]
    measures: dict[str, Any] = {"outputs": {name: f"{_kind(leaf)}{list(leaf.shape)}" for name, leaf in outputs.items()}}
    if not problems:
        broken = _non_finite_leaves(context)
        problems += [f"{name}: {problem}" for name, (problem, _) in broken.items()]
        if broken:
            origin = _origin(context, at_device=any(on_device for _, on_device in broken.values()))
            problems.append(origin)
            measures["first_non_finite"] = origin
    return passed_unless("\n".join(problems), stage=Stage.RUN, **measures)


def _other_kind(leaf: torch.Tensor, reference: torch.Tensor) -> str:
    if leaf.shape != reference.shape:
        return f"shape {tuple(leaf.shape)}, the reference has {tuple(reference.shape)}"
    # The reference is in fp64, and a runtime may return fp32 whatever it computes in: compare the kind of number.
    if (leaf.is_floating_point(), leaf.is_complex()) != (reference.is_floating_point(), reference.is_complex()):
        return f"dtype {_kind(leaf)}, the reference has {_kind(reference)}"
    return ""


def _kind(leaf: torch.Tensor) -> str:
    return str(leaf.dtype).removeprefix("torch.")


def _non_finite_leaves(context: CheckContext) -> dict[str, tuple[str, bool]]:
    """Return by output what is wrong with its numbers, and whether it is the device's or the reference's only."""
    architecture = context.cell.model.architecture
    broken = {}
    for name, reference in context.reference.outputs.items():
        leaf = context.outputs[name]
        by_design = any(fnmatchcase(architecture, a) and fnmatchcase(name, b) for a, b, _ in INFINITE_BY_DESIGN)
        here, there = _count(leaf, reference, by_design), _count(reference, reference, by_design)
        if here:
            also = ", in the reference as well" if there else ""
            broken[name] = f"{here} of {leaf.numel()} values are NaN or infinite{also}", True
        elif there:
            broken[name] = f"{there} of {leaf.numel()} values of the reference are NaN or infinite", False
    return broken


def _count(leaf: torch.Tensor, reference: torch.Tensor, by_design: bool) -> int:
    """Count the values that are NaN or infinite and neither a fill value of the reference nor meant to be."""
    if not leaf.is_floating_point():
        return int((~leaf.isfinite()).sum())
    meant = leaf.isinf() & (leaf.sign() == reference.sign()) & (reference.abs() >= _FILL)
    if not by_design:
        meant &= reference.isfinite()
    return int((~leaf.isfinite() & ~meant).sum())


def _origin(context: CheckContext, at_device: bool) -> str:
    """Say where a number that is not finite comes from, and on which model that was seen."""
    device = context.cell.device
    if at_device and device.traits.torch_module and not device.compiler:
        where, module, note = f"the model on {device}", _first_module(context.loaded, context), ""
    else:
        with context.reference.model() as loaded:
            where, module = "the reference model on the CPU", _first_module(loaded, context)
        note = f" (the modules of {device.kind} cannot be observed)" if at_device else ""
    if module:
        return f"the first module of {where} that makes one is {module}{note}"
    return f"no module of {where} makes one{note}"


def _first_module(loaded: LoadedModel, context: CheckContext) -> str:
    """Run a torch model; return the first module, in the order in which they finish, whose outputs are not finite."""
    broken: list[str] = []

    def watch(name: str, module: Any) -> Any:
        def note(_module: Any, _arguments: Any, output: Any) -> None:
            if not broken and not all(bool(leaf.isfinite().all()) for leaf in flatten_outputs(output).values()):
                broken.append(f"{name or 'the model itself'} ({type(module).__name__}{_broken_weights(module)})")

        return module.register_forward_hook(note)

    handles = [watch(name, module) for name, module in loaded.pipeline_model().named_modules()]
    try:
        loaded.forward(context.sample.forward)
    finally:
        for handle in handles:
            handle.remove()
    return broken[0] if broken else ""


def _broken_weights(module: Any) -> str:
    counts = {name: int((~weight.isfinite()).sum()) for name, weight in module.named_parameters(recurse=False)}
    return "".join(f", {count} values of its {name} are not finite" for name, count in counts.items() if count)


_LIMITS = ("rel_l2", "rtol", "atol", "cosine", "top1")


@built_in("parity")
def parity(context: CheckContext) -> CheckOutcome:
    """The outputs equal those of the same weights on the CPU in fp64, within the tolerance of the dtype.

    Positions of padding are left out. With `--hf-budget report` the measures have the error in multiples of what
    rounding to this dtype must cost the model on this input, by emulation; `enforce` limits it, too. With
    `--hf-samples` more inputs are compared likewise. For language models the measures also say what the difference
    means for tokens: `tokens`.

    With `enforce`, an output that honest rounding moves beyond its limit on an input is judged on others. Where none of
    them can judge it either, the check fails if its errors are larger than the dtype's on average, else it is skipped.
    """
    first = _judge(context, context.reference, context.outputs)
    tolerance = {name: limit for name, limit in asdict(tolerance_of(context.cell)).items() if name in _LIMITS and limit}
    measures = {"reference": context.reference.dtype, **first.comparison.measures(), "tolerance": tolerance}
    if context.reference.reason:
        measures["reference_reason"] = context.reference.reason
    if first.budget:
        measures["budget"] = first.budget
    judged, reason, nan = [first], "", 0
    wanted = context.budget_request.samples - 1
    for seed in range(1, wanted + FURTHER_INPUTS + 1):
        if seed > wanted and not _never_judged(judged):
            break
        try:  # those that were asked for together: a large reference is loaded anew for each call
            reference = context.reference.with_varied_inputs(max(seed, wanted))[seed - 1]
        except (HfAccelError, RuntimeError, TypeError, ValueError, IndexError) as error:
            reason = f"the reference has no other inputs: {first_line(error)}"
            break
        if _has_nan(reference):
            nan += 1
            reason = f"the reference's outputs hold NaN for {nan} of {seed} other inputs"
            continue
        judged.append(_judge(context, reference, context.loaded.forward(reference.inputs), seed))
    if context.budget_request.samples > 1 or len(judged) > 1:
        measures["samples"] = _summary_of_inputs(judged, reason)
    not_judged = {str(one.seed): one.comparison.unjudged for one in judged if one.comparison.unjudged}
    if not_judged:
        measures["not_judged"] = not_judged
    logits = [one.logits for one in judged if one.logits is not None]
    if logits:
        measures["tokens"] = compare_tokens(*map(_rows, zip(*logits, strict=True)))
    bad = [one for one in judged if one.comparison.is_refused]
    if bad:
        problem = "\n".join(one.problem(context.cell.dtype) for one in bad)
        if len(judged) > 1:
            problem += f"\n{_failures_in_words(measures['samples'])}"
        outcome = failed(problem, **measures)
        if all(_is_rounding(one.comparison, one.budget) for one in bad):
            outcome.cause = Cause.NUMERICS
        return outcome
    unknown = [_judge_on_average(name, context.cell.dtype, judged) for name in _never_judged(judged)]
    if not unknown:
        return passed(**measures)
    text = "\n".join([one for one, _ in unknown] + [reason] * bool(reason))
    return failed(text, **measures) if any(is_wrong for _, is_wrong in unknown) else skipped(text, **measures)


@dataclass(frozen=True)
class _Judged:
    """One input of parity.

    Attributes:
        seed: What it was drawn from; 0 for the sample's own.
        comparison: How its outputs compare.
        budget: Their errors in multiples of the budget, where that was asked for.
        logits: Those of the device and of the reference at real positions; `None` where the model has none.
        of_typical: The error of each output that cannot be judged, in multiples of the typical emulated one.
    """

    seed: int
    comparison: Comparison
    budget: dict[str, Any]
    logits: tuple[torch.Tensor, torch.Tensor] | None
    of_typical: Mapping[str, float]

    def problem(self, dtype: str) -> str:
        """What is wrong; empty where nothing is."""
        if not self.comparison.is_refused:
            return ""
        text = f"input {self.seed}: {self.comparison.text()}" if self.seed else self.comparison.text()
        return f"{text}\n{_budget_in_words(dtype, self.budget)}" if self.budget else text


def _judge(context: CheckContext, reference: Reference, outputs: Tensors, seed: int = 0) -> _Judged:
    """Compare the outputs for one input; `seed` is 0 for the sample's own."""
    comparison = _compare(context, reference, outputs)
    budget, typical = {}, {}
    if _needs_budget(context, comparison.is_refused):
        budget = _compare_with_budget(context, reference, comparison)
    if comparison.unjudged:
        emulated = reference.budget_of(context.cell.dtype).typical
        errors = {verdict.difference.leaf: verdict.difference.rel_l2 for verdict in comparison.verdicts}
        typical = {name: errors[name] / emulated[name] for name in comparison.unjudged}
    return _Judged(seed, comparison, budget, _logits(context, reference, outputs), typical)


def _never_judged(judged: Sequence[_Judged]) -> list[str]:
    """Return the outputs that no input could judge; none where something is wrong anyway."""
    if any(one.comparison.is_refused for one in judged):
        return []
    return [name for name in judged[0].comparison.unjudged if all(name in one.comparison.unjudged for one in judged)]


def _judge_on_average(name: str, dtype: str, judged: Sequence[_Judged]) -> tuple[str, bool]:
    """Say what all inputs together show of an output that none of them can judge, and whether it is wrong."""
    if len(judged) < LEAST_INPUTS_OF_AVERAGE:
        details = "; ".join(f"input {one.seed}: {one.comparison.unjudged[name]}" for one in judged)
        return f"{name} cannot be judged on {len(judged)} inputs: {details}", False
    ratio = statistics.geometric_mean(one.of_typical[name] for one in judged)
    return (
        f"{name} cannot be judged on any of {len(judged)} inputs (the sample: {judged[0].comparison.unjudged[name]}); "
        f"on average its error is {ratio:.3g} times what {dtype} costs, allowed {ALLOWED_ON_AVERAGE:g}"
    ), not ratio <= ALLOWED_ON_AVERAGE


def _has_nan(reference: Reference) -> bool:
    return any(bool(leaf.isnan().any()) for leaf in reference.outputs.values() if leaf.is_floating_point())


def _summary_of_inputs(judged: Sequence[_Judged], reason: str) -> dict[str, Any]:
    """Return how many inputs failed, and the share of all inputs that may; those with unjudged outputs are left out."""
    failures = sum(one.comparison.is_refused for one in judged)
    count = sum(one.comparison.is_refused or one.comparison.ok for one in judged)
    errors = {str(one.seed): one.comparison.measures().get("rel_l2") for one in judged}
    ratios = {str(one.seed): one.budget["ratio"] for one in judged if "ratio" in one.budget}
    return {
        "count": count,
        "failed": failures,
        "failing_at_most": float(f"{bound_of_failures(failures, count):.3g}"),
        "confidence": CONFIDENCE,
        "rel_l2": errors,
        **({"ratios": ratios} if ratios else {}),
        **({"reason": reason} if reason else {}),
    }


def _failures_in_words(summary: Mapping[str, Any]) -> str:
    return (
        f"{summary['failed']} of {summary['count']} inputs failed; with {summary['confidence']:.0%} confidence at most "
        f"{summary['failing_at_most']:.0%} of all inputs do"
    )


def _is_rounding(comparison: Comparison, budget: Mapping[str, Any]) -> bool:
    """Whether what is outside the tolerance is no more than what rounding to the dtype must cost."""
    whole = not (comparison.missing or comparison.unexpected)
    measured = whole and not any(verdict.difference.problem for verdict in comparison.verdicts)
    bad = {verdict.difference.leaf for verdict in comparison.verdicts if not verdict.ok}
    ratios = budget.get("ratios", {})
    return measured and bad <= ratios.keys() and all(ratios[name] <= ALLOWED_FACTOR for name in bad)


def _needs_budget(context: CheckContext, is_failed: bool) -> bool:
    when = context.budget_request.when
    return when in ("report", "enforce") or (when == "failures" and is_failed)


def _compare_with_budget(context: CheckContext, reference: Reference, comparison: Comparison) -> dict[str, Any]:
    """Return the real errors in multiples of what the dtype must cost, or why there is no budget."""
    # A failure only says how many times too large the error is.
    budget = reference.budget_of(context.cell.dtype, is_rough=context.budget_request.when == "failures")
    measured = (verdict.difference for verdict in comparison.verdicts if not verdict.difference.problem)
    ratios = budget.ratios({one.leaf: one.rel_l2 for one in measured})
    if not ratios:
        return {"reason": budget.reason or "rounding reaches no output with floating-point numbers"}
    worst = max(ratios, key=lambda name: ratios[name])
    return {
        "ratio": float(f"{ratios[worst]:.3g}"),
        "leaf": worst,
        "costs": budget.costs[worst],
        "runs": budget.runs,
        "allowed": ALLOWED_FACTOR,
        "ratios": {name: float(f"{ratio:.3g}") for name, ratio in ratios.items()},
    }


def _budget_in_words(dtype: str, budget: Mapping[str, Any]) -> str:
    if "ratio" not in budget:
        return f"what {dtype} must cost here is not known: {budget['reason']}"
    return (
        f"{budget['leaf']}: {budget['ratio']:.3g} times what {dtype} must cost this model on this input "
        f"(rel-L2 {budget['costs']:.3g}, the largest of {budget['runs']} passes with emulated rounding)"
    )


def _logits(context: CheckContext, reference: Reference, outputs: Tensors) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the logits of a language model at real positions, and the reference's; `None` for other models."""
    task, right = context.cell.model.task, reference.real_outputs.get("logits")
    if not (generates(context.cell.model) or task == "fill-mask") or right is None or "logits" not in outputs:
        return None
    actual = real_positions(outputs, reference.inputs)["logits"]
    if actual.shape != right.shape or right.ndim < 2:
        return None
    return actual, right


def _rows(logits: Sequence[torch.Tensor]) -> torch.Tensor:
    import torch

    return torch.cat([one.reshape(-1, one.shape[-1]) for one in logits])


def compare_with_reference(context: CheckContext, outputs: Tensors) -> Comparison:
    """Compare what a model gave for the sample with what the reference gives, by the budget, too, where it counts."""
    return _compare(context, context.reference, outputs)


def _compare(context: CheckContext, reference: Reference, outputs: Tensors) -> Comparison:
    dtype = context.cell.dtype
    comparison = compare(
        real_positions(outputs, reference.inputs),
        reference.real_outputs,
        tolerance_of(context.cell),
        lambda: reference.error_of(dtype),
    )
    if context.budget_request.when != "enforce":
        return comparison
    costs = reference.budget_of(dtype).costs
    return comparison.within(costs, ALLOWED_FACTOR, dtype, lambda: reference.budget_of(dtype, is_thorough=True).costs)


def compare_on_cell(
    context: CheckContext, actual: Tensors, expected: Tensors, tolerance: Tolerance | None = None
) -> Comparison:
    """Compare by the tolerance of the cell, or a wider one, and grant what this dtype costs on torch's CPU."""
    dtype = context.cell.dtype
    return compare(actual, expected, tolerance or tolerance_of(context.cell), lambda: context.reference.error_of(dtype))


def limits_of(context: CheckContext) -> dict[str, float]:
    """The rel-L2 by floating-point leaf beyond which nothing passes parity on this cell, second chance included."""
    tolerance = tolerance_of(context.cell)
    errors = context.reference.error_of(context.cell.dtype) if tolerance.second_chance else {}
    return {
        name: largest_passing(errors[name].rel_l2 if name in errors else 0.0, tolerance)
        for name, leaf in context.reference.outputs.items()
        if leaf.is_floating_point()
    }


_SHARE_OF_TOLERANCE = 0.1
"""Parallel accelerators may sum with atomic additions, whose order changes from run to run and with it the rounding.
Such noise is far below the error of the dtype itself; a tenth of the tolerance tells it from a race."""


@built_in("determinism")
def determinism(context: CheckContext) -> CheckOutcome:
    """Two runs on the same inputs give the same outputs: bit by bit on processors, up to rounding on accelerators."""
    device = context.cell.device
    first, second = context.outputs, context.loaded.forward(context.sample.forward)
    exact = device.traits.is_exact(device.target)  # whether it sums in a fixed order
    noise = Tolerance(rel_l2=_SHARE_OF_TOLERANCE * tolerance_of(context.cell).rel_l2, second_chance=False)
    comparison = compare(second, first, noise)
    differences = [verdict.difference for verdict in comparison.verdicts]
    largest = max((one.max_abs for one in differences), default=0.0)
    measures: dict[str, Any] = {"max_abs": largest, "exact_required": exact}
    if exact and largest > 0.0:
        worst = max(differences, key=lambda one: one.max_abs)
        return failed(f"{worst.leaf}: two runs differ by {worst.max_abs:.3g}", **measures)
    return passed_unless(comparison.text(), **measures)
