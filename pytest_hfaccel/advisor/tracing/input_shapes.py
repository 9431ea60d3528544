"""The shapes of a model's inputs, from its config and the arguments of its `forward`. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_SECONDS_OF_AUDIO = 1
_SAMPLING_RATE = 16_000
"""Samples per second of the speech models that take a waveform (wav2vec2 and its relatives)."""
_FALLBACK_IMAGE, _FALLBACK_FRAMES, _FALLBACK_MELS = 224, 8, 80
_POSITIONS = ("max_position_embeddings", "n_positions", "max_target_positions")
_VIDEO = ("xclip", "videomae", "vivit", "timesformer", "vjepa2")
"""Model types whose `pixel_values` are videos: an axis of frames before the channels."""


@dataclass(frozen=True)
class InputShape:
    """Shape of an input, and whether it holds floating-point numbers (else int64)."""

    shape: tuple[int, ...]
    floating: bool = False


def text_length(config: Any, wanted: int) -> int:
    """Return the tokens per sample a model can take, at most `wanted`; models with few positions take fewer."""
    limits = [getattr(part, name, None) for part in _with_parts(config) for name in _POSITIONS]
    return min([wanted, *(limit for limit in limits if isinstance(limit, int) and limit > 0)])


def input_shapes(
    config: Any, arguments: Mapping[str, bool], main_input: str, batch: int, length: int
) -> dict[str, InputShape]:
    """Return the inputs of a forward pass.

    Args:
        config: The model's config.
        arguments: Argument names of `forward`, and whether each must be given.
        main_input: The model's `main_input_name`.
        batch: Samples.
        length: Tokens per sample; see `text_length`.
    """
    text = InputShape((batch, length))
    shapes: dict[str, InputShape] = {}
    if "input_ids" in arguments:
        shapes["input_ids"] = text
    if "input_ids" in arguments and "attention_mask" in arguments:
        shapes["attention_mask"] = text
    if "decoder_input_ids" in arguments and config.is_encoder_decoder:
        shapes["decoder_input_ids"] = text
    for name, make in _MEDIA.items():
        wanted = name == main_input or arguments.get(name) or ("input_ids" in shapes and name == "pixel_values")
        wanted = wanted or ("input_ids" in shapes and name == "input_features")
        if name in arguments and wanted:
            shapes[name] = InputShape((batch, *make(config, length)), floating=True)
    if arguments.get("input_points") is not None and config.model_type.startswith("sam"):
        shapes["input_points"] = InputShape((batch, 1, 1, 2), floating=True)
    return shapes


def _image(config: Any, _length: int) -> tuple[int, ...]:
    height, width = _pair(_field(config, "image_size", _FALLBACK_IMAGE))
    image = (int(_field(config, "num_channels", 3)), height, width)
    return (int(_field(config, "num_frames", _FALLBACK_FRAMES)), *image) if config.model_type in _VIDEO else image


def _video(config: Any, length: int) -> tuple[int, ...]:
    image = _image(config, length)
    return image if len(image) == 4 else (int(_field(config, "num_frames", _FALLBACK_FRAMES)), *image)


def _waveform(_config: Any, _length: int) -> tuple[int, ...]:
    return (_SECONDS_OF_AUDIO * _SAMPLING_RATE,)


def _spectrogram(config: Any, _length: int) -> tuple[int, ...]:
    mels = int(_field(config, "num_mel_bins", _FALLBACK_MELS))
    if config.model_type.startswith("clap"):
        # CLAP's audio tower takes (channel, time, mel); its spectrogram is resized to a square of `spec_size`.
        return (1, int(_field(config, "spec_size", 256)) * 4, mels)
    positions = _field(config, "max_source_positions", 0)
    frames = 2 * int(positions) if config.model_type == "whisper" else 100 * _SECONDS_OF_AUDIO
    return (mels, frames) if config.model_type == "whisper" else (frames, mels)


_MEDIA = {
    "pixel_values": _image,
    "pixel_values_videos": _video,
    "input_values": _waveform,
    "input_features": _spectrogram,
}


def _field(config: Any, name: str, default: Any) -> Any:
    """Return a field of a config, or of the nested config that has it."""
    for part in _with_parts(config):
        value = getattr(part, name, None)
        if value is not None:
            return value
    return default


def _with_parts(config: Any) -> Iterator[Any]:
    yield config
    for name in getattr(type(config), "sub_configs", {}):
        part = getattr(config, name, None)
        if part is not None and hasattr(part, "to_dict"):
            yield from _with_parts(part)


def _pair(size: Any) -> tuple[int, int]:
    if isinstance(size, Mapping):
        return int(size["height"]), int(size["width"])
    if isinstance(size, (list, tuple)):
        return int(size[0]), int(size[-1])
    return int(size), int(size)
