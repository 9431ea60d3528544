"""Overrides for models of sound."""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.checkpoints.rules import HEAD_DIM, HIDDEN, VOCABULARY

_MIMI = {
    "num_filters": 16,
    "hidden_size": HIDDEN,
    "codebook_size": 32,
    "codebook_dim": 16,
    "vector_quantization_hidden_dimension": 16,
    "upsample_groups": HIDDEN,
    "num_quantizers": 4,
    "head_dim": HEAD_DIM,
    "num_hidden_layers": 2,
}
_POCKET = {"upsample_groups": HIDDEN, "num_filters": 16}

OVERRIDES: dict[str, dict[str, Any]] = {
    # These draw random numbers when they run, unless they are told not to.
    "vits": {"noise_scale": 0.0, "noise_scale_duration": 0.0},
    "speecht5": {"speech_decoder_prenet_dropout": 0.0},
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
    # Two spectrogram frames per position, a hundred frames per second: 50 positions are one second of sound.
    "whisper": {"max_source_positions": 50},
    # None by default: heads for text need a vocabulary.
    "wav2vec2-bert": {"vocab_size": 64},
    "wav2vec2-conformer": {"vocab_size": 64},
    # Widths double from layer to layer of the codec, and end at the hidden size.
    "mimi": _MIMI,
    "mimi_decoder": _MIMI,
    "mimi_encoder": _MIMI,
    "pocket_tts_audio_tokenizer": _POCKET,
    "pocket_tts_audio_tokenizer_decoder": _POCKET,
    "pocket_tts_audio_tokenizer_encoder": _POCKET,
    # As many codebooks as the tiny Mimi has.
    "moshi": {
        "num_codebooks": 4,
        "audio_encoder_config": {"num_quantizers": 4},
        "audio_vocab_size": 32,
        "head_dim": HEAD_DIM,
    },
    # Two decoders over the same codebooks.
    "csm": {
        "num_codebooks": 4,
        "text_vocab_size": VOCABULARY,
        "vocab_size": 64,
        "codebook_pad_token_id": 60,
        "codebook_eos_token_id": 0,
        "depth_decoder_config": {
            "num_codebooks": 4,
            "vocab_size": 64,
            "backbone_hidden_size": HIDDEN,
            "head_dim": HEAD_DIM,
        },
        "head_dim": HEAD_DIM,
    },
    "kyutai_speech_to_text": {
        "num_codebooks": 4,
        "codebook_vocab_size": 33,
        "audio_pad_token_id": 32,
        "head_dim": HEAD_DIM,
    },
    # One window per layer.
    "moonshine_streaming_encoder": {"sliding_windows": [[16, 4], [16, 0]], "num_key_value_heads": 4},
    "moonshine_streaming": {"num_key_value_heads": 4},
    # At least 32 of a head are rotated.
    "clvp_encoder": {"hidden_size": 128},
    # The speech encoder reads what the decoder writes.
    "clvp": {"speech_config": {"vocab_size": VOCABULARY}},
    # Both encoders' widths, beside each other.
    "neucodec": {"quantization_dim": 2 * HIDDEN, "encoder_hidden_size": 8},
    "xcodec2": {"quantization_dim": 2 * HIDDEN, "encoder_hidden_size": 8},
    # Widths halve, and double, from stage to stage.
    "dac": {"encoder_hidden_size": 8, "decoder_hidden_size": 128, "hidden_size": 128},
    "vibevoice_acoustic_tokenizer": {"num_filters": 4},
    "vibevoice_acoustic_tokenizer_encoder": {"num_filters": 4},
    "vibevoice_acoustic_tokenizer_decoder": {"num_filters": 4},
    # A quarter of the text's width.
    "fun_asr_nano": {"adaptor_config": {"intermediate_size": HIDDEN // 4}},
}
