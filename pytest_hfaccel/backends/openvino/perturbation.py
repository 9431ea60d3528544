"""The canary's model: the same graphs with one weight made wrong."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import openvino as ov

from pytest_hfaccel.backends.openvino.constants import NotFound, holds_weight, with_changed_weight
from pytest_hfaccel.backends.openvino.export import export_model
from pytest_hfaccel.core.errors import HfAccelError

if TYPE_CHECKING:
    from pytest_hfaccel.backends.base import ModelSource, WeightChange
    from pytest_hfaccel.backends.openvino.graphs import Graphs


def perturbed_graphs(source: ModelSource, graphs: Graphs, change: WeightChange) -> Graphs:
    """Return graphs with one weight made wrong, and the one for the sample inputs compiled.

    The weight's constant is found by its values. Where the converter has merged the weight with something (see
    `held_weights`), the changed torch model is converted anew, for the shapes of the sample inputs only.

    Raises:
        ValueError: The model has no such parameter.
        LoadError: The changed model cannot be converted or compiled.
    """
    model = source.torch_model("fp32")
    weights = _weights(model)
    if change.parameter not in weights:
        raise ValueError(f"{type(model).__name__} has no parameter {change.parameter!r}")
    inputs = source.sample().forward

    def edit_constant(program: ov.Model) -> ov.Model:
        return with_changed_weight(program, weights, change)

    edited = graphs.edited(edit_constant)
    try:
        edited.graph(inputs)
    except NotFound:
        weights[change.parameter].data.view(-1)[change.index] += change.delta
        exported, _, _ = export_model(model, inputs, static=True)
        edited = graphs.edited(lambda _: exported.program)
        edited.graph(inputs)
    except HfAccelError:
        edited.close()
        raise
    return edited


def held_weights(source: ModelSource, program: ov.Model, parameters: Iterable[str]) -> frozenset[str]:
    """Return those of some parameters that are constants of a converted model by themselves."""
    weights = _weights(source.torch_model("fp32"))
    return frozenset(name for name in parameters if name in weights and holds_weight(program, weights, name))


def _weights(model: Any) -> dict[str, Any]:
    return {**dict(model.named_buffers()), **dict(model.named_parameters(remove_duplicate=False))}
