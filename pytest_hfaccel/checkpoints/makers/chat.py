"""Processors of language models that are shown pictures."""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.checkpoints.makers.corpus import CHAT_TEMPLATE
from pytest_hfaccel.checkpoints.makers.images import cropping
from pytest_hfaccel.checkpoints.makers.texts import agree, train_tokenizer

_IMAGE = "<image>"
_CLASS_TOKENS = 1
"""The vision model's class token, which LLaVA counts and then drops."""


def llava(config: Any, *, tiled: bool) -> list[Any]:
    """Make LLaVA's processor, or LLaVA-NeXT's, which also cuts a picture into tiles."""
    import transformers

    tokenizer = train_tokenizer("LlamaTokenizer", extra=(_IMAGE,), pad_token="<pad>")  # noqa: S106
    config.image_token_index = config.image_token_id = tokenizer.convert_tokens_to_ids(_IMAGE)
    agree(config, tokenizer)
    side, patch = config.vision_config.image_size, config.vision_config.patch_size
    config.image_seq_length = (side // patch) ** 2
    options = {"image_grid_pinpoints": config.image_grid_pinpoints} if tiled else {}
    pictures = cropping("LlavaNextImageProcessor" if tiled else "CLIPImageProcessor", side, **options)
    processor = transformers.LlavaNextProcessor if tiled else transformers.LlavaProcessor
    return [
        processor(
            image_processor=pictures,
            tokenizer=tokenizer,
            patch_size=patch,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            image_token=_IMAGE,
            num_additional_image_tokens=_CLASS_TOKENS,
            chat_template=CHAT_TEMPLATE,
        )
    ]
