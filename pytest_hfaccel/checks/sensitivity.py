"""Check `sensitivity`: other inputs give other outputs, input by input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checks.base import CheckContext, built_in, passed_unless, skipped
from pytest_hfaccel.checks.parity import limits_of
from pytest_hfaccel.core.results import CheckOutcome
from pytest_hfaccel.numerics.compare import difference
from pytest_hfaccel.numerics.positions import real_positions

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    Tensors = Mapping[str, torch.Tensor]


_NOT_CONTENT = ("mask", "position", "type", "size", "shape", "grid", "length", "longer", "label")
"""Parts of the names of inputs that say how to read the others. Padding has checks of its own; and of a sample without
padding, or whose images are all of one size, such an input may be changed without any consequence."""

_VISIBLE = 4.0
"""By how many times what passes parity an output must move in the reference before the device's must be seen to move:
at less than that, rounding may hide it."""
_SHARE = 0.5
"""How far it must move on the device then, as a share of the reference's movement."""

_UNMOVED = 1e-6
"""Up to this rel-L2 the reference has not moved: no cell in fp32 could tell that from rounding."""


@built_in("sensitivity")
def sensitivity(context: CheckContext) -> CheckOutcome:
    """Each input that has content (tokens, an image, a sound) changes the outputs when it alone is changed.

    The reference must move at all; and where it moves visibly at the cell's precision, the device's outputs must move,
    too, at least half as far.
    """
    inputs = context.sample.forward
    names = [name for name in inputs if not any(part in name for part in _NOT_CONTENT)]
    problems: list[str] = []
    measures: dict[str, Any] = {}
    with context.reference.model() as loaded:
        protected = _placeholders(loaded.pipeline_model().config)
        changed = {name: _with_other(inputs, name, context.sample.batch, protected) for name in names}
        exact: dict[str, dict[str, float]] = {}
        for name, other in changed.items():
            try:
                exact[name] = _movement(context, loaded.forward(other), context.reference.outputs)
            except (RuntimeError, ValueError, IndexError) as error:  # no inputs that the class takes
                text = str(error).splitlines()[0] if str(error) else ""
                measures[name] = {"not_tried": f"{type(error).__name__}: {text}"}
    if not exact:
        return skipped("no input could be changed into another that the model takes", **measures)
    limits = limits_of(context)
    for name, there in exact.items():
        here = _movement(context, context.loaded.forward(changed[name]), context.outputs)
        furthest = max(there, key=lambda leaf: there[leaf] / limits.get(leaf, 1.0))
        seen = there[furthest] > _VISIBLE * limits.get(furthest, 0.0)
        measures[name] = {"output": furthest, "reference": there[furthest], "device": here.get(furthest), "seen": seen}
        if there[furthest] <= _UNMOVED:
            problems.append(f"the outputs do not depend on {name}: with another one the reference gives the same")
        elif seen and not here.get(furthest, 0.0) >= _SHARE * there[furthest]:
            problems.append(
                f"with other {name} {furthest} moves by rel-L2 {there[furthest]:.3g} in the reference, on "
                f"{context.cell.device} by {here.get(furthest, 0.0):.3g}: the device does not see this input"
            )
    return passed_unless("\n".join(problems), **measures)


def _movement(context: CheckContext, outputs: Tensors, before: Tensors) -> dict[str, float]:
    """Return by leaf how far outputs are from those for the sample: rel-L2, or the share of integers that differ.

    Outputs of another shape (of what was detected, say) have moved as far as can be.
    """
    now, then = (real_positions(leaves, context.sample.forward) for leaves in (outputs, before))
    return {name: _distance(name, now[name], leaf) for name, leaf in then.items() if name in now}


def _distance(name: str, now: torch.Tensor, then: torch.Tensor) -> float:
    if now.shape != then.shape:
        return 1.0
    if not then.is_floating_point():
        return float((now != then).double().mean()) if then.numel() else 0.0
    distance = difference(name, now, then)
    return 1.0 if distance.problem else distance.rel_l2


def _placeholders(config: Any) -> set[int]:
    """Return the token ids that stand for something else than text: images, sounds, the ends of a sentence, padding."""
    placeholders: set[int] = set()
    pending: list[Any] = [config.to_dict()]
    while pending:
        for key, value in pending.pop().items():
            if isinstance(value, dict):
                pending.append(value)
            elif str(key).endswith(("token_id", "token_index")) and isinstance(value, int):
                placeholders.add(value)
    return placeholders


def _with_other(inputs: Tensors, name: str, batch: int, protected: set[int]) -> dict[str, torch.Tensor]:
    """Return inputs of which one is another: the samples' own in another order, so that all values are valid ones."""
    return {**inputs, name: _other(inputs[name], batch, protected)}


def _other(tensor: torch.Tensor, batch: int, protected: set[int]) -> torch.Tensor:
    import torch

    if tensor.ndim and tensor.shape[0] % batch == 0:
        exchanged = torch.cat(tensor.chunk(batch)[::-1])
        if not torch.equal(exchanged, tensor):
            return exchanged
    if tensor.is_floating_point():
        return 0.5 * tensor.flip(-1) + 0.1
    free = torch.ones_like(tensor, dtype=torch.bool)
    for token in protected:
        free &= tensor != token
    if not bool(free.any()):
        free[...] = True
    turned = tensor.clone()
    turned[free] = tensor[free].roll(1)
    if torch.equal(turned, tensor):  # all the same
        turned[free] = torch.where(tensor[free] > 0, tensor[free] - 1, tensor[free] + 1)
    return turned
