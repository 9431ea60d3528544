"""What the generic rules get wrong, by model type: arguments of the tiny config, each with the reason.

The key is the `model_type` of a config or of a nested config. Values replace what `shrink` gave; dictionaries merge.
"""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.checkpoints.rules import HIDDEN

OVERRIDES: dict[str, dict[str, Any]] = {
    # Bottleneck blocks divide their width by four, and four stages of the rule's widths are 600,000 parameters.
    "resnet": {"embedding_size": 32, "hidden_sizes": [32, 32, 64, 64]},
    # A Swin: the last stage's width, 16 * 2**3, is stated besides. The spectrogram is folded into a square image of
    # `spec_size`, whose patches must fill whole windows in each of the first stages.
    "clap_audio_model": {
        "patch_embeds_hidden_size": 16,
        "hidden_size": 128,
        "num_attention_heads": [1, 2, 4, 8],
        "spec_size": 128,
        "window_size": 4,
        "num_mel_bins": 32,
        "aff_block_r": 2,
    },
    # One layer with global and one with windowed attention; 4 x 4 patches hold four windows of 2.
    "sam_vision_model": {"num_hidden_layers": 2, "global_attn_indexes": [1], "window_size": 2, "mlp_dim": 2 * HIDDEN},
    # Half of the vision model's output channels, for each of the two coordinates; sizes as in the vision model.
    "sam_prompt_encoder_config": {"image_size": 64, "image_embedding_size": 4},
    # One grid of one tile: the base image and one crop.
    "llava_next": {"image_grid_pinpoints": [[64, 64]], "vision_config": {"image_size": 64, "patch_size": 16}},
    # Two spectrogram frames per position, a hundred frames per second: 50 positions are one second of sound.
    "whisper": {"max_source_positions": 50},
    # Embeddings of the usual size drown the layers where they are tied to the head: every token generates itself.
    "t5": {"initializer_factor": 0.02},
    "mt5": {"initializer_factor": 0.02},
    # Fewer frames are faster, and the message tokens are one per frame.
    "xclip_vision_model": {"num_frames": 4},
}
