"""Images and videos, in the layouts that transformers' processors give them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_hfaccel.checkpoints.inputs.generic.draft import BATCH, Draft
from pytest_hfaccel.checkpoints.inputs.generic.facts import number, token
from pytest_hfaccel.checkpoints.inputs.generic.words import insert

if TYPE_CHECKING:
    import torch

_SIDE_IN_PATCHES = 4
_FRAMES = 4
_PATCH = 14

VIDEO_TYPES = frozenset({"timesformer", "videomae", "vivit", "vjepa2", "xclip"})
"""Model types whose `pixel_values` are videos."""


def fill(draft: Draft) -> None:
    """Add images."""
    if draft.takes("pixel_values"):
        if draft.takes("image_grid_thw") or draft.takes("image_grid_hws") or draft.takes("grid_thws"):
            _patches_of_grids(draft)
        elif draft.takes("spatial_shapes"):
            _patches_of_any_shape(draft)
        else:
            draft.inputs["pixel_values"] = video(draft) if draft.model_type in VIDEO_TYPES else images(draft)
    if draft.leads_with("pixel_values_videos"):
        draft.inputs["pixel_values_videos"] = video(draft)


def fill_sizes(draft: Draft) -> None:
    """Add what is said about images besides their pixels."""
    import torch

    if draft.takes("image_sizes") and "pixel_values" in draft.inputs and draft.inputs["pixel_values"].dim() >= 4:
        draft.inputs["image_sizes"] = torch.tensor([list(draft.sides())] * BATCH)


def images(draft: Draft) -> torch.Tensor:
    """Return images: batch, colours, height, width."""
    return draft.noise(BATCH, draft.channels(), *draft.sides())


def video(draft: Draft) -> torch.Tensor:
    """Return videos: batch, frames, colours, height, width."""
    frames = number(draft.vision(), "num_frames", "frames_per_clip") or _FRAMES
    return draft.noise(BATCH, frames, draft.channels(), *draft.sides())


def fill_vision_part(draft: Draft) -> None:
    """Add the flat patches that the vision part of a vision-language model takes by itself."""
    import torch

    if draft.takes("grid_thw"):
        draft.inputs["grid_thw"] = torch.tensor([[1, _SIDE_IN_PATCHES, _SIDE_IN_PATCHES]] * BATCH)
        name = "hidden_states" if draft.takes("hidden_states") else "pixel_values"
        draft.inputs[name] = draft.noise(BATCH * _SIDE_IN_PATCHES**2, _flat_patch(draft))


def _patches_of_grids(draft: Draft) -> None:
    """All images' patches in one row, as Qwen2-VL's processor gives them, and each image's grid."""
    import torch

    merge = number(draft.vision(), "spatial_merge_size", "merge_size") or 1
    side = _SIDE_IN_PATCHES if merge <= 2 else 2 * merge
    square = not draft.takes("image_grid_thw") or draft.layout > 0
    patch = number(draft.vision(), "patch_size") or _PATCH
    dims = (draft.channels(), patch, patch) if square else (_flat_patch(draft),)
    draft.inputs["pixel_values"] = draft.noise(BATCH * side * side, *dims)
    for name in ("image_grid_thw", "grid_thws"):
        if draft.takes(name):
            draft.inputs[name] = torch.tensor([[1, side, side]] * BATCH)
    if draft.takes("image_grid_hws"):
        draft.inputs["image_grid_hws"] = torch.tensor([[side, side]] * BATCH)
    insert(draft, token(draft.config, "image"), (side // merge) ** 2)


def _flat_patch(draft: Draft) -> int:
    patch = number(draft.vision(), "patch_size") or _PATCH
    frames = number(draft.vision(), "temporal_patch_size", "patch_temporal") or 1
    return draft.channels() * frames * patch * patch


def _patches_of_any_shape(draft: Draft) -> None:
    """Each image's patches padded to one length, as SigLIP 2's processor gives them, and each image's shape."""
    import torch

    patch, count = number(draft.vision(), "patch_size") or _PATCH, _SIDE_IN_PATCHES**2
    draft.inputs["pixel_values"] = draft.noise(BATCH, count, draft.channels() * patch * patch)
    draft.inputs["spatial_shapes"] = torch.tensor([[_SIDE_IN_PATCHES, _SIDE_IN_PATCHES]] * BATCH)
    if draft.takes("pixel_attention_mask"):
        draft.inputs["pixel_attention_mask"] = draft.ones(BATCH, count)
