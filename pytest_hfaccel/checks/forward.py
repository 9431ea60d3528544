"""Check `forward`: the outputs have the names, shapes and kinds of numbers they must have, and are finite."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.backends.base import flatten_outputs
from pytest_hfaccel.checks.base import CheckContext, built_in, passed_unless
from pytest_hfaccel.core.results import CheckOutcome, Stage

if TYPE_CHECKING:
    import torch

    from pytest_hfaccel.backends.base import LoadedModel


# A finite reference beyond this is a fill value for "never"; the device may turn it into an infinity of the same sign.
_FILL = 1e8

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


def _other_kind(leaf: torch.Tensor, reference: torch.Tensor) -> str | None:
    if leaf.shape != reference.shape:
        return f"shape {tuple(leaf.shape)}, the reference has {tuple(reference.shape)}"
    # The reference is in fp64, and a runtime may return fp32 whatever it computes in: compare the kind of number.
    kinds = (leaf.is_floating_point(), leaf.is_complex()), (reference.is_floating_point(), reference.is_complex())
    if kinds[0] != kinds[1]:
        return f"dtype {_kind(leaf)}, the reference has {_kind(reference)}"
    return None


def _non_finite_leaves(context: CheckContext) -> dict[str, tuple[str, bool]]:
    """Return by output what is wrong with its numbers, and whether it is the device's or the reference's only."""
    broken = {}
    for name, reference in context.reference.outputs.items():
        leaf = context.outputs[name]
        by_design = is_infinite_by_design(context.cell.model.architecture, name)
        here, there = _count(leaf, reference, by_design), _count(reference, reference, by_design)
        if here:
            also = ", in the reference as well" if there else ""
            broken[name] = f"{here} of {leaf.numel()} values are NaN or infinite{also}", True
        elif there:
            broken[name] = f"{there} of {leaf.numel()} values of the reference are NaN or infinite", False
    return broken


def is_infinite_by_design(architecture: str, leaf: str) -> bool:
    """Whether `INFINITE_BY_DESIGN` names an output of a class."""
    return any(fnmatchcase(architecture, a) and fnmatchcase(leaf, b) for a, b, _ in INFINITE_BY_DESIGN)


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
    kind = context.cell.device.kind
    if at_device and context.cell.device.traits.torch_module:
        where, module = f"the model on {context.cell.device}", _first_module(context.loaded, context)
        note = ""
    else:
        with context.reference.model() as loaded:
            where, module = "the reference model on the CPU", _first_module(loaded, context)
        note = f" (the modules of {kind} cannot be observed)" if at_device else ""
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


def _kind(leaf: torch.Tensor) -> str:
    return str(leaf.dtype).removeprefix("torch.")
