"""The transformers class without weights: its `forward` runs on compiled graphs, all else is transformers' own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from pytest_hfaccel.core.errors import LoadError
from pytest_hfaccel.upstream.transformers import WithoutOptionalInputs

if TYPE_CHECKING:
    from pytest_hfaccel.backends.base import ModelSource

_COUNTS_FROM_PADDING = "create_position_ids_from_input_ids"
"""The method by which RoBERTa and its like number tokens from the id of padding on. `generate` hands them other
positions, from 0 on, so that a graph without the input `position_ids` will not do."""

# A name of the module, not only of the type checker: transformers evaluates the annotations of its models' classes.
Run = Callable[[Mapping[str, torch.Tensor]], Any]


class DeferredEncoder(nn.Module):  # type: ignore[misc]
    """Stands for the encoder while tokens are generated: it hands its input on.

    The converted graph holds encoder and decoder, so each step runs both, on the input this passes along.
    """

    def __init__(self, main_input_name: str) -> None:
        super().__init__()
        self.main_input_name = main_input_name

    def forward(self, **kwargs: Any) -> BaseModelOutput:
        """Return the encoder's input in the place of its output."""
        return BaseModelOutput(last_hidden_state=kwargs[self.main_input_name])


class OnGraphs(WithoutOptionalInputs):
    """Mixed into an architecture class: replaces what would touch weights."""

    run_graph: Run
    traced_names: frozenset[str]
    counts_from_zero: bool
    deferred_encoder: DeferredEncoder
    config: Any
    main_input_name: str

    @property
    def device(self) -> torch.device:
        """Tensors go in and come out on the CPU, whatever device the graphs run on."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the graph's inputs and outputs."""
        return torch.float32

    def to(self, *_args: Any, **_kwargs: Any) -> Any:
        """Stay: the device was chosen when the graph was compiled."""
        return self

    def get_encoder(self, *_args: Any, **_kwargs: Any) -> Any:
        """Return the stand-in that defers the encoder to each decoding step."""
        return self.deferred_encoder

    def forward_on_graph(self, *args: Any, **kwargs: Any) -> Any:
        """Take what the class's `forward` takes; flags and caches, which the graph has no inputs for, are left out."""
        if args:
            kwargs[self.main_input_name] = args[0]
        encoded = kwargs.pop("encoder_outputs", None)
        if encoded is not None:
            kwargs[self.deferred_encoder.main_input_name] = encoded[0]
        inputs = {name: value for name, value in kwargs.items() if isinstance(value, torch.Tensor)}
        with torch.no_grad():
            return self.run_graph(_with_defaults(inputs, self.traced_names, self.counts_from_zero))


def architecture_without_weights(source: ModelSource, run: Run, traced_names: frozenset[str]) -> Any:
    """Make an instance of the model's class that runs on compiled graphs; `transformers.pipeline` takes it as a model.

    Args:
        source: The checkpoint, for its config; its weights are not read.
        run: Runs the model on tensors and returns its `ModelOutput`.
        traced_names: Inputs of the graph that serves most calls.

    Raises:
        LoadError: transformers has no such class.
    """
    name = source.spec.architecture
    own = getattr(transformers, name, None)
    if own is None:
        raise LoadError(f"transformers {transformers.__version__} has no class {name!r}", stage="load")

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.forward_on_graph(*args, **kwargs)

    # generate and pipelines look at the signature to decide what to pass.
    forward.__signature__ = inspect.signature(own.forward)  # type: ignore[attr-defined]
    namespace = {"forward": forward, "can_generate": classmethod(lambda _: own.can_generate()), "__module__": __name__}
    adapted = type(name, (OnGraphs, own), namespace)
    config = own.config_class.from_pretrained(source.directory)
    with torch.device("meta"):
        model = adapted(config)
    model.eval()
    model.run_graph = run
    model.traced_names = traced_names
    model.counts_from_zero = not any(hasattr(module, _COUNTS_FROM_PADDING) for module in model.modules())
    model.deferred_encoder = DeferredEncoder(model.main_input_name)
    if own.can_generate():
        model.generation_config = _generation_config(source, config)
    return model


def _generation_config(source: ModelSource, config: Any) -> Any:
    saved = (source.directory / "generation_config.json").is_file()
    generation = (
        transformers.GenerationConfig.from_pretrained(source.directory)
        if saved
        else transformers.GenerationConfig.from_model_config(config)
    )
    generation.use_cache = False
    return generation


def _with_defaults(
    inputs: dict[str, torch.Tensor], traced: frozenset[str], counts_from_zero: bool
) -> dict[str, torch.Tensor]:
    """Say what a call leaves to the model's defaults the way the graph was traced, so that the same graph serves it.

    Args:
        inputs: The inputs of the call.
        traced: Inputs of the graph that serves most calls.
        counts_from_zero: Whether the model, left alone, numbers the tokens 0, 1, 2, ...
    """
    out = dict(inputs)
    for mask, of in (("attention_mask", "input_ids"), ("pixel_mask", "pixel_values")):
        if mask in traced and mask not in out and of in out:
            shape = out[of].shape if mask == "attention_mask" else (out[of].shape[0], *out[of].shape[-2:])
            out[mask] = torch.ones(shape, dtype=torch.long)
        elif mask in out and mask not in traced and bool((out[mask] == 1).all()):
            del out[mask]
    if counts_from_zero and "position_ids" in out and "position_ids" not in traced and _is_counted(out["position_ids"]):
        del out["position_ids"]
    return out


def _is_counted(positions: torch.Tensor) -> bool:
    return bool((positions == torch.arange(positions.shape[-1], device=positions.device)).all())
