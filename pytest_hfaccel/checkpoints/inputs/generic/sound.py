"""Sounds, as waveforms or spectrograms. Which layout a model takes only trying tells: a draft has one of three."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_hfaccel.checkpoints.inputs.generic.draft import BATCH, Draft
from pytest_hfaccel.checkpoints.inputs.generic.facts import about, number, token
from pytest_hfaccel.checkpoints.inputs.generic.words import insert

if TYPE_CHECKING:
    import torch

LAYOUTS = 9
"""Three of spectrograms for each of three of waveforms."""

_SAMPLES = 8000
_FRAMES = 128
_BINS = 80
_MOST_FRAMES = 1024

_BIN_NAMES = (
    "num_mel_bins",
    "n_mel_bins",
    "mel_dim",
    "input_feat_per_channel",
    "feature_projection_input_dim",
    "input_feat_size",
    "input_dim",
    "feature_size",
    "input_channels",
)
_MASKS = ("input_features_mask", "feature_attention_mask", "padding_mask", "attention_mask", "input_values_mask")


def fill(draft: Draft) -> None:
    """Add sounds."""
    if draft.leads_with("input_values"):
        draft.inputs["input_values"] = _waveforms(draft)
        _mask(draft, "input_values", draft.inputs["input_values"].shape[-1])
    has_audio = draft.takes("input_features") and getattr(draft.config, "audio_config", None) is not None
    if draft.leads_with("input_features") or has_audio:
        features, frames = _spectrograms(draft)
        draft.inputs["input_features"] = features
        _mask(draft, "input_features", frames)
    heard = token(draft.config, "audio")
    if "input_ids" in draft.inputs and "input_features" in draft.inputs and heard is not None:
        insert(draft, heard, 1)


def _mask(draft: Draft, name: str, length: int) -> None:
    """Add a mask that hides nothing, under the name the model has for it.

    `attention_mask` belongs to the text where there is text; models that take it without demanding it may be of a kind
    that was trained without.
    """
    for mask in _MASKS:
        hidden = mask == "attention_mask" and not (name == "input_features" and draft.demands(mask))
        misnamed = mask == "padding_mask" and name == "input_features"
        if draft.takes(mask) and mask not in draft.inputs and not hidden and not misnamed:
            draft.inputs[mask] = draft.ones(BATCH, length)


def _waveforms(draft: Draft) -> torch.Tensor:
    bins, frames = number([draft.config], "num_mel_bins"), number([draft.config], "max_length")
    if bins and frames and draft.main == "input_values" and draft.model_type != "speecht5":
        # The audio spectrogram transformer calls its spectrogram so.
        return draft.noise(BATCH, min(frames, _MOST_FRAMES), bins)
    layout = draft.layout // 3 if draft.takes("input_features") else draft.layout
    if bins and layout == 2:
        return draft.noise(BATCH, 64, bins)
    dims = [(_SAMPLES,), (1, _SAMPLES), (32, 64)][layout % 3]
    return draft.noise(BATCH, *dims)


def _spectrograms(draft: Draft) -> tuple[torch.Tensor, int]:
    """Return spectrograms and their number of frames."""
    parts = about(draft.config, "audio", "encoder", "speech")
    bins = number(parts, *_BIN_NAMES) or _BINS
    positions = number(parts, "max_source_positions")
    # Whisper's encoder halves the frames, and takes all of its positions.
    frames = 2 * positions if positions else _FRAMES
    layouts: list[tuple[int, ...]] = [(bins, frames), (frames, bins), (1, frames, bins)]
    if not positions:
        layouts = [layouts[1], layouts[0], layouts[2]]
    return draft.noise(BATCH, *layouts[draft.layout % 3]), frames
