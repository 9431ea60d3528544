"""Overrides for models of text with images, video or sound."""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.checkpoints.rules import HIDDEN, VOCABULARY

_IMAGE = VOCABULARY - 60
"""An id for the image token where a config states none that fits."""

_CODES = 32
_ONE_TILE = {"image_grid_pinpoints": [[64, 64]], "vision_config": {"image_size": 64, "patch_size": 16}}
_QUANTIZER = {"base_channels": 32, "channel_multiplier": [1, 1], "embed_dim": 16, "latent_channels": 16}

OVERRIDES: dict[str, dict[str, Any]] = {
    # One grid of one tile: the base image and one crop.
    "llava_next": _ONE_TILE,
    "llava_next_video": _ONE_TILE,
    "llava_onevision": _ONE_TILE,
    # So many queries for so many patches.
    "aria": {"projector_patch_to_query_dict": {16: 4}, "image_token_index": 9},
    # The names of the image codes in the vocabulary: letters for digits.
    "chameleon": {
        "vocabulary_map": {
            "<image>": _IMAGE,
            **{f"IMGIMG{chr(65 + code // 8)}{chr(65 + code % 8)}Z": 100 + code for code in range(64)},
        },
        "vq_config": {
            **_QUANTIZER,
            "num_embeddings": _CODES,
            "resolution": 32,
            "num_res_blocks": 1,
            "attn_type": "none",
        },
        "image_token_id": _IMAGE,
    },
    "emu3": {
        "vocabulary_map": {
            "<image>": _IMAGE,
            "<|extra_200|>": _IMAGE - 1,
            **{f"<|visual token {code:06d}|>": 100 + code for code in range(_CODES)},
        },
        "vq_config": {
            **_QUANTIZER,
            "codebook_size": _CODES,
            "z_channels": 16,
            "num_res_blocks": 1,
            "hidden_size": 32,
            "attn_resolutions": [],
            "temporal_downsample_factor": 1,
        },
        "image_token_id": _IMAGE,
    },
    # Two intermediate layers beside the last one's output make three hidden sizes; one layer looks at the image.
    "mllama_vision_model": {
        "intermediate_layers_indices": [0, 1],
        "vision_output_dim": 3 * HIDDEN,
        "num_global_layers": 1,
        "attention_heads": 4,
    },
    "mllama": {"text_config": {"cross_attention_layers": [1]}, "image_token_index": _IMAGE},
    "qwen2_5_omni_thinker": {"vision_start_token_id": _IMAGE - 1, "vision_end_token_id": _IMAGE - 2},
    "qwen3_omni_moe_thinker": {"vision_start_token_id": _IMAGE - 1, "vision_end_token_id": _IMAGE - 2},
    # Patches are shuffled into a quarter as many of four times the width.
    "llama4_vision_model": {
        "intermediate_size": 256,
        "projector_input_dim": HIDDEN,
        "projector_output_dim": HIDDEN,
        "vision_output_dim": HIDDEN,
    },
    # The width of a flat patch: 16 x 16 pixels of three colours.
    "pix2struct_vision_model": {"patch_embed_hidden_size": 768},
    "pix2struct": {"vision_config": {"patch_embed_hidden_size": 768}},
    "unlimited_ocr_vision_encoder": {"hidden_size": 64},
    "gemma4_assistant": {"text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}},
    # Four patches are merged into each vector that leaves the vision model.
    "muse_glimmer": {"out_hidden_size": 4 * HIDDEN},
    "muse_spark": {"out_hidden_size": 4 * HIDDEN},
    # Every layer stacks frames by its own factor, 32 samples in all.
    "muse_spark_audio": {
        "patch_sizes": [8, 4],
        "hidden_sizes": [16, 32],
        "depths": [1, 1],
        "num_hidden_layers": 2,
    },
    # Which layer of the vision model feeds which of the text model.
    "granite4_vision": {
        "deepstack_layer_map": [[0, 0]],
        "downsample_rate": "2/4",
        "spatial_target_layers": [0, 1],
        "image_grid_pinpoints": [[64, 64]],
        "vision_config": {"image_size": 64, "patch_size": 16},
    },
    "molmo2_adapter": {"vision_feature_layer": [1, 0]},
    # The tokens whose logits are the answer.
    "shieldgemma2": {"yes_token_index": 100, "no_token_index": 101},
    # The image tower's width, which the text projection meets.
    "align": {"projection_dim": 80},
}
