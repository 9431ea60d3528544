"""The inputs of a model while they are being made, and the words in which the tables describe special inputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch

from pytest_hfaccel.checkpoints.tables.sizes import SPECIAL_IDS, VOCABULARY

BATCH = 2
TOKENS = 10
DECODER_TOKENS = 6
_FIRST_ORDINARY_ID = 10
_TOKENS_BEFORE_PLACEHOLDERS = 2
_SIDE = 64

TOKEN_TYPES_MARK_IMAGES = frozenset({"gemma3", "gemma3n", "paligemma"})
"""Model types whose `token_type_ids` say which tokens are an image's."""

Dim = int | str
"""A size, or the dotted path of the config field that holds it."""


class Draft:
    """Seeded random tensors of the sizes that a model's config asks for.

    Args:
        model: A transformers model.
        layout: Which of the layouts in use its sounds and grids of patches are given in.
    """

    def __init__(self, model: Any, layout: int = 0) -> None:
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
        return torch.randn(*map(self.size, dims), generator=self._generator)

    def uniform(self, *dims: Dim) -> torch.Tensor:
        """Return numbers between 0 and 1."""
        return torch.rand(*map(self.size, dims), generator=self._generator)

    def integers(self, low: int, high: int, *dims: Dim) -> torch.Tensor:
        """Return integers from `low` up to, and without, `high`."""
        return torch.randint(low, high, tuple(map(self.size, dims)), generator=self._generator)

    def ids(self, *dims: Dim, vocabulary: int | None = None) -> torch.Tensor:
        """Return ordinary token ids: neither the first ids nor the last, among which the special ones are."""
        size = vocabulary or self.vocabulary()
        roomy = size > SPECIAL_IDS + 2 * _FIRST_ORDINARY_ID
        low, high = (_FIRST_ORDINARY_ID, size - SPECIAL_IDS) if roomy else (min(3, size - 1), size)
        return self.integers(low, high, *dims)

    def ones(self, *dims: Dim) -> torch.Tensor:
        """Return integer ones: a mask that hides nothing."""
        return torch.ones(tuple(map(self.size, dims)), dtype=torch.long)

    def rows(self, *values: int) -> torch.Tensor:
        """Return the same integers for every sample, such as the height and width of its image."""
        return torch.tensor([values] * BATCH)

    def vocabulary(self, *, decoder: bool = False) -> int:
        """Return the size of the vocabulary, of the decoder where it has its own."""
        try:
            text = self.config.get_text_config(decoder=decoder)
        except (AttributeError, ValueError):
            text = self.config
        configs = [text, *configs_about(self.config, "text", "decoder")]
        return first_integer(configs, "vocab_size", "text_vocab_size", "src_vocab_size") or VOCABULARY

    def vision_configs(self) -> list[Any]:
        """Return the configs in the order in which facts about images are looked for."""
        return configs_about(self.config, "vision", "image", "backbone")

    def vision_part(self) -> Any:
        """Return the config of the vision part, or that of a model which is one."""
        return getattr(self.config, "vision_config", None) or self.config

    def image_sides(self) -> tuple[int, int]:
        """Return the height and width of an image."""
        names = ("image_size", "img_size", "input_size", "pretrain_image_size")
        value = _first_value(self.vision_configs(), *names, kinds=(int, list, tuple, dict))
        if isinstance(value, dict):
            return value.get("height", _SIDE), value.get("width", _SIDE)
        if isinstance(value, list | tuple):
            return value[0], value[-1]
        return (value, value) if value else (_SIDE, _SIDE)

    def channels(self) -> int:
        """Return the number of colours of an image."""
        names = ("num_channels", "in_channels", "in_chans", "num_input_channels", "stem_num_channels")
        return first_integer(self.vision_configs(), *names) or 3

    def placeholder(self, kind: str) -> int | None:
        """Return the id that stands for a piece of an `image`, `audio` or `video` in a text."""
        names = [f"{kind}_token_id", f"{kind}_token_index"]
        if kind == "image":
            names += ["media_token_id", "image_patch_id", "im_patch_id"]
        return first_integer([self.config, *configs_about(self.config, "text")], *names)

    def insert_image(self, count: int) -> None:
        """Make a new text in which every row has `count` tokens that stand for pieces of an image."""
        self.insert_placeholders(self.placeholder("image"), count)

    def insert_placeholders(self, token: int | None, count: int) -> None:
        """Make a new text in which every row has `count` tokens that stand for pieces of an image, sound or video."""
        if token is None or "input_ids" not in self.inputs:
            return
        ids = self.ids(BATCH, TOKENS + count)
        ids[:, _TOKENS_BEFORE_PLACEHOLDERS : _TOKENS_BEFORE_PLACEHOLDERS + count] = token
        self.inputs["input_ids"] = ids
        if self.takes("attention_mask"):
            self.inputs["attention_mask"] = self.ones(*ids.shape)
        if self.takes("mm_token_type_ids"):
            self.inputs["mm_token_type_ids"] = (ids == token).long()
        if self.takes("token_type_ids") and self.model_type in TOKEN_TYPES_MARK_IMAGES:
            self.inputs["token_type_ids"] = (ids == token).long()


def configs_about(config: Any, *words: str) -> list[Any]:
    """Return a config and all nested in it, first those with one of the words (`vision`, ...) in their path."""
    configs, queue = [], [("", config)]
    while queue:
        path, part = queue.pop(0)
        configs.append((path, part))
        for name in getattr(type(part), "sub_configs", None) or {}:
            inner = getattr(part, name, None)
            if hasattr(inner, "model_type"):
                queue.append((f"{path}.{name}".strip("."), inner))
    first = [part for path, part in configs if any(word in path for word in words)]
    return first + [part for _, part in configs if not any(part is one for one in first)]


def first_integer(configs: Iterable[Any], *names: str) -> int | None:
    """Return the first integer that one of the configs has under one of the names."""
    value = _first_value(configs, *names, kinds=(int,))
    return None if value is None else int(value)


def _first_value(configs: Iterable[Any], *names: str, kinds: tuple[type, ...]) -> Any:
    for config in configs:
        for name in names:
            value = getattr(config, name, None)
            if isinstance(value, kinds) and not isinstance(value, bool):
                return value
    return None


Change = Callable[[Draft], None]
"""Changes the inputs of a draft."""

TensorMaker = Callable[[Draft], torch.Tensor]


def set_inputs(**makers: TensorMaker) -> Change:
    """Set the inputs named, as far as the model takes them."""

    def change(draft: Draft) -> None:
        draft.inputs.update({name: make(draft) for name, make in makers.items() if draft.takes(name)})

    return change


def replace_inputs(**makers: TensorMaker) -> Change:
    """Set the inputs named, as far as the model takes them, and drop all others."""

    def change(draft: Draft) -> None:
        draft.inputs.clear()
        set_inputs(**makers)(draft)

    return change


def drop_inputs(*names: str) -> Change:
    """Drop the inputs named."""

    def change(draft: Draft) -> None:
        for name in names:
            draft.inputs.pop(name, None)

    return change


def chain(*changes: Change) -> Change:
    """Make several changes, one after the other."""

    def change(draft: Draft) -> None:
        for step in changes:
            step(draft)

    return change


def first_sample_only(draft: Draft) -> None:
    """Keep the first sample only, for models that cannot take two at once."""
    draft.inputs = {name: value[:1] for name, value in draft.inputs.items()}


def where_taken(name: str, change: Change) -> Change:
    """Make a change only where the model takes the input named: a part of the model may not."""
    return lambda draft: change(draft) if draft.takes(name) else None


def noise(*dims: Dim) -> TensorMaker:
    """Normally distributed numbers; the batch comes first."""
    return lambda draft: draft.noise(BATCH, *dims)


def uniform(*dims: Dim) -> TensorMaker:
    """Numbers between 0 and 1; the batch comes first."""
    return lambda draft: draft.uniform(BATCH, *dims)


def ids(*dims: Dim, vocabulary: Dim | None = None) -> TensorMaker:
    """Ordinary token ids; the batch comes first."""
    return lambda draft: draft.ids(BATCH, *dims, vocabulary=None if vocabulary is None else draft.size(vocabulary))


def ones(*dims: Dim) -> TensorMaker:
    """A mask that hides nothing; the batch comes first."""
    return lambda draft: draft.ones(BATCH, *dims)


def pixels(*before: Dim) -> TensorMaker:
    """Images, with further dimensions between the batch and the colours."""
    return lambda draft: draft.noise(BATCH, *before, draft.channels(), *draft.image_sides())
