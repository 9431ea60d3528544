"""Feature extractors for sound, and the tokenizers of what is heard."""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.checkpoints.makers.corpus import WHISPER_TOKENS
from pytest_hfaccel.checkpoints.makers.texts import agree, ctc_tokenizer, train_tokenizer

_POSITIONS_PER_SECOND = 50
"""Whisper has a hundred spectrogram frames per second, and two frames per position."""


def whisper(config: Any) -> list[Any]:
    """Make Whisper's processor; the spectrogram's length follows from the encoder's positions."""
    import transformers

    tokenizer = train_tokenizer("WhisperTokenizer", extra=WHISPER_TOKENS)
    # These name tokens of the real vocabulary.
    config.begin_suppress_tokens = config.suppress_tokens = None
    agree(config, tokenizer)
    config.decoder_start_token_id = tokenizer.convert_tokens_to_ids(WHISPER_TOKENS[0])
    config.pad_token_id = tokenizer.eos_token_id
    features = transformers.WhisperFeatureExtractor(
        feature_size=config.num_mel_bins, chunk_length=config.max_source_positions // _POSITIONS_PER_SECOND
    )
    return [transformers.WhisperProcessor(feature_extractor=features, tokenizer=tokenizer)]


def ctc(config: Any) -> list[Any]:
    """Make Wav2Vec2's processor; models with group normalisation take no attention mask."""
    import transformers

    tokenizer = ctc_tokenizer()
    agree(config, tokenizer)
    features = transformers.Wav2Vec2FeatureExtractor(
        return_attention_mask=getattr(config, "feat_extract_norm", "layer") == "layer"
    )
    return [transformers.Wav2Vec2Processor(feature_extractor=features, tokenizer=tokenizer)]
