"""Which single weight to make wrong, and by how much, so that a comparison has to notice."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.backends.base import WeightChange
from pytest_hfaccel.numerics.compare import difference
from pytest_hfaccel.numerics.reference import Reference

if TYPE_CHECKING:
    import torch
    from torch.nn import Parameter

    from pytest_hfaccel.backends.base import LoadedModel

    Tensors = Mapping[str, torch.Tensor]


_WANTED_MARGIN = 10.0
"""The outputs should move by this many times what passes parity."""
_LEAST_MARGIN = 3.0
"""Where no weight moves them as far (int8 passes at 0.1, and normalised outputs cannot move by more than 2), this."""
_OF_A_KIND = 8
"""Candidates of each kind of parameter: weights of norms, other vectors, matrices."""
_DOUBLINGS = 12
_DOUBLINGS_WITHOUT_EFFECT = 6
"""After so many doublings without any effect, the inputs do not use the weight: a tower for images, say."""
_NEAR = 1.25
"""The search for the smallest noticed change ends when one that is this many times smaller passes."""
_PASSES = 8
"""The search ends after so many passes of the device, too."""


@dataclass(frozen=True)
class Perturbation:
    """A wrong weight and what it does to the reference.

    Attributes:
        change: The weight and what is added to it.
        rel_l2: How far it moves the reference's outputs, in the leaf that moves the furthest beyond its limit.
        margin: That distance in multiples of what passes parity on the cell.
        leaf: That leaf.
    """

    change: WeightChange
    rel_l2: float
    margin: float
    leaf: str = ""


@dataclass(frozen=True)
class Power:
    """How small a fault may be for a cell to notice it.

    Attributes:
        noticed: The smallest change of the weight that failed parity, and what it does to the reference.
        missed: The largest smaller one that passed; `None` if none that was tried did.
        passes: How often the device ran.
    """

    noticed: Perturbation
    missed: Perturbation | None
    passes: int


def find_power(
    reference: Reference,
    perturbation: Perturbation,
    limits: Mapping[str, float],
    is_noticed: Callable[[WeightChange], bool],
) -> Power:
    """Search for the smallest change of one weight that a cell notices, by bisecting the logarithm of its size.

    Args:
        reference: The model in fp64, which says how far a change moves the outputs.
        perturbation: A change that the cell notices; smaller ones of the same weight are tried.
        limits: The rel-L2 by output that still passes parity.
        is_noticed: Runs the cell's model with a change; whether that fails parity.
    """
    change = perturbation.change
    high, low, passes = 1.0, 0.0, 0
    size = 1 / perturbation.margin  # moves the reference by just what passes, if its outputs follow in proportion
    while passes < _PASSES and not (low and high / low <= _NEAR):
        if is_noticed(replace(change, delta=change.delta * size)):
            high = size
        else:
            low = size
        passes += 1
        size = math.sqrt(low * high) if low else high / 4

    def effect(size: float) -> Perturbation | None:
        return _effect(reference, replace(change, delta=change.delta * size), limits)

    return Power(effect(high) or perturbation, effect(low) if low else None, passes)


def find_perturbation(
    reference: Reference, loaded: LoadedModel, inputs: Tensors, limits: Mapping[str, float]
) -> Perturbation | None:
    """Search the reference for a weight that moves its outputs far beyond the cell's tolerance.

    Args:
        reference: The model in fp64, on which changes are tried.
        loaded: The cell's model; weights that it can change without being built anew are tried first.
        inputs: The inputs of `forward`.
        limits: The rel-L2 by output that still passes parity.

    Returns:
        The first one that moves them by 10 times what passes, else the best by at least 3 times, else `None`.
    """
    with reference.model() as exact:
        model = exact.pipeline_model()
        best = _search(reference, loaded, _candidates(model), limits)
        if best is None:
            # The parts for other kinds of inputs hold most of the weights: leave out those that do not run.
            used = _parameters_used(model, lambda: exact.forward(inputs))
            best = _search(reference, loaded, _candidates(model, used), limits)
    return best


def _search(
    reference: Reference, loaded: LoadedModel, parameters: list[tuple[str, Parameter]], limits: Mapping[str, float]
) -> Perturbation | None:
    editable = _directly_editable(loaded, [name for name, _ in parameters])
    best = None
    for name, tensor in sorted(parameters, key=lambda item: item[0] not in editable):
        # A change that is small for this parameter: a tenth of its values' typical size.
        size = 0.1 * float(tensor.detach().double().abs().mean()) or 0.01
        for doubling in range(_DOUBLINGS):
            effect = _effect(reference, WeightChange(name, tensor.numel() // 2, size * 2.0**doubling), limits)
            if effect is None:
                break  # infinite or NaN: a larger change only makes it worse
            if best is None or effect.margin > best.margin:
                best = effect
            if best.margin >= _WANTED_MARGIN:
                return best
            if doubling >= _DOUBLINGS_WITHOUT_EFFECT and effect.rel_l2 == 0.0:
                break
    return best if best is not None and best.margin >= _LEAST_MARGIN else None


def _directly_editable(loaded: LoadedModel, parameters: list[str]) -> frozenset[str]:
    if not hasattr(loaded, "directly_editable") and hasattr(loaded, "held"):
        warnings.warn("a loaded model's method `held` is now `directly_editable`", DeprecationWarning, stacklevel=2)
        former: frozenset[str] = loaded.held(parameters)
        return former
    return loaded.directly_editable(parameters)


def _parameters_used(model: Any, forward: Callable[[], object]) -> frozenset[int]:
    """Return the ids of the parameters of all modules that a forward pass runs."""
    modules: list[Any] = []
    hooks = [module.register_forward_pre_hook(lambda module, _: modules.append(module)) for module in model.modules()]
    try:
        forward()
    finally:
        for hook in hooks:
            hook.remove()
    return frozenset(id(parameter) for module in modules for parameter in module.parameters(recurse=False))


def _effect(reference: Reference, change: WeightChange, limits: Mapping[str, float]) -> Perturbation | None:
    outputs = reference.outputs_with(change)
    moved = {name: difference(name, outputs[name], reference.real_outputs[name]) for name in limits}
    if any(leaf.problem or not math.isfinite(leaf.rel_l2) for leaf in moved.values()):
        return None
    furthest = max(moved, key=lambda name: moved[name].rel_l2 / limits[name])
    rel_l2 = moved[furthest].rel_l2
    return Perturbation(change, rel_l2, rel_l2 / limits[furthest], furthest)


def _candidates(model: Any, among_ids: frozenset[int] | None = None) -> list[tuple[str, Parameter]]:
    """Choose parameters every token passes through: weights of norms first, then other vectors, then matrices.

    Biases are left out, because what they add is the same for all inputs: they move the outputs also of a model whose
    other weights are all zero. Embeddings are left out, because the inputs may not use the row, and so are tied and
    reparametrised weights, which a converted model need not hold under one name.
    """
    from torch.nn import Embedding

    embeddings = {id(p) for m in model.modules() if isinstance(m, Embedding) for p in m.parameters()}
    usable = [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if parameter.is_floating_point()
        and "bias" not in name.rpartition(".")[2]
        and id(parameter) not in embeddings
        and (among_ids is None or id(parameter) in among_ids)
        and "parametrizations" not in name
    ]
    norms = [item for item in usable if item[1].ndim == 1 and item[0].endswith("weight")]
    vectors = [item for item in usable if item[1].ndim == 1 and not item[0].endswith("weight")]
    matrices = [item for item in usable if item[1].ndim != 1]
    # A few of each, from the last layers to the first: a late change has the fewest layers to be normalised away in.
    few = (group[::-1][:: max(1, len(group) // _OF_A_KIND)][:_OF_A_KIND] for group in (norms, vectors, matrices))
    return [item for group in few for item in group]
