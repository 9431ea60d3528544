"""Real tensors for a model at a batch size and a sequence length, of the shapes that the tracing layer computes.

A trace and a measurement of the same point therefore have the same shapes by construction. Imports torch when called.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.tasks import generates

if TYPE_CHECKING:
    import torch

    from pytest_hfaccel.checkpoints import Checkpoint
    from pytest_hfaccel.tracing.input_shapes import InputShape

_SEED = 0
TEXT = frozenset({"input_ids", "decoder_input_ids"})
"""Inputs that hold text: their second axis is the sequence length."""
_OF_DECODER = ("decoder_input_ids", "decoder_attention_mask")
_LIKE_TEXT = frozenset({"token_type_ids", "mm_token_type_ids", "attention_mask", "decoder_attention_mask"})


@dataclass(frozen=True)
class MeasuredInputs:
    """What a model is measured with.

    Attributes:
        forward: Keyword arguments of `forward`.
        generate: Keyword arguments of `generate`; `None` when the model does not generate.
        batch: Samples.
        length: Tokens per sample of the text inputs; 0 for models without text. Image tokens are not counted.
        source: What the tensors are, in words.
    """

    forward: dict[str, torch.Tensor]
    generate: dict[str, torch.Tensor] | None
    batch: int
    length: int
    source: str = "random, of the traced shapes"

    @property
    def shapes(self) -> dict[str, list[int]]:
        """The shape of each argument of `forward`."""
        return {name: list(tensor.shape) for name, tensor in self.forward.items()}


def make_inputs(
    checkpoint: Checkpoint, batch: int, length: int, *, like: Mapping[str, Any] | None = None
) -> MeasuredInputs:
    """Make the inputs of a point.

    Args:
        checkpoint: The model.
        batch: Samples.
        length: Tokens per sample, at most what the model has positions for; 0 for models without text.
        like: Inputs whose further names (token types, masks) are made, too, so that a converted graph fits both.

    Raises:
        ConfigError: The model takes text, and the length is 0.

    Vision-language models, and those whose `forward` demands more than shapes tell, get the checkpoint's own sample
    inputs, repeated to the batch.
    """
    model_class = checkpoint.model_class()
    config = model_class.config_class.from_pretrained(checkpoint.directory)
    shapes = shapes_of(model_class, config, batch, length)
    if is_vision_language(model_class) or not _required(model_class) <= shapes.keys():
        return _repeated_sample(checkpoint, config, batch)
    text = next((shape.shape[1] for name, shape in shapes.items() if name in TEXT), 0)
    if not text and TEXT & shapes.keys():
        raise ConfigError(f"{checkpoint.spec.name} takes text: a sequence length of at least 1 is needed.")
    ids = safe_ids(config.to_dict())
    made = {name: _tensor(name, shape.shape, shape.floating, ids) for name, shape in shapes.items()}
    for name in (like or {}).keys() & _LIKE_TEXT - made.keys():
        made[name] = _tensor(name, (batch, text), floating=False, ids=None)
    prompt = {name: tensor for name, tensor in made.items() if name not in _OF_DECODER}
    return MeasuredInputs(made, prompt if generates(checkpoint.spec) else None, batch, text)


def shapes_of(model_class: Any, config: Any, batch: int, length: int) -> dict[str, InputShape]:
    """Return the shapes of the inputs of a model's forward pass; see `tracing.input_shapes`."""
    from pytest_hfaccel.tracing.input_shapes import input_shapes, text_length

    required = _required(model_class)
    arguments = {name: name in required for name in _arguments(model_class)}
    return input_shapes(config, arguments, model_class.main_input_name, batch, text_length(config, length))


def _arguments(model_class: Any) -> list[str]:
    return [name for name in inspect.signature(model_class.forward).parameters if name != "self"]


def _required(model_class: Any) -> set[str]:
    """Return the arguments of `forward` that must be given."""
    arguments = inspect.signature(model_class.forward).parameters.values()
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {one.name for one in arguments if one.name != "self" and one.kind in plain and one.default is one.empty}


def is_vision_language(model_class: Any) -> bool:
    """Whether image tokens stand in the text: such inputs cannot be made from shapes alone."""
    return (
        "pixel_values" in _arguments(model_class)
        and hasattr(model_class, "get_image_features")
        and hasattr(model_class, "generate")
    )


def _tensor(name: str, shape: tuple[int, ...], floating: bool, ids: list[int] | None) -> torch.Tensor:
    import torch

    generator = torch.Generator().manual_seed(_SEED)
    if floating:
        return torch.randn(shape, generator=generator)
    if name.endswith("mask"):
        return torch.ones(shape, dtype=torch.int64)
    if not ids:
        return torch.zeros(shape, dtype=torch.int64)
    return torch.tensor(ids)[torch.randint(len(ids), shape, generator=generator)]


def safe_ids(config: Mapping[str, Any]) -> list[int]:
    """Return token ids without a special meaning: the middle half of the smallest vocabulary, but for special ids.

    The ends of a vocabulary are where special tokens and unused places lie.
    """
    vocabulary = min((value for key, value in _fields(config) if key == "vocab_size" and value > 0), default=0)
    special = {value for key, value in _fields(config) if key.endswith(("_token_id", "_token_index"))}
    return sorted({*range(vocabulary // 4, 3 * vocabulary // 4)} - special)


def _fields(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Return the whole numbers among the fields of a config and of those nested in it."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _fields(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            yield key, value


def _repeated_sample(checkpoint: Checkpoint, config: Any, batch: int) -> MeasuredInputs:
    sample = checkpoint.sample()
    forward = repeated(sample.forward, sample.batch, batch)
    prompt = repeated(sample.generate, sample.batch, batch) if sample.generate is not None else None
    images = {value for key, value in _fields(config.to_dict()) if key in ("image_token_id", "image_token_index")}
    ids = next((tensor for name, tensor in forward.items() if name in TEXT and tensor.ndim == 2), ())
    length = max((sum(int(token) not in images for token in row) for row in ids), default=0)
    return MeasuredInputs(forward, prompt, batch, length, source="the checkpoint's sample inputs, repeated")


def repeated(inputs: Mapping[str, torch.Tensor], samples: int, batch: int) -> dict[str, torch.Tensor]:
    """Return as many samples as asked for, taking those of a batch in turn.

    Args:
        inputs: Inputs of `samples` samples; a tensor whose first axis is a multiple of that (several images per
            sample) gives each sample its share, any other is passed whole.
        samples: Samples there are.
        batch: Samples wanted.
    """
    import torch

    def of(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.ndim or not tensor.shape[0] or tensor.shape[0] % samples:
            return tensor
        shares = tensor.chunk(samples)
        return torch.cat([shares[index % samples] for index in range(batch)])

    return {name: of(tensor) for name, tensor in inputs.items()}
