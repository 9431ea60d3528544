"""Special inputs of models of sound."""

from __future__ import annotations

from pytest_hfaccel.checkpoints.inputs.generic.draft import BATCH, TOKENS, Draft
from pytest_hfaccel.checkpoints.inputs.generic.special.recipes import (
    Change,
    both,
    given,
    ids,
    noise,
    ones,
    only,
    where_taken,
    without,
)

_SPOKEN = noise(4000)
_ONE_CHANNEL = both(without("padding_mask"), where_taken("input_values", given(input_values=noise(1, 4000))))
_FRAMES = given(pixel_values_videos=noise(4, 3, 64, 64))


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


def _clap(draft: Draft) -> None:
    if draft.takes("input_features"):
        config = getattr(draft.config, "audio_config", draft.config)
        draft.inputs.pop("input_features_mask", None)
        given(input_features=noise(1, 64, config.num_mel_bins), is_longer=lambda draft: draft.ones(BATCH, 1) < 1)(draft)


def _dia(draft: Draft) -> None:
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
    without("input_values", "padding_mask", "input_values_mask")(draft)


def _granite_speech(draft: Draft) -> None:
    """Four stacked frames of 80 bins where the config does not say."""
    encoder = getattr(draft.config, "encoder_config", draft.config)
    draft.inputs["input_features"] = draft.noise(BATCH, 32, getattr(encoder, "input_dim", 320))


def _voxtral_realtime(draft: Draft) -> None:
    """Every token is heard: as many as the encoder leaves frames."""
    if "input_features" in draft.inputs:
        given(input_features=noise("audio_config.num_mel_bins", 128), input_ids=ids(16), attention_mask=ones(16))(draft)


def _delayed(draft: Draft) -> None:
    """Voxtral's decoder is told how far it lags behind the sound, by a parameter that only its layers name."""
    draft.inputs["t_cond"] = draft.noise(BATCH, 1, "hidden_size")


def _noise_per_frame(draft: Draft) -> None:
    """UnivNet shapes noise into sound, and draws it itself where none is given."""
    frames = draft.inputs["input_features"].shape[1]
    given(noise_sequence=noise(frames, "model_in_channels"))(draft)


SPECIAL: dict[str, Change] = {
    "univnet": _noise_per_frame,
    "voxtral_realtime_text": _delayed,
    "musicgen_decoder": _codebooks("input_ids"),
    "musicgen_melody_decoder": _codebooks("input_ids"),
    "MusicgenForConditionalGeneration": both(
        without("input_values", "padding_mask"), _codebooks("decoder_input_ids", "decoder")
    ),
    "MusicgenMelodyForConditionalGeneration": both(
        without("input_values", "padding_mask"), _codebooks("decoder_input_ids", "decoder")
    ),
    "qwen3_asr": _windows("audio_config"),
    "qwen3_asr_encoder": _windows(""),
    # A spectrogram as a picture of one channel, and whether the sound was too long for it.
    "clap": _clap,
    "clap_audio_model": _clap,
    "dia": _dia,
    "kyutai_speech_to_text": _kyutai,
    "granite_speech5_ctc": _granite_speech,
    "granite_speech5_encoder": _granite_speech,
    "voxtral_realtime": _voxtral_realtime,
    # One model for every pair of text and speech; each class takes what its pair needs.
    "SpeechT5Model": only(input_values=noise(8, "hidden_size"), decoder_input_values=noise(6, "hidden_size")),
    "SpeechT5ForSpeechToText": only(input_values=_SPOKEN, decoder_input_ids=ids(6, vocabulary="vocab_size")),
    "SpeechT5ForTextToSpeech": only(
        input_ids=ids(8, vocabulary="vocab_size"),
        decoder_input_values=noise(6, "num_mel_bins"),
        speaker_embeddings=noise("speaker_embedding_dim"),
    ),
    "SpeechT5ForSpeechToSpeech": only(
        input_values=_SPOKEN,
        decoder_input_values=noise(6, "num_mel_bins"),
        speaker_embeddings=noise("speaker_embedding_dim"),
    ),
    "speech-encoder-decoder": both(without("inputs", "input_features"), given(input_values=noise(8000))),
    # The waveform, and the features of a semantic model of it.
    "neucodec": both(
        without("padding_mask", "input_features_mask"),
        given(input_values=noise(1, 3200), input_features=noise(10, 160)),
    ),
    "xcodec2": both(
        without("padding_mask", "input_features_mask"),
        given(input_values=noise(1, 3200), input_features=noise(10, 160)),
    ),
    "pe_audio": _ONE_CHANNEL,
    "pe_audio_encoder": _ONE_CHANNEL,
    "pe_audio_video": both(_ONE_CHANNEL, _FRAMES),
    "pe_audio_video_encoder": both(_ONE_CHANNEL, _FRAMES),
    # Stacked frames of 7 x 80 bins.
    "fun_asr_nano": given(input_features=noise(16, 560), input_features_mask=ones(16)),
    "fun_asr_nano_encoder": given(input_features=noise(16, 560), input_features_mask=ones(16)),
    # The mask says what to leave out.
    "gemma3n_audio": only(
        audio_mel=noise(32, "input_feat_size"), audio_mel_mask=lambda draft: draft.ones(BATCH, 32) < 1
    ),
    # What an encoder left: latent vectors over time.
    "mimi_decoder": only(latents=noise("hidden_size", 8)),
    "pocket_tts_audio_tokenizer_decoder": only(latents=noise("hidden_size", 8)),
    "nemotron3_5_transcribe_word_timestamp": only(inputs_embeds=noise(8, "hidden_size")),
    "vibevoice_acoustic_tokenizer_decoder": only(hidden_states=noise("hidden_size", 8)),
    "vibevoice_acoustic_tokenizer_encoder": only(hidden_states=noise(1, 6400)),
    "clvp": both(
        without("input_features_mask"),
        where_taken("input_features", given(input_features=noise("decoder_config.feature_size", 20))),
    ),
}
