"""Running a vision-language model in two parts, because its whole forward pass depends on where the image tokens are.

Imports torch: import this file late.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

_CROPS = 5
"""Crops of an image in models that tile it (LLaVA-Next): the whole image and two by two tiles."""


def run_in_parts(model: Any, inputs: Mapping[str, torch.Tensor], length: int) -> Any:
    """Encode the images, then run the language model on texts of `length` tokens with the image tokens among them.

    Args:
        model: A model with `get_image_features`.
        inputs: Holds `pixel_values`: images, of shape (batch, channels, height, width).
        length: Tokens per sample besides those of the image.

    Returns:
        The outputs of both parts, which are alive together at the end.
    """
    images = inputs["pixel_values"]
    batch = images.shape[0]
    features = _image_features(model, images)
    hidden = model.config.get_text_config().hidden_size
    tokens = sum(feature.numel() for feature in features) // hidden // batch
    embeddings = torch.empty(batch, length + tokens, hidden, dtype=images.dtype)
    mask = torch.ones(batch, length + tokens, dtype=torch.int64)
    return features, model(inputs_embeds=embeddings, attention_mask=mask)


def _image_features(model: Any, images: torch.Tensor) -> list[torch.Tensor]:
    batch, channels, height, width = images.shape
    if getattr(model.config, "image_grid_pinpoints", None) is None:
        found = model.get_image_features(pixel_values=images)
    else:
        crops = torch.empty(batch, _CROPS, channels, height, width, dtype=images.dtype)
        found = model.get_image_features(pixel_values=crops, image_sizes=[[2 * height, 2 * width]] * batch)
    pooled = getattr(found, "pooler_output", None)
    features = found if pooled is None else pooled
    return [features] if isinstance(features, torch.Tensor) else list(features)
