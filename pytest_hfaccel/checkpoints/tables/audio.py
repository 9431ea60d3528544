"""Special inputs of audio models."""

from __future__ import annotations

import torch

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

_SPOKEN = noise(4000)
_ONE_CHANNEL = chain(drop_inputs("padding_mask"), set_inputs(input_values=noise(1, 4000)))
_AND_FRAMES = chain(_ONE_CHANNEL, set_inputs(pixel_values_videos=noise(4, 3, 64, 64)))
_STACKED_FRAMES = set_inputs(input_features=noise(16, 560), input_features_mask=ones(16))
_LATENTS = replace_inputs(latents=noise("hidden_size", 8))


def _codebooks(name: str, decoder: str = "") -> Change:
    """MusicGen's tokens: the codebooks of each sample lie below each other."""

    def change(draft: Draft) -> None:
        config = getattr(draft.config, decoder) if decoder else draft.config
        if draft.takes(name) and hasattr(config, "num_codebooks"):
            length = 4 if decoder else TOKENS
            draft.inputs[name] = draft.ids(BATCH * config.num_codebooks, length, vocabulary=config.vocab_size)
            if not decoder:
                draft.inputs["attention_mask"] = draft.ones(BATCH, length)

    return change


def _windows(path: str) -> Change:
    """Qwen3-ASR cuts spectrograms into windows of a fixed length."""

    def change(draft: Draft) -> None:
        config = getattr(draft.config, path) if path else draft.config
        frames = 2 * config.n_window
        draft.inputs["input_features"] = draft.noise(BATCH, config.num_mel_bins, frames)
        set_inputs(input_features_mask=ones(frames), feature_attention_mask=ones(frames))(draft)

    return change


def _clap_features(draft: Draft) -> torch.Tensor:
    return draft.noise(BATCH, 1, 64, getattr(draft.config, "audio_config", draft.config).num_mel_bins)


def _dia_inputs(draft: Draft) -> None:
    """Dia writes several channels of tokens at once."""
    decoder = draft.config.decoder_config
    draft.inputs["input_ids"] = draft.integers(3, draft.config.encoder_config.vocab_size, BATCH, TOKENS)
    draft.inputs["decoder_input_ids"] = draft.integers(3, decoder.vocab_size - 4, BATCH, 6, decoder.num_channels)


def _kyutai(draft: Draft) -> None:
    """Kyutai's speech to text reads a text token and the sound's codes at each step."""
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
        features = noise("audio_config.num_mel_bins", 128)
        set_inputs(input_features=features, input_ids=ids(16), attention_mask=ones(16))(draft)


def _delayed(draft: Draft) -> None:
    """Voxtral's decoder takes how far it lags behind the sound, in a parameter that only its layers name."""
    draft.inputs["t_cond"] = draft.noise(BATCH, 1, "hidden_size")


def _noise_per_frame(draft: Draft) -> None:
    """UnivNet shapes noise into sound, and draws its own random noise without this input."""
    frames = draft.inputs["input_features"].shape[1]
    set_inputs(noise_sequence=noise(frames, "model_in_channels"))(draft)


# A spectrogram as a picture of one channel, and whether the sound was too long for it.
_CLAP = where_taken(
    "input_features",
    chain(
        drop_inputs("input_features_mask"),
        set_inputs(input_features=_clap_features, is_longer=lambda draft: draft.ones(BATCH, 1) < 1),
    ),
)
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
    "clap": _CLAP,
    "clap_audio_model": _CLAP,
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
    "pe_audio_video": _AND_FRAMES,
    "pe_audio_video_encoder": _AND_FRAMES,
    # Stacked frames of 7 x 80 bins.
    "fun_asr_nano": _STACKED_FRAMES,
    "fun_asr_nano_encoder": _STACKED_FRAMES,
    # What an encoder left: latent vectors over time.
    "mimi_decoder": _LATENTS,
    "pocket_tts_audio_tokenizer_decoder": _LATENTS,
    "nemotron3_5_transcribe_word_timestamp": replace_inputs(inputs_embeds=noise(8, "hidden_size")),
    "vibevoice_acoustic_tokenizer_decoder": replace_inputs(hidden_states=noise("hidden_size", 8)),
    "vibevoice_acoustic_tokenizer_encoder": replace_inputs(hidden_states=noise(1, 6400)),
    "clvp": chain(
        drop_inputs("input_features_mask"), set_inputs(input_features=noise("decoder_config.feature_size", 20))
    ),
}
