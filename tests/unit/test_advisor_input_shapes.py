"""The shapes of inputs, from a config and the arguments of `forward`."""

from __future__ import annotations

from types import SimpleNamespace

from pytest_hfaccel.advisor.tracing.input_shapes import input_shapes, text_length


def config(**fields: object) -> SimpleNamespace:
    return SimpleNamespace(**{"model_type": "some", "is_encoder_decoder": False, **fields})


def shapes(arguments: dict[str, bool], main: str = "input_ids", length: int = 8, **fields: object) -> dict[str, tuple]:
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
    whisper = {"model_type": "whisper", "num_mel_bins": 80, "max_source_positions": 1500, "is_encoder_decoder": True}
    found = shapes({"input_features": False, "decoder_input_ids": False}, "input_features", **whisper)
    assert found == {"input_features": (2, 80, 3000), "decoder_input_ids": (2, 8)}


def test_texts_are_no_longer_than_the_positions() -> None:
    assert text_length(config(max_position_embeddings=77), 128) == 77
    assert text_length(config(n_positions=1024), 128) == 128
    assert text_length(config(), 128) == 128
