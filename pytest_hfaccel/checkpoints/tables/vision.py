"""Special inputs of models of images and videos."""

from __future__ import annotations

import math

import torch

from pytest_hfaccel.checkpoints.tables.draft import (
    BATCH,
    Change,
    Draft,
    chain,
    first_sample_only,
    ids,
    noise,
    pixels,
    set_inputs,
    uniform,
)

VIDEO_TYPES = frozenset({"timesformer", "videomae", "vivit", "vjepa2", "xclip"})
"""Model types whose `pixel_values` are videos."""

_PAIR = set_inputs(pixel_values=pixels(2))
_LINE_OF_TEXT = set_inputs(pixel_values=noise(3, 48, 160))
_TALL_LINE = set_inputs(pixel_values=noise(3, 96, 160))


def _order_of_patches(draft: Draft) -> None:
    """ViT-MAE hides the patches with the largest noise, and draws it at random without this input."""
    patches = (draft.config.image_size // draft.config.patch_size) ** 2
    set_inputs(noise=uniform(patches))(draft)


def _order_of_units(draft: Draft) -> None:
    """Hiera hides the units with the largest noise, and draws it at random without this input."""
    config = draft.config
    sizes = zip(config.image_size, config.patch_stride, config.masked_unit_size, strict=True)
    set_inputs(noise=uniform(math.prod(side // stride // unit for side, stride, unit in sizes)))(draft)


def _masked_tubes(draft: Draft) -> None:
    """VideoMAE hides the same number of patches of every video: the first quarter here."""
    config = draft.config
    patches = config.num_frames // config.tubelet_size * (config.image_size // config.patch_size) ** 2
    draft.inputs["bool_masked_pos"] = (torch.arange(patches) < patches // 4).repeat(BATCH, 1)


def _prompt_pictures(draft: Draft) -> None:
    """SegGPT's picture is stacked on the prompt's, each half as high as what the model sees."""
    height, width = draft.image_sides()
    for name in ("pixel_values", "prompt_pixel_values", "prompt_masks"):
        draft.inputs[name] = draft.noise(BATCH, 3, height // 2, width)


def _open_vocabulary(draft: Draft) -> None:
    """OmDet-Turbo takes the classes of all pictures in one list, and how many of them belong to each."""
    draft.inputs = {
        "pixel_values": draft.inputs["pixel_values"],
        "classes_input_ids": draft.ids(2 * BATCH, 6),
        "classes_attention_mask": draft.ones(2 * BATCH, 6),
        "tasks_input_ids": draft.ids(BATCH, 6),
        "tasks_attention_mask": draft.ones(BATCH, 6),
        "classes_structure": torch.tensor([2] * BATCH),
    }


SPECIAL_INPUTS: dict[str, Change] = {
    "vit_mae": _order_of_patches,
    # Two pictures that are matched with each other.
    "superglue": _PAIR,
    "lightglue": _PAIR,
    "efficientloftr": _PAIR,
    "HieraForPreTraining": _order_of_units,
    "VideoMAEForPreTraining": _masked_tubes,
    "seggpt": _prompt_pictures,
    "omdet-turbo": _open_vocabulary,
    # The task as text, of a length the model fixes.
    "oneformer": set_inputs(task_inputs=ids("task_seq_len")),
    # Strips of 48 pixels' height, which the strides reduce to one row.
    "pp_ocrv5_mobile_rec": _TALL_LINE,
    "pp_ocrv5_server_rec": _LINE_OF_TEXT,
    "pp_ocrv6_small_rec": _TALL_LINE,
    "pp_ocrv6_tiny_rec": _TALL_LINE,
    # Pictures are cut into patches of the encoder's image size at several scales.
    "depth_pro": set_inputs(pixel_values=noise(3, 128, 128)),
    # The frames of a video, under the name of images.
    # Its column embeddings are shaped for as many samples as there are, and filled for one.
    "tvp": chain(set_inputs(pixel_values=noise("num_frames", 3, 64, 64)), first_sample_only),
}
