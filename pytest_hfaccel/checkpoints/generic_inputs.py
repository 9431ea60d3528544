"""Inputs for any model: from the signature of its `forward`, its main input and its config.

Text, images and sounds come in the layouts that transformers' processors give them. A guess is tried by a forward pass.
Where the model refuses it, the next layout is tried, or the inputs are corrected by what the error says; what no rule
can know is a line in `tables`.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from pytest_hfaccel.checkpoints.tables import SPECIAL_INPUTS
from pytest_hfaccel.checkpoints.tables.draft import (
    BATCH,
    DECODER_TOKENS,
    TOKENS,
    Draft,
    configs_about,
    first_integer,
    pixels,
)
from pytest_hfaccel.checkpoints.tables.vision import VIDEO_TYPES

_REPAIRS = 6
_IN_SEVERAL_LAYOUTS = frozenset({"input_features", "input_values", "image_grid_thw"})
_MOST_TOKENS = 4096

# How transformers words that placeholders and features do not match, and Python that an argument is missing.
_COUNTS = re.compile(r"tokens?:? *(\d+)[^0-9]+features?:? *(\d+)", re.I)
_MISSING = re.compile(r"missing \d+ required positional arguments?: (.*)")

SOUND_LAYOUTS = 9
"""Three of spectrograms for each of three of waveforms. Which one a model takes only trying tells."""

_BOX_SIDE = 50
_CHOICES = 2
_OTHER_TOKENS = 8
_STEPS = 32

_SIDE_IN_PATCHES = 4
_PATCH = 14
_VIDEO_FRAMES = 4

_SAMPLES = 8000
_SPECTROGRAM_FRAMES = 128
_MOST_SPECTROGRAM_FRAMES = 1024
_BINS = 80
_BIN_NAMES = (  # noqa: SIM905
    "num_mel_bins n_mel_bins mel_dim input_feat_per_channel feature_projection_input_dim input_feat_size input_dim "
    "feature_size input_channels"
).split()
_SOUND_MASKS = ("input_features_mask", "feature_attention_mask", "padding_mask", "attention_mask", "input_values_mask")


def generic_inputs(model: Any) -> dict[str, torch.Tensor]:
    """Return inputs with which a model's forward pass runs: a batch of two different samples.

    Raises:
        Exception: What the model said to the first layout, repaired as far as we could, where it refuses all of them.
    """
    first: Exception | None = None
    for layout in range(SOUND_LAYOUTS):
        draft = Draft(model, layout)
        error = _refusal(draft)
        if error is None:
            return draft.inputs
        first = first or error
        if not _IN_SEVERAL_LAYOUTS & set(draft.inputs):
            break
        if layout == 2 and not {"input_features", "input_values"} <= set(draft.inputs):
            break
    assert first is not None  # noqa: S101
    raise first


def _refusal(draft: Draft) -> Exception | None:
    """Fill a draft and repair it until the model takes it; return what the model said last where it does not."""
    last: Exception | None = None
    try:
        fill(draft)
    except Exception as impossible:  # A special input that reads a field the config does not have.
        return impossible
    for _ in range(_REPAIRS):
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                draft.model(**draft.inputs)
        except Exception as error:  # Whatever a model raises.
            last, text = error, str(error)
            if not (_match_placeholders(draft, text) or _add_tiles(draft, text) or _add_missing(draft, text)):
                break
        else:
            return None
    return last


def _match_placeholders(draft: Draft, text: str) -> bool:
    counts = _COUNTS.search(text)
    kind = next((kind for kind in ("image", "audio", "video") if kind in text.lower()), "image")
    placeholder = draft.placeholder(kind)
    if counts is None or placeholder is None or "input_ids" not in draft.inputs:
        return False
    per_row = _tokens_per_row(draft, placeholder, int(counts[1]), int(counts[2]))
    if not 0 < per_row <= _MOST_TOKENS:
        return False
    draft.insert_placeholders(placeholder, per_row)
    return True


def _tokens_per_row(draft: Draft, placeholder: int, tokens: int, features: int) -> int:
    """Return how many tokens a row needs; a model may count numbers rather than the vectors they form."""
    now = int((draft.inputs["input_ids"] == placeholder).sum())
    if now == 0 or tokens == 0:
        return 1 if now == 0 else 0
    width = first_integer([draft.config.get_text_config(decoder=True)], "hidden_size", "d_model")
    if tokens == features:
        return features // width // BATCH if width else 0
    wanted = features // max(1, tokens // now) // BATCH
    if wanted > _MOST_TOKENS:
        wanted //= width or 1
    return 0 if wanted == now // BATCH else wanted


def _add_tiles(draft: Draft, text: str) -> bool:
    """Give each image one tile, where a model takes images cut into tiles."""
    images = draft.inputs.get("pixel_values")
    if images is None or images.dim() != 4 or not ("expected 5, got 4" in text or "must be a 5D tensor" in text):
        return False
    tiles = 2 if "2, num_channels" in text else 1
    draft.inputs["pixel_values"] = images.unsqueeze(1).repeat(1, tiles, 1, 1, 1)
    draft.inputs.pop("pixel_attention_mask", None)
    return True


def _add_missing(draft: Draft, text: str) -> bool:
    named = _MISSING.search(text)
    guesses = {name: guess(draft, name) for name in re.findall(r"'(\w+)'", named[1])} if named else {}
    known = {name: value for name, value in guesses.items() if value is not None}
    draft.inputs.update(known)
    return bool(known)


def fill(draft: Draft) -> None:
    """Fill a draft with whatever its model takes or demands."""
    _fill_text(draft)
    _fill_images(draft)
    _fill_sounds(draft)
    _fill_vision_part(draft)
    for name in draft.parameters:
        if draft.demands(name) and name not in draft.inputs and (value := guess(draft, name)) is not None:
            draft.inputs[name] = value
    _fill_decoder(draft)
    special = SPECIAL_INPUTS.get(draft.architecture) or SPECIAL_INPUTS.get(draft.model_type)
    if special is not None:
        special(draft)


def guess(draft: Draft, name: str) -> torch.Tensor | None:
    """Return a value for a parameter, or `None` where its name does not tell what it is."""
    steps = first_integer([draft.config], "context_length", "seq_len") or _STEPS
    if name == "past_values":
        channels = first_integer([draft.config], "num_input_channels", "input_size") or 1
        return draft.noise(BATCH, steps, channels)
    if name == "past_values_padding":
        return draft.noise(BATCH, steps) * 0
    if name == "freq":
        return draft.integers(0, 1, BATCH, 1)
    if name.endswith("input_ids"):
        return draft.ids(BATCH, _OTHER_TOKENS)
    if name.endswith("attention_mask"):
        return draft.ones(BATCH, _OTHER_TOKENS)
    return draft.ids(BATCH, TOKENS) if name == "inputs" else None


def _fill_text(draft: Draft) -> None:
    if not draft.takes("input_ids"):
        return
    draft.inputs["input_ids"] = draft.ids(BATCH, TOKENS)
    if draft.takes("attention_mask"):
        draft.inputs["attention_mask"] = draft.ones(BATCH, TOKENS)
    if draft.takes("bbox"):
        boxes = draft.integers(0, _BOX_SIDE, BATCH, TOKENS, 4)
        # The second corner lies right of and below the first.
        boxes[..., 2:] += boxes[..., :2]
        draft.inputs["bbox"] = boxes


def _fill_decoder(draft: Draft) -> None:
    """Add the decoder's text, and bring text to the form that a head asks for."""
    has_decoder = bool(getattr(draft.config, "is_encoder_decoder", False))
    if draft.takes("decoder_input_ids") and (has_decoder or draft.demands("decoder_input_ids")):
        vocabulary = draft.vocabulary(decoder=True)
        draft.inputs["decoder_input_ids"] = draft.ids(BATCH, DECODER_TOKENS, vocabulary=vocabulary)
    if draft.architecture.endswith("ForMultipleChoice"):
        for name, value in draft.inputs.items():
            draft.inputs[name] = value.unsqueeze(1).repeat(1, _CHOICES, *[1] * (value.dim() - 1))
    end = getattr(draft.config, "eos_token_id", None)
    end = end[0] if isinstance(end, list) else end
    is_classifier = has_decoder and draft.architecture.endswith("ForSequenceClassification")
    if is_classifier and isinstance(end, int) and "input_ids" in draft.inputs:
        # Encoder-decoders classify at the last end-of-sentence token, and make the decoder's inputs themselves.
        draft.inputs["input_ids"][:, -1] = end
        draft.inputs.pop("decoder_input_ids", None)


def _fill_images(draft: Draft) -> None:
    if draft.takes("pixel_values"):
        if draft.takes("image_grid_thw") or draft.takes("image_grid_hws") or draft.takes("grid_thws"):
            _patches_of_grids(draft)
        elif draft.takes("spatial_shapes"):
            _patches_of_any_shape(draft)
        else:
            draft.inputs["pixel_values"] = _video(draft) if draft.model_type in VIDEO_TYPES else pixels()(draft)
    if draft.leads_with("pixel_values_videos"):
        draft.inputs["pixel_values_videos"] = _video(draft)


def _video(draft: Draft) -> torch.Tensor:
    """Batch, frames, colours, height, width."""
    frames = first_integer(draft.vision_configs(), "num_frames", "frames_per_clip") or _VIDEO_FRAMES
    return draft.noise(BATCH, frames, draft.channels(), *draft.image_sides())


def _fill_vision_part(draft: Draft) -> None:
    """Add the flat patches that the vision part of a vision-language model takes by itself, and the sizes of images."""
    if draft.takes("grid_thw"):
        draft.inputs["grid_thw"] = draft.rows(1, _SIDE_IN_PATCHES, _SIDE_IN_PATCHES)
        name = "hidden_states" if draft.takes("hidden_states") else "pixel_values"
        draft.inputs[name] = draft.noise(BATCH * _SIDE_IN_PATCHES**2, _flat_patch(draft))
    if draft.takes("image_sizes") and "pixel_values" in draft.inputs and draft.inputs["pixel_values"].dim() >= 4:
        draft.inputs["image_sizes"] = draft.rows(*draft.image_sides())


def _patches_of_grids(draft: Draft) -> None:
    """All images' patches in one row, as Qwen2-VL's processor gives them, and each image's grid."""
    merge = first_integer(draft.vision_configs(), "spatial_merge_size", "merge_size") or 1
    side = _SIDE_IN_PATCHES if merge <= 2 else 2 * merge
    square = not draft.takes("image_grid_thw") or draft.layout > 0
    patch = first_integer(draft.vision_configs(), "patch_size") or _PATCH
    dims = (draft.channels(), patch, patch) if square else (_flat_patch(draft),)
    draft.inputs["pixel_values"] = draft.noise(BATCH * side * side, *dims)
    for name in ("image_grid_thw", "grid_thws"):
        if draft.takes(name):
            draft.inputs[name] = draft.rows(1, side, side)
    if draft.takes("image_grid_hws"):
        draft.inputs["image_grid_hws"] = draft.rows(side, side)
    draft.insert_image((side // merge) ** 2)


def _flat_patch(draft: Draft) -> int:
    patch = first_integer(draft.vision_configs(), "patch_size") or _PATCH
    frames = first_integer(draft.vision_configs(), "temporal_patch_size", "patch_temporal") or 1
    return draft.channels() * frames * patch * patch


def _patches_of_any_shape(draft: Draft) -> None:
    """Each image's patches padded to one length, as SigLIP 2's processor gives them, and each image's shape."""
    patch, count = first_integer(draft.vision_configs(), "patch_size") or _PATCH, _SIDE_IN_PATCHES**2
    draft.inputs["pixel_values"] = draft.noise(BATCH, count, draft.channels() * patch * patch)
    draft.inputs["spatial_shapes"] = draft.rows(_SIDE_IN_PATCHES, _SIDE_IN_PATCHES)
    if draft.takes("pixel_attention_mask"):
        draft.inputs["pixel_attention_mask"] = draft.ones(BATCH, count)


def _fill_sounds(draft: Draft) -> None:
    if draft.leads_with("input_values"):
        draft.inputs["input_values"] = _waveforms(draft)
        _fill_sound_mask(draft, "input_values", draft.inputs["input_values"].shape[-1])
    has_audio = draft.takes("input_features") and getattr(draft.config, "audio_config", None) is not None
    if draft.leads_with("input_features") or has_audio:
        features, frames = _spectrograms(draft)
        draft.inputs["input_features"] = features
        _fill_sound_mask(draft, "input_features", frames)
    heard = draft.placeholder("audio")
    if "input_ids" in draft.inputs and "input_features" in draft.inputs and heard is not None:
        draft.insert_placeholders(heard, 1)


def _fill_sound_mask(draft: Draft, name: str, length: int) -> None:
    """Add a mask that hides nothing, under the name the model has for it.

    `attention_mask` belongs to the text where there is text; models that take it without demanding it may be of a kind
    that was trained without.
    """
    for mask in _SOUND_MASKS:
        not_for_sound = mask == "attention_mask" and not (name == "input_features" and draft.demands(mask))
        misnamed = mask == "padding_mask" and name == "input_features"
        if draft.takes(mask) and mask not in draft.inputs and not not_for_sound and not misnamed:
            draft.inputs[mask] = draft.ones(BATCH, length)


def _waveforms(draft: Draft) -> torch.Tensor:
    bins, frames = first_integer([draft.config], "num_mel_bins"), first_integer([draft.config], "max_length")
    if bins and frames and draft.main == "input_values" and draft.model_type != "speecht5":
        # The audio spectrogram transformer calls its spectrogram so.
        return draft.noise(BATCH, min(frames, _MOST_SPECTROGRAM_FRAMES), bins)
    layout = draft.layout // 3 if draft.takes("input_features") else draft.layout
    if bins and layout == 2:
        return draft.noise(BATCH, 64, bins)
    dims = [(_SAMPLES,), (1, _SAMPLES), (32, 64)][layout % 3]
    return draft.noise(BATCH, *dims)


def _spectrograms(draft: Draft) -> tuple[torch.Tensor, int]:
    """Return spectrograms and their number of frames."""
    parts = configs_about(draft.config, "audio", "encoder", "speech")
    bins = first_integer(parts, *_BIN_NAMES) or _BINS
    positions = first_integer(parts, "max_source_positions")
    # Whisper's encoder halves the frames, and takes all of its positions.
    frames = 2 * positions if positions else _SPECTROGRAM_FRAMES
    layouts: list[tuple[int, ...]] = [(bins, frames), (frames, bins), (1, frames, bins)]
    if not positions:
        layouts = [layouts[1], layouts[0], layouts[2]]
    return draft.noise(BATCH, *layouts[draft.layout % 3]), frames
