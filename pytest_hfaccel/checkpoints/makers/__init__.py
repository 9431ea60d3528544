"""Which tokenizer and processors a built checkpoint gets, by model type.

A maker takes the config and the model's spec, changes the config where it must agree with the tokenizer, and returns
what is to be saved beside the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pytest_hfaccel.checkpoints.makers import chat, generic, images, pairs, sounds
from pytest_hfaccel.checkpoints.makers.texts import text
from pytest_hfaccel.core.spec import ModelSpec

Maker = Callable[[Any], list[Any]]

MAKERS: dict[str, Maker] = {
    "bert": partial(text, tokenizer_class="BertTokenizer"),
    "distilbert": partial(text, tokenizer_class="DistilBertTokenizer"),
    "roberta": partial(text, tokenizer_class="RobertaTokenizer"),
    "gpt2": partial(text, tokenizer_class="GPT2Tokenizer", pad_token="<|pad|>"),  # noqa: S106
    "t5": partial(text, tokenizer_class="T5Tokenizer"),
    "llama": partial(text, tokenizer_class="LlamaTokenizer", pad_token="<pad>"),  # noqa: S106
    "qwen2": partial(text, tokenizer_class="Qwen2Tokenizer"),
    "vit": partial(images.square, class_name="ViTImageProcessor"),
    "deit": partial(images.square, class_name="DeiTImageProcessor", crops=True),
    "detr": images.any_size,
    "sam": images.with_prompts,
    "clip": pairs.clip,
    "xclip": pairs.xclip,
    "clap": pairs.clap,
    "whisper": sounds.whisper,
    "wav2vec2": sounds.ctc,
    "llava": partial(chat.llava, tiled=False),
    "llava_next": partial(chat.llava, tiled=True),
}
"""Model types whose processors the generic maker does not get right."""


def make_processors(config: Any, spec: ModelSpec) -> list[Any]:
    """Make what a built checkpoint needs besides weights.

    Args:
        config: The model's config; special ids and vocabulary are made to agree with the tokenizer.
        spec: The model; its task says what a model type without a maker of its own gets.

    Raises:
        LoadError: The task needs a processor that nobody knows how to make for this model type.
    """
    maker = MAKERS.get(config.model_type)
    return maker(config) if maker is not None else generic.by_task(config, spec)
