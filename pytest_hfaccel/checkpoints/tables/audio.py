"""Special sizes, inputs and processors of audio models."""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.checkpoints.tables.draft import (
    BATCH,
    TOKENS,
    Change,
    Draft,
    chain,
    drop_inputs,
    ids,
    noise,
    ones,
    replace_inputs,
    set_inputs,
    where_taken,
)
from pytest_hfaccel.checkpoints.tables.sizes import HEAD_DIM, HIDDEN, VOCABULARY
from pytest_hfaccel.checkpoints.tables.tokenizers import (
    ProcessorMaker,
    ctc_tokenizer,
    match_config_to_tokenizer,
    train_tokenizer,
)

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
    # Without these settings they draw random numbers when they run.
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

_SPOKEN = noise(4000)
_ONE_CHANNEL = chain(drop_inputs("padding_mask"), where_taken("input_values", set_inputs(input_values=noise(1, 4000))))
_FRAMES = set_inputs(pixel_values_videos=noise(4, 3, 64, 64))


def _codebooks(name: str, decoder: str = "") -> Change:
    """MusicGen's tokens: the codebooks of each sample lie below each other."""

    def change(draft: Draft) -> None:
        config = getattr(draft.config, decoder) if decoder else draft.config
        if draft.takes(name) and hasattr(config, "num_codebooks"):
            length = 4 if decoder else TOKENS
            tokens = draft.ids(BATCH * config.num_codebooks, length, vocabulary=config.vocab_size)
            draft.inputs[name] = tokens
            if not decoder:
                draft.inputs["attention_mask"] = draft.ones(BATCH, length)

    return change


def _windows(path: str) -> Change:
    """Qwen3-ASR cuts spectrograms into windows of a fixed length."""

    def change(draft: Draft) -> None:
        config = getattr(draft.config, path) if path else draft.config
        frames = 2 * config.n_window
        draft.inputs["input_features"] = draft.noise(BATCH, config.num_mel_bins, frames)
        for name in ("input_features_mask", "feature_attention_mask"):
            if draft.takes(name):
                draft.inputs[name] = draft.ones(BATCH, frames)

    return change


def _clap_inputs(draft: Draft) -> None:
    if draft.takes("input_features"):
        config = getattr(draft.config, "audio_config", draft.config)
        draft.inputs.pop("input_features_mask", None)
        draft.inputs["input_features"] = draft.noise(BATCH, 1, 64, config.num_mel_bins)
        if draft.takes("is_longer"):
            draft.inputs["is_longer"] = draft.ones(BATCH, 1) < 1


def _dia_inputs(draft: Draft) -> None:
    """Dia writes several channels of tokens at once."""
    decoder = draft.config.decoder_config
    draft.inputs["input_ids"] = draft.integers(3, draft.config.encoder_config.vocab_size, BATCH, TOKENS)
    draft.inputs["decoder_input_ids"] = draft.integers(3, decoder.vocab_size - 4, BATCH, 6, decoder.num_channels)


def _kyutai(draft: Draft) -> None:
    """Kyutai's speech to text reads a text token and the sound's codes at each step."""
    import torch

    config = draft.config
    codes = draft.integers(0, config.codebook_vocab_size - 1, BATCH, TOKENS, config.num_codebooks)
    draft.inputs["input_ids"] = torch.cat([draft.ids(BATCH, TOKENS, 1), codes], -1)
    drop_inputs("input_values", "padding_mask", "input_values_mask")(draft)


def _granite_speech(draft: Draft) -> None:
    """Four stacked frames of 80 bins where the config does not say."""
    encoder = getattr(draft.config, "encoder_config", draft.config)
    draft.inputs["input_features"] = draft.noise(BATCH, 32, getattr(encoder, "input_dim", 320))


def _voxtral_realtime(draft: Draft) -> None:
    """Every token is heard: as many as the encoder leaves frames."""
    if "input_features" in draft.inputs:
        set_to = set_inputs(
            input_features=noise("audio_config.num_mel_bins", 128), input_ids=ids(16), attention_mask=ones(16)
        )
        set_to(draft)


def _delayed(draft: Draft) -> None:
    """Voxtral's decoder takes how far it lags behind the sound, in a parameter that only its layers name."""
    draft.inputs["t_cond"] = draft.noise(BATCH, 1, "hidden_size")


def _noise_per_frame(draft: Draft) -> None:
    """UnivNet shapes noise into sound, and draws its own random noise without this input."""
    frames = draft.inputs["input_features"].shape[1]
    set_inputs(noise_sequence=noise(frames, "model_in_channels"))(draft)


_MUSIC_DECODER = chain(drop_inputs("input_values", "padding_mask"), _codebooks("decoder_input_ids", "decoder"))

_WAVEFORM_AND_FEATURES = chain(
    drop_inputs("padding_mask", "input_features_mask"),
    set_inputs(input_values=noise(1, 3200), input_features=noise(10, 160)),
)

SPECIAL_INPUTS: dict[str, Change] = {
    "univnet": _noise_per_frame,
    "voxtral_realtime_text": _delayed,
    "musicgen_decoder": _codebooks("input_ids"),
    "musicgen_melody_decoder": _codebooks("input_ids"),
    "MusicgenForConditionalGeneration": _MUSIC_DECODER,
    "MusicgenMelodyForConditionalGeneration": _MUSIC_DECODER,
    "qwen3_asr": _windows("audio_config"),
    "qwen3_asr_encoder": _windows(""),
    # A spectrogram as a picture of one channel, and whether the sound was too long for it.
    "clap": _clap_inputs,
    "clap_audio_model": _clap_inputs,
    "dia": _dia_inputs,
    "kyutai_speech_to_text": _kyutai,
    "granite_speech5_ctc": _granite_speech,
    "granite_speech5_encoder": _granite_speech,
    "voxtral_realtime": _voxtral_realtime,
    # One model for every pair of text and speech; each class takes what its pair needs.
    "SpeechT5Model": replace_inputs(input_values=noise(8, "hidden_size"), decoder_input_values=noise(6, "hidden_size")),
    "SpeechT5ForSpeechToText": replace_inputs(input_values=_SPOKEN, decoder_input_ids=ids(6, vocabulary="vocab_size")),
    "SpeechT5ForTextToSpeech": replace_inputs(
        input_ids=ids(8, vocabulary="vocab_size"),
        decoder_input_values=noise(6, "num_mel_bins"),
        speaker_embeddings=noise("speaker_embedding_dim"),
    ),
    "SpeechT5ForSpeechToSpeech": replace_inputs(
        input_values=_SPOKEN,
        decoder_input_values=noise(6, "num_mel_bins"),
        speaker_embeddings=noise("speaker_embedding_dim"),
    ),
    "speech-encoder-decoder": chain(drop_inputs("inputs", "input_features"), set_inputs(input_values=noise(8000))),
    # The waveform, and the features of a semantic model of it.
    "neucodec": _WAVEFORM_AND_FEATURES,
    "xcodec2": _WAVEFORM_AND_FEATURES,
    "pe_audio": _ONE_CHANNEL,
    "pe_audio_encoder": _ONE_CHANNEL,
    "pe_audio_video": chain(_ONE_CHANNEL, _FRAMES),
    "pe_audio_video_encoder": chain(_ONE_CHANNEL, _FRAMES),
    # Stacked frames of 7 x 80 bins.
    "fun_asr_nano": set_inputs(input_features=noise(16, 560), input_features_mask=ones(16)),
    "fun_asr_nano_encoder": set_inputs(input_features=noise(16, 560), input_features_mask=ones(16)),
    # What an encoder left: latent vectors over time.
    "mimi_decoder": replace_inputs(latents=noise("hidden_size", 8)),
    "pocket_tts_audio_tokenizer_decoder": replace_inputs(latents=noise("hidden_size", 8)),
    "nemotron3_5_transcribe_word_timestamp": replace_inputs(inputs_embeds=noise(8, "hidden_size")),
    "vibevoice_acoustic_tokenizer_decoder": replace_inputs(hidden_states=noise("hidden_size", 8)),
    "vibevoice_acoustic_tokenizer_encoder": replace_inputs(hidden_states=noise(1, 6400)),
    "clvp": chain(
        drop_inputs("input_features_mask"),
        where_taken("input_features", set_inputs(input_features=noise("decoder_config.feature_size", 20))),
    ),
}


WHISPER_TOKENS = (
    "<|startoftranscript|>",
    "<|en|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
"""Whisper's control tokens in the order of its vocabulary, with one language."""

_POSITIONS_PER_SECOND = 50
"""Whisper has a hundred spectrogram frames per second, and two frames per position."""


def _whisper_processor(config: Any) -> list[Any]:
    """Make Whisper's processor; the spectrogram's length follows from the encoder's positions."""
    import transformers

    tokenizer = train_tokenizer("WhisperTokenizer", extra=WHISPER_TOKENS)
    # These name tokens of the real vocabulary.
    config.begin_suppress_tokens = config.suppress_tokens = None
    match_config_to_tokenizer(config, tokenizer)
    config.decoder_start_token_id = tokenizer.convert_tokens_to_ids(WHISPER_TOKENS[0])
    config.pad_token_id = tokenizer.eos_token_id
    features = transformers.WhisperFeatureExtractor(
        feature_size=config.num_mel_bins, chunk_length=config.max_source_positions // _POSITIONS_PER_SECOND
    )
    return [transformers.WhisperProcessor(feature_extractor=features, tokenizer=tokenizer)]


def _ctc_processor(config: Any) -> list[Any]:
    """Make Wav2Vec2's processor; models with group normalisation take no attention mask."""
    import transformers

    tokenizer = ctc_tokenizer()
    match_config_to_tokenizer(config, tokenizer)
    features = transformers.Wav2Vec2FeatureExtractor(
        return_attention_mask=getattr(config, "feat_extract_norm", "layer") == "layer"
    )
    return [transformers.Wav2Vec2Processor(feature_extractor=features, tokenizer=tokenizer)]


def _clap_processor(config: Any) -> list[Any]:
    """Make CLAP's processor: text and one second of sound.

    The real one takes ten seconds; the spectrogram is stretched to the model's size in either case.
    """
    import transformers

    tokenizer = train_tokenizer("RobertaTokenizer")
    match_config_to_tokenizer(config, tokenizer)
    features = transformers.ClapFeatureExtractor(
        feature_size=config.audio_config.num_mel_bins,
        max_length_s=1,
        truncation="rand_trunc",
        padding="repeatpad",
    )
    return [transformers.ClapProcessor(feature_extractor=features, tokenizer=tokenizer)]


PROCESSORS: dict[str, ProcessorMaker] = {
    "clap": _clap_processor,
    "whisper": _whisper_processor,
    "wav2vec2": _ctc_processor,
}
