"""Backbones that need another package or a download are replaced by their equivalent in transformers."""

from __future__ import annotations

from typing import Any

SUBSTITUTED = frozenset(["timm_backbone"])


def substitute(config: Any) -> Any:
    """Return a ResNet config that gives as many feature maps as a timm backbone.

    A ResNet-50, the default of transformers' config, is what the detection models name by default.
    """
    from transformers import ResNetConfig

    return ResNetConfig(out_indices=list(config.out_indices), num_channels=config.num_channels)


def without_timm(config: Any) -> Any:
    """Replace the timm backbone of a config in place."""
    backbone = getattr(config, "backbone_config", None)
    if getattr(backbone, "model_type", None) in SUBSTITUTED:
        config.backbone_config = substitute(backbone)
    return config
