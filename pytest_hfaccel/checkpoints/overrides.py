"""What the generic rules get wrong, by model type: config fields of the tiny model, each with the reason.

The key is the `model_type` of a config or of a sub-config. Values replace what `shrink` gave.
"""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.checkpoints.rules import HIDDEN

OVERRIDES: dict[str, dict[str, Any]] = {
    # A backbone's widths double from stage to stage, and depths are lists.
    "resnet": {"embedding_size": 32, "hidden_sizes": [32, 32, 64, 64], "depths": [1, 1, 1, 1]},
    # The heads must divide d_model, and the backbone must come from transformers: timm's needs a download.
    "detr": {
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "use_timm_backbone": False,
        "use_pretrained_backbone": False,
    },
    # A Swin: four stages whose width doubles; the spectrogram is a square image of `spec_size`.
    "clap_audio_model": {
        "patch_embeds_hidden_size": 16,
        "hidden_size": 128,
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 2, 4, 8],
        "spec_size": 128,
        "window_size": 4,
        "num_mel_bins": 32,
        "aff_block_r": 2,
    },
    # Attention outside these layers is windowed; one of each kind.
    "sam_vision_model": {
        "global_attn_indexes": [1],
        "window_size": 2,
        "num_pos_feats": HIDDEN // 2,
        "mlp_dim": 128,
        "hidden_size": HIDDEN,
    },
    "sam_prompt_encoder": {"image_size": 64, "image_embedding_size": 4},
    # One tile of one size: the base image and one crop.
    "llava_next": {"image_grid_pinpoints": [[64, 64]], "vision_config": {"image_size": 64, "patch_size": 16}},
    # Real spectrograms have 3000 frames, two per position; 50 positions are one second of audio.
    "whisper": {"max_source_positions": 50},
    # Group normalisation of the first convolution needs as many groups as channels, and no channel may be alone.
    "wav2vec2": {"conv_dim": [32] * 7, "num_feat_extract_layers": 7},
    "xclip": {"prompt_layers": 1},
    # A frame count that is no power of two would hide axes that were swapped; fewer frames are faster.
    "xclip_vision_model": {"num_frames": 4},
}
