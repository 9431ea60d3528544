"""Special inputs of vision models."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pytest_hfaccel.checkpoints.inputs.generic.draft import BATCH, Draft
from pytest_hfaccel.checkpoints.inputs.generic.special.recipes import (
    Change,
    both,
    given,
    ids,
    noise,
    ones,
    only,
    pixels,
    single,
    uniform,
)

if TYPE_CHECKING:
    import torch

_PAIR = given(pixel_values=pixels(2))
_LINE_OF_TEXT = given(pixel_values=noise(3, 48, 160))
_TALL_LINE = given(pixel_values=noise(3, 96, 160))


def _order_of_patches(draft: Draft) -> None:
    """ViT-MAE hides the patches with the largest noise, which it draws itself where none is given."""
    patches = (draft.config.image_size // draft.config.patch_size) ** 2
    given(noise=uniform(patches))(draft)


def _order_of_units(draft: Draft) -> None:
    """Hiera hides the units with the largest noise, which it draws itself where none is given."""
    config = draft.config
    sizes = zip(config.image_size, config.patch_stride, config.masked_unit_size, strict=True)
    given(noise=uniform(math.prod(side // stride // unit for side, stride, unit in sizes)))(draft)


def _masked_patches(draft: Draft) -> None:
    """FLAVA's codebook takes 112 pixels a side, the default of its config, and a square mask of patches."""
    import torch

    config = draft.config.image_config
    patches = config.image_size // config.patch_size
    draft.inputs["codebook_pixel_values"] = draft.noise(BATCH, 3, 8 * patches, 8 * patches)
    draft.inputs["bool_masked_pos"] = torch.arange(patches * patches).reshape(1, patches, patches).repeat(2, 1, 1) < 4
    draft.inputs["input_ids_masked"] = draft.inputs["input_ids"]


def _masked_tubes(draft: Draft) -> None:
    """VideoMAE hides the same number of patches of every video: the first quarter here."""
    import torch

    config = draft.config
    patches = config.num_frames // config.tubelet_size * (config.image_size // config.patch_size) ** 2
    draft.inputs["bool_masked_pos"] = (torch.arange(patches) < patches // 4).repeat(BATCH, 1)


def _prompt_pictures(draft: Draft) -> None:
    """SegGPT's picture is stacked on the prompt's, each half as high as what the model sees."""
    height, width = draft.sides()
    for name in ("pixel_values", "prompt_pixel_values", "prompt_masks"):
        draft.inputs[name] = draft.noise(BATCH, 3, height // 2, width)


def _open_vocabulary(draft: Draft) -> None:
    """OmDet-Turbo takes the classes of all pictures in one list, and how many of them belong to each."""
    import torch

    draft.inputs = {
        "pixel_values": draft.inputs["pixel_values"],
        "classes_input_ids": draft.ids(2 * BATCH, 6),
        "classes_attention_mask": draft.ones(2 * BATCH, 6),
        "tasks_input_ids": draft.ids(BATCH, 6),
        "tasks_attention_mask": draft.ones(BATCH, 6),
        "classes_structure": torch.tensor([2] * BATCH),
    }


SPECIAL: dict[str, Change] = {
    "vit_mae": _order_of_patches,
    # Two pictures that are matched with each other.
    "superglue": _PAIR,
    "lightglue": _PAIR,
    "efficientloftr": _PAIR,
    "FlavaForPreTraining": _masked_patches,
    "HieraForPreTraining": _order_of_units,
    "VideoMAEForPreTraining": _masked_tubes,
    "seggpt": _prompt_pictures,
    "omdet-turbo": _open_vocabulary,
    # The task as text, of a length the model fixes.
    "oneformer": given(task_inputs=ids("task_seq_len")),
    # Strips of 48 pixels' height, which the strides reduce to one row.
    "pp_ocrv5_mobile_rec": _TALL_LINE,
    "pp_ocrv5_server_rec": _LINE_OF_TEXT,
    "pp_ocrv6_small_rec": _TALL_LINE,
    "pp_ocrv6_tiny_rec": _TALL_LINE,
    # Pictures are cut into patches of the encoder's image size at several scales.
    "depth_pro": given(pixel_values=noise(3, 128, 128)),
    # The frames of a video, under the name of images.
    # Its column embeddings are shaped for as many samples as there are, and filled for one.
    "tvp": both(given(pixel_values=noise("num_frames", 3, 64, 64)), single()),
    # The sizes of the pictures and of their tiles.
    "mllama_vision_model": only(
        pixel_values=pixels(1, 4), aspect_ratio_ids=lambda _: _aspect_ratios(), aspect_ratio_mask=ones(1, 4)
    ),
    "kimi_k25_vision": given(
        pixel_values=lambda draft: draft.noise(BATCH * 16, 3, "patch_size", "patch_size"),
    ),
}


def _aspect_ratios() -> torch.Tensor:
    """Mllama numbers its supported grids of tiles; the sixth is the first that has all four of them."""
    import torch

    return torch.full((BATCH, 1), 6)
