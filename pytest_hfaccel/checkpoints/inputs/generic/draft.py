"""The inputs of a model while they are being made: what they are drawn from, and how large they are."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checkpoints.inputs.generic.facts import about, number, stated
from pytest_hfaccel.checkpoints.rules import SPECIAL_IDS, VOCABULARY

if TYPE_CHECKING:
    import torch

BATCH = 2
TOKENS = 10
DECODER_TOKENS = 6
_FIRST_ORDINARY_ID = 10
_SIDE = 64

Dim = int | str
"""A size, or the dotted path of the config field that holds it."""


class Draft:
    """Seeded random tensors of the sizes that a model's config asks for.

    Args:
        model: A transformers model.
        layout: Which of the layouts in use its sounds are given in; see `sound`.
    """

    def __init__(self, model: Any, layout: int = 0) -> None:
        import torch

        self.model, self.config, self.layout = model, model.config, layout
        self.architecture = type(model).__name__
        self.model_type = str(getattr(self.config, "model_type", ""))
        self.parameters = inspect.signature(model.forward).parameters
        self.main = str(getattr(model, "main_input_name", "input_ids"))
        self.inputs: dict[str, torch.Tensor] = {}
        self._generator = torch.Generator().manual_seed(0)

    def takes(self, name: str) -> bool:
        """Whether `forward` has a parameter of that name."""
        return name in self.parameters

    def demands(self, name: str) -> bool:
        """Whether `forward` has a parameter of that name without a default."""
        return self.takes(name) and self.parameters[name].default is inspect.Parameter.empty

    def leads_with(self, name: str) -> bool:
        """Whether the model cannot do without an input: its main one, or one without a default."""
        return self.takes(name) and (self.main == name or self.demands(name))

    def size(self, dim: Dim) -> int:
        """Return a size that is a number, or the dotted path of a config field."""
        if isinstance(dim, int):
            return dim
        value: Any = self.config
        for name in dim.split("."):
            value = getattr(value, name)
        return int(value)

    def noise(self, *dims: Dim) -> torch.Tensor:
        """Return normally distributed numbers."""
        import torch

        return torch.randn(*map(self.size, dims), generator=self._generator)

    def uniform(self, *dims: Dim) -> torch.Tensor:
        """Return numbers between 0 and 1."""
        import torch

        return torch.rand(*map(self.size, dims), generator=self._generator)

    def integers(self, low: int, high: int, *dims: Dim) -> torch.Tensor:
        """Return integers from `low` up to, and without, `high`."""
        import torch

        return torch.randint(low, high, tuple(map(self.size, dims)), generator=self._generator)

    def ids(self, *dims: Dim, vocabulary: int | None = None) -> torch.Tensor:
        """Return ordinary token ids: neither the first ids nor the last, among which the special ones are."""
        size = vocabulary or self.vocabulary()
        roomy = size > SPECIAL_IDS + 2 * _FIRST_ORDINARY_ID
        low, high = (_FIRST_ORDINARY_ID, size - SPECIAL_IDS) if roomy else (min(3, size - 1), size)
        return self.integers(low, high, *dims)

    def ones(self, *dims: Dim) -> torch.Tensor:
        """Return integer ones: a mask that hides nothing."""
        import torch

        return torch.ones(tuple(map(self.size, dims)), dtype=torch.long)

    def vocabulary(self, *, decoder: bool = False) -> int:
        """Return the size of the vocabulary, of the decoder where it has its own."""
        try:
            text = self.config.get_text_config(decoder=decoder)
        except (AttributeError, ValueError):
            text = self.config
        parts = [text, *about(self.config, "text", "decoder")]
        return number(parts, "vocab_size", "text_vocab_size", "src_vocab_size") or VOCABULARY

    def vision(self) -> list[Any]:
        """Return the configs in the order in which facts about images are looked for."""
        return about(self.config, "vision", "image", "backbone")

    def sides(self) -> tuple[int, int]:
        """Return the height and width of an image."""
        names = ("image_size", "img_size", "input_size", "pretrain_image_size")
        value = stated(self.vision(), *names, kinds=(int, list, tuple, dict))
        if isinstance(value, dict):
            return value.get("height", _SIDE), value.get("width", _SIDE)
        if isinstance(value, list | tuple):
            return value[0], value[-1]
        return (value, value) if value else (_SIDE, _SIDE)

    def channels(self) -> int:
        """Return the number of colours of an image."""
        names = ("num_channels", "in_channels", "in_chans", "num_input_channels", "stem_num_channels")
        return number(self.vision(), *names) or 3
