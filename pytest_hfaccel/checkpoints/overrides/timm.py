"""Overrides for models whose eyes come from timm: its own models for tests, of a quarter of a million parameters."""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.checkpoints.rules import HIDDEN

_CONVOLUTIONS = "test_convnext"
_WIDTHS = [24, 32, 48, 64]
"""The channels of its feature maps, of a fourth, eighth, sixteenth and thirty-second of the picture's sides."""

_PATCHES = {"architecture": "test_vit", "model_args": {"embed_dim": HIDDEN, "img_size": [64, 64]}}
"""Patches of 16 x 16 pixels."""

OVERRIDES: dict[str, dict[str, Any]] = {
    "timm_wrapper": {"architecture": _CONVOLUTIONS},
    # Its default names none.
    "timm_backbone": {"backbone": _CONVOLUTIONS},
    "edgetam_vision_model": {
        # A config of timm takes the number of labels by its own name.
        "backbone_config": {"architecture": _CONVOLUTIONS, "num_classes": 2},
        "backbone_channel_list": _WIDTHS[::-1],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": HIDDEN,
    },
    # The arguments of the default are FastViT's own.
    "fast_vlm": {"vision_config": {"model_args": None, "hidden_size": _WIDTHS[-1]}},
    # The last feature map of a picture of 64 pixels a side has 2 x 2 places.
    "gemma3n_vision": {"architecture": _CONVOLUTIONS, "hidden_size": _WIDTHS[-1]},
    "gemma3n": {"vision_soft_tokens_per_image": 4},
    "perception_lm": {"vision_config": {**_PATCHES, "do_pooling": False}},
    "pe_video_encoder": {"vision_config": _PATCHES},
}
