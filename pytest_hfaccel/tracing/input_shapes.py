"""The shapes of a model's inputs, from its config and the arguments of its `forward`. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

TEXT = frozenset({"input_ids", "decoder_input_ids"})
"""The inputs that hold tokens."""

_SECONDS_OF_AUDIO = 1
_SAMPLING_RATE = 16_000
"""Samples per second of the speech models that take a waveform (wav2vec2 and its relatives)."""
_FRAMES_PER_SECOND = 100
"""Spectrograms of speech have a column per 10 ms."""
_FALLBACK_IMAGE, _FALLBACK_FRAMES, _FALLBACK_MELS = 224, 8, 80
_POSITIONS = (
    "max_position_embeddings",
    "n_positions",
    "max_target_positions",
    "max_encoder_position_embeddings",
    "max_decoder_position_embeddings",
)
_FIRST_AFTER_PADDING = frozenset(
    """roberta xlm-roberta xlm-roberta-xl roberta-prelayernorm camembert xmod longformer mpnet data2vec-text esm ibert
    luke layoutlmv3 lilt markuplm clap_text_model altclip_text_model bridgetower_text_model""".split()  # noqa: SIM905
)
"""Model types whose first token has the position after that of the padding token, so that some are never used."""
_VIDEO = ("xclip", "videomae", "vivit", "timesformer", "vjepa2")
"""Model types whose `pixel_values` are videos: an axis of frames before the channels."""

_Sizes = Callable[[Any, int], tuple[int, ...]]


@dataclass(frozen=True)
class InputShape:
    """Shape of an input, and whether it holds floating-point numbers (else int64)."""

    shape: tuple[int, ...]
    floating: bool = False


def text_length(config: Any, wanted: int) -> int:
    """Return the tokens per sample a model can take, at most `wanted`; models with few positions take fewer."""
    limits = [wanted]
    for part in _with_parts(config):
        first = (getattr(part, "pad_token_id", None) or 0) + 1
        unused = first if getattr(part, "model_type", "") in _FIRST_AFTER_PADDING else 0
        found = (getattr(part, name, None) for name in _POSITIONS)
        limits += [positions - unused for positions in found if isinstance(positions, int) and positions > unused]
    return min(limits)


def input_shapes(
    config: Any, arguments: Mapping[str, bool], main_input: str, batch: int, length: int
) -> dict[str, InputShape]:
    """Return the inputs of a forward pass.

    Args:
        config: The model's config.
        arguments: Argument names of `forward`, and whether each must be given.
        main_input: The model's `main_input_name`.
        batch: Samples.
        length: Tokens per sample; see `text_length`. Decoders get as many. Sound lasts a second or what the model's
            spectrograms last, images have the size of the config.
    """
    texts = ["input_ids", "attention_mask"] if "input_ids" in arguments else []
    texts += ["decoder_input_ids"] if "decoder_input_ids" in arguments and config.is_encoder_decoder else []
    shapes = {name: InputShape((batch, length)) for name in texts if name in arguments}
    for name, sizes in _MEDIA.items():
        beside_text = "input_ids" in shapes and name in _BESIDE_TEXT
        if name in arguments and (name == main_input or arguments[name] or beside_text):
            shapes[name] = InputShape((batch, *sizes(config, length)), floating=True)
    for name, sizes in _WHERE_REQUIRED.items():
        if arguments.get(name):
            shapes[name] = InputShape((batch, *sizes(config, length)), floating=not name.endswith("pixel_mask"))
    if "input_points" in arguments and config.model_type.startswith("sam"):
        shapes["input_points"] = InputShape((batch, 1, 1, 2), floating=True)
    return shapes


def _image(config: Any, _length: int) -> tuple[int, ...]:
    size = _field(config, "image_size", _FALLBACK_IMAGE)
    if isinstance(size, Mapping):
        sides = size["height"], size["width"]
    else:
        sides = (size[0], size[-1]) if isinstance(size, (list, tuple)) else (size, size)
    image = (int(_field(config, "num_channels", 3)), *map(int, sides))
    return (int(_field(config, "num_frames", _FALLBACK_FRAMES)), *image) if config.model_type in _VIDEO else image


def _video(config: Any, length: int) -> tuple[int, ...]:
    image = _image(config, length)
    return image if len(image) == 4 else (int(_field(config, "num_frames", _FALLBACK_FRAMES)), *image)


def _sound(config: Any, _length: int) -> tuple[int, ...]:
    if config.model_type == "audio-spectrogram-transformer":
        return int(config.max_length), int(config.num_mel_bins)
    return (_SECONDS_OF_AUDIO * _SAMPLING_RATE,)


def _spectrogram(config: Any, _length: int) -> tuple[int, ...]:
    frames, mels = _SECONDS_OF_AUDIO * _FRAMES_PER_SECOND, int(_field(config, "num_mel_bins", _FALLBACK_MELS))
    if config.model_type == "whisper":
        # Its first convolutions halve the frames, and it takes all it has positions for: half a minute.
        return mels, 2 * int(config.max_source_positions)
    if config.model_type.startswith("clap"):
        # CLAP's audio tower takes (channel, time, mel); its spectrogram is resized to a square of `spec_size`.
        return 1, int(_field(config, "spec_size", 256)) * 4, mels
    if config.model_type == "speech_to_text":
        return frames, int(config.input_feat_per_channel * config.input_channels)
    return frames, int(_field(config, "feature_projection_input_dim", mels))


def _series(config: Any, _length: int) -> tuple[int, ...]:
    channels = getattr(config, "num_input_channels", None)
    if channels is not None:  # PatchTST and its relatives
        return int(config.context_length), int(channels)
    past = int(config.context_length) + max(config.lags_sequence, default=0)
    return (past,) if config.input_size == 1 else (past, int(config.input_size))


_MEDIA: dict[str, _Sizes] = {
    "pixel_values": _image,
    "pixel_values_videos": _video,
    "input_values": _sound,
    "input_features": _spectrogram,
    "past_values": _series,
}

_BESIDE_TEXT = ("pixel_values", "input_features")
"""Optional inputs that are always passed: without them half of the model would not run."""

_WHERE_REQUIRED: dict[str, _Sizes] = {
    "pixel_mask": lambda config, length: _image(config, length)[-2:],
    "past_time_features": lambda config, length: (_series(config, length)[0], int(config.num_time_features)),
    "past_observed_mask": _series,
}
"""Given only to models that cannot do without."""


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
