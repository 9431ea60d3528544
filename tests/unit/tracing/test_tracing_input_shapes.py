"""The shapes of inputs, from a config and the arguments of `forward`."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pytest_hfaccel.tracing.input_shapes import InputShape, input_shapes, text_length


def config(**fields: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"model_type": "some", "is_encoder_decoder": False, **fields})


def shapes(
    arguments: dict[str, bool], main: str = "input_ids", length: int = 8, **fields: Any
) -> dict[str, tuple[int, ...]]:
    found = input_shapes(config(**fields), arguments, main, 2, length)
    return {name: shape.shape for name, shape in found.items()}


def test_text() -> None:
    arguments = {"input_ids": False, "attention_mask": False, "labels": False}
    assert shapes(arguments) == {"input_ids": (2, 8), "attention_mask": (2, 8)}


def test_an_encoder_decoder_also_gets_decoder_inputs() -> None:
    arguments = {"input_ids": False, "decoder_input_ids": False}
    assert shapes(arguments, is_encoder_decoder=True)["decoder_input_ids"] == (2, 8)
    assert "decoder_input_ids" not in shapes(arguments)


def test_images_have_the_size_of_the_config() -> None:
    arguments = {"pixel_values": False}
    assert shapes(arguments, "pixel_values", image_size=32) == {"pixel_values": (2, 3, 32, 32)}
    assert shapes(arguments, "pixel_values", image_size=[16, 8], num_channels=1) == {"pixel_values": (2, 1, 16, 8)}


def test_videos_have_frames() -> None:
    found = shapes({"pixel_values": False}, "pixel_values", model_type="videomae", num_frames=4, image_size=16)
    assert found == {"pixel_values": (2, 4, 3, 16, 16)}


def test_speech() -> None:
    assert shapes({"input_values": False}, "input_values") == {"input_values": (2, 16000)}
    whisper: dict[str, Any] = {
        "model_type": "whisper",
        "num_mel_bins": 80,
        "max_source_positions": 1500,
        "is_encoder_decoder": True,
    }
    found = shapes({"input_features": False, "decoder_input_ids": False}, "input_features", **whisper)
    assert found == {"input_features": (2, 80, 3000), "decoder_input_ids": (2, 8)}


def test_spectrograms() -> None:
    ast: dict[str, Any] = {"model_type": "audio-spectrogram-transformer", "max_length": 1024, "num_mel_bins": 128}
    assert shapes({"input_values": False}, "input_values", **ast) == {"input_values": (2, 1024, 128)}
    clap: dict[str, Any] = {"model_type": "clap_audio_model", "spec_size": 256, "num_mel_bins": 64}
    assert shapes({"input_features": True}, "input_features", **clap) == {"input_features": (2, 1, 1024, 64)}
    speech: dict[str, Any] = {"model_type": "speech_to_text", "input_feat_per_channel": 80, "input_channels": 1}
    assert shapes({"input_features": True}, "input_features", **speech) == {"input_features": (2, 100, 80)}
    other: dict[str, Any] = {"feature_projection_input_dim": 160}
    assert shapes({"input_features": True}, "input_features", **other) == {"input_features": (2, 100, 160)}


def test_pairs_get_both_sides() -> None:
    arguments = {"input_ids": False, "pixel_values": False, "attention_mask": False, "pixel_mask": False}
    assert shapes(arguments, image_size=32) == {
        "input_ids": (2, 8),
        "attention_mask": (2, 8),
        "pixel_values": (2, 3, 32, 32),
    }


def test_masks_over_images_are_given_where_required() -> None:
    found = input_shapes(config(image_size=32), {"pixel_values": True, "pixel_mask": True}, "pixel_values", 2, 0)
    assert found["pixel_mask"] == InputShape((2, 32, 32))


def test_points_for_segment_anything() -> None:
    found = shapes({"pixel_values": False, "input_points": False}, "pixel_values", model_type="sam", image_size=32)
    assert found["input_points"] == (2, 1, 1, 2)


def test_time_series() -> None:
    patches: dict[str, Any] = {"context_length": 32, "num_input_channels": 3}
    assert shapes({"past_values": True}, "past_values", **patches) == {"past_values": (2, 32, 3)}
    required = {"past_values": True, "past_time_features": True, "past_observed_mask": True}
    lags: dict[str, Any] = {"context_length": 32, "lags_sequence": [1, 7], "input_size": 1, "num_time_features": 2}
    assert shapes(required, "past_values", **lags) == {
        "past_values": (2, 39),
        "past_time_features": (2, 39, 2),
        "past_observed_mask": (2, 39),
    }


def test_texts_are_no_longer_than_the_positions() -> None:
    assert text_length(config(max_position_embeddings=77), 128) == 77
    assert text_length(config(n_positions=1024), 128) == 128
    assert text_length(config(), 128) == 128
    roberta = config(model_type="roberta", max_position_embeddings=514, pad_token_id=1)
    assert text_length(roberta, 600) == 512  # the first two positions are those before any token
