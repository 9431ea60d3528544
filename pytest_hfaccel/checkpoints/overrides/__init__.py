"""What the generic rules get wrong, by model type: arguments of the tiny config, each with the reason.

The key is the `model_type` of a config or of a nested config. Values replace what `shrink` gave; dictionaries merge.
"""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.checkpoints.overrides import mixed, sound, text, timm, vision

OVERRIDES: dict[str, dict[str, Any]] = {
    **text.OVERRIDES,
    **vision.OVERRIDES,
    **timm.OVERRIDES,
    **sound.OVERRIDES,
    **mixed.OVERRIDES,
}

DEFAULTS: dict[str, dict[str, Any]] = {
    # The text config's own defaults are refused: an assistant has no inputs per layer, and shares all of its layers.
    "gemma4_assistant": {
        "text_config": {
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": 0,
            "num_kv_shared_layers": 30,
            "model_type": "gemma4_text",
        }
    },
    # The default encoder is named by another spelling than the one it is registered under.
    "nougat": {"encoder": {"model_type": "donut-swin"}, "decoder": {"model_type": "mbart", "is_decoder": True}},
}
"""Arguments of the real config of model types whose class cannot be made without any."""
