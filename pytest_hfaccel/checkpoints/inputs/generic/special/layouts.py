"""How models of text with images take their pixels: what one class has and no rule can know.

Each function changes the inputs of a draft.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_hfaccel.checkpoints.inputs.generic.draft import BATCH, Draft
from pytest_hfaccel.checkpoints.inputs.generic.facts import token
from pytest_hfaccel.checkpoints.inputs.generic.special.recipes import Change
from pytest_hfaccel.checkpoints.inputs.generic.words import insert

if TYPE_CHECKING:
    import torch


def mllama(draft: Draft) -> None:
    """Four tiles per picture: the number of a grid of tiles, and which text sees which tile."""
    import torch

    if not draft.takes("pixel_values"):
        return
    draft.inputs["pixel_values"] = draft.noise(BATCH, 1, 4, 3, *draft.sides())
    draft.inputs["aspect_ratio_ids"] = torch.full((BATCH, 1), 6)
    draft.inputs["aspect_ratio_mask"] = draft.ones(BATCH, 1, 4)
    if draft.takes("cross_attention_mask"):
        draft.inputs["cross_attention_mask"] = draft.ones(BATCH, draft.inputs["input_ids"].shape[1], 1, 4)


def kosmos2(draft: Draft) -> None:
    """The places in the text that the image takes: as many as the resampler has queries."""
    import torch

    if not draft.takes("image_embeds_position_mask"):
        return
    count = draft.config.latent_query_num
    tokens = draft.ids(BATCH, count + 6)
    places = torch.zeros_like(tokens)
    places[:, 1 : 1 + count] = 1
    draft.inputs |= {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "image_embeds_position_mask": places,
    }


def flat_patches(draft: Draft) -> None:
    """Pix2Struct's patches: row and column, counted from one, before the pixels."""
    import torch

    if not draft.takes("flattened_patches"):
        return
    parts = [draft.config, getattr(draft.config, "vision_config", draft.config)]
    width = next(part.patch_embed_hidden_size for part in parts if hasattr(part, "patch_embed_hidden_size"))
    patches = draft.noise(BATCH, 16, 2 + width)
    patches[..., 0] = torch.arange(16) // 4 + 1
    patches[..., 1] = torch.arange(16) % 4 + 1
    draft.inputs.pop("input_ids", None)
    draft.inputs |= {"flattened_patches": patches, "attention_mask": torch.ones(BATCH, 16)}


def positioned_patches(name: str) -> Change:
    """Gemma 4's patches with their columns and rows; a square of patches is pooled into each token."""

    def change(draft: Draft) -> None:
        import torch

        if not draft.takes(name):
            return
        vision = getattr(draft.config, "vision_config", None) or draft.config
        patch = getattr(vision, "model_patch_size", None) or vision.patch_size
        side = 2 * (getattr(vision, "pooling_kernel_size", 1) or 1)
        rows_, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        places = torch.stack([columns.flatten(), rows_.flatten()], -1)
        draft.inputs["pixel_values"] = draft.noise(BATCH, side * side, 3 * patch * patch)
        draft.inputs[name] = places.unsqueeze(0).repeat(BATCH, 1, 1)
        insert(draft, token(draft.config, "image"), 1)

    return change


def patches_per_image(draft: Draft) -> None:
    """ColQwen2 pads each image's patches to one length instead of putting all in one row."""
    if "pixel_values" in draft.inputs:
        count = int(draft.inputs["image_grid_thw"][0].prod())
        draft.inputs["pixel_values"] = draft.inputs["pixel_values"].reshape(BATCH, count, -1)


def unmerged(draft: Draft) -> None:
    """VideoLLaMA 3 says per image how many patches are merged."""
    import torch

    if draft.takes("image_merge_sizes") and "pixel_values" in draft.inputs:
        draft.inputs["image_merge_sizes"] = torch.tensor([1] * BATCH)
        insert(draft, token(draft.config, "image"), 16)
    if draft.takes("merge_sizes") and "grid_thw" in draft.inputs:
        draft.inputs["merge_sizes"] = torch.tensor([1] * BATCH)


def second_resolution(draft: Draft) -> None:
    """DeepSeek-VL's hybrid looks at each picture with two encoders."""
    if draft.takes("high_res_pixel_values"):
        side = draft.config.high_res_vision_config.image_size
        draft.inputs["high_res_pixel_values"] = draft.noise(BATCH, 3, side, side)


def idefics(draft: Draft) -> None:
    """Which text sees which image."""
    if "pixel_values" in draft.inputs and "input_ids" in draft.inputs:
        draft.inputs["pixel_values"] = draft.inputs["pixel_values"].unsqueeze(1)
        draft.inputs["image_attention_mask"] = draft.ones(BATCH, draft.inputs["input_ids"].shape[1], 1)


def folded_patches(draft: Draft) -> None:
    """Inkling's patches are small videos, colours last, and each of them becomes one token."""
    if not draft.takes("pixel_values"):
        return
    vision = getattr(draft.config, "vision_config", None) or draft.config
    draft.inputs["pixel_values"] = draft.noise(
        BATCH, vision.temporal_patch_size, vision.patch_size, vision.patch_size, vision.num_channels
    )
    insert(draft, token(draft.config, "image"), 1)


def merged_cells(draft: Draft) -> None:
    """Inkling 2's grids count cells of merged patches; a cell's pixels lie together, colours last."""
    import torch

    if not draft.takes("pixel_values"):
        return
    vision = getattr(draft.config, "vision_config", None) or draft.config
    side = vision.spatial_merge_size * vision.patch_size
    draft.inputs["pixel_values"] = draft.noise(4 * BATCH, side, side, vision.num_channels)
    draft.inputs["image_grid_thw"] = torch.tensor([[1, 2, 2]] * BATCH)
    insert(draft, token(draft.config, "image"), 4)


def pooled_crops(draft: Draft) -> None:
    """Molmo 2 says which patches of a crop make up a token, and how tokens are laid out in crop and whole picture."""
    import torch

    if not draft.takes("image_token_pooling"):
        return
    vision = draft.config.vision_config
    patches = vision.num_position_embeddings
    draft.inputs["pixel_values"] = draft.noise(BATCH, patches, 3 * vision.patch_size**2)
    draft.inputs["image_token_pooling"] = draft.integers(0, BATCH * patches, 2 * BATCH, 4)
    draft.inputs["image_grids"] = torch.tensor([[1, 2, 0, 0]] * BATCH)
    draft.inputs["image_num_crops"] = torch.tensor([1] * BATCH)
    insert(draft, token(draft.config, "image"), 2)


def height_and_width(draft: Draft) -> None:
    """Nemotron's vision model takes flat patches, and grids without time."""
    import torch

    vision = draft.config.vision_config
    draft.inputs["pixel_values"] = draft.noise(16 * BATCH, 3 * vision.patch_size**2)
    draft.inputs["image_grid_hw"] = torch.tensor([[4, 4]] * BATCH)
    insert(draft, token(draft.config, "image"), 4)


def packed_row(draft: Draft) -> None:
    """MiniCPM's vision model takes the patches of all pictures side by side in one strip, and each picture's grid."""
    import torch

    patch, side = draft.config.patch_size, 8
    draft.inputs["pixel_values"] = draft.noise(1, 3, patch, BATCH * side * side * patch)
    draft.inputs["target_sizes"] = torch.tensor([[side, side]] * BATCH, dtype=torch.int32)


def cameras(draft: Draft) -> None:
    """A robot's cameras, its state and, for the model without a head, its embedded actions."""
    vision = draft.config.vlm_config.vision_config
    draft.inputs["pixel_values"] = draft.noise(BATCH, 1, 3, *draft.sides())
    draft.inputs["pixel_attention_mask"] = draft.ones(BATCH, 1) > 0
    insert(draft, draft.config.vlm_config.image_token_id, (vision.image_size // vision.patch_size) ** 2)
    if draft.takes("state"):
        draft.inputs["state"] = draft.noise(BATCH, "max_state_dim")
    if draft.takes("action_embeds"):
        draft.inputs["action_embeds"] = draft.noise(BATCH, 5, "dit_config.hidden_size")


def small(draft: Draft) -> torch.Tensor:
    """Return the height and width of pictures of 16 x 16 pixels."""
    del draft
    import torch

    return torch.tensor([[16, 16]] * BATCH)


def drafted(draft: Draft) -> None:
    """Vectors to be made into tokens, and some of the target's layers beside each other."""
    config = draft.config
    layers = len(config.target_layer_ids)
    draft.inputs = {
        "noise_embeds": draft.noise(BATCH, "block_size", "hidden_size"),
        "context_hidden_states": draft.noise(BATCH, 6, layers * config.hidden_size),
        "attention_mask": draft.ones(BATCH, 6 + config.block_size),
    }


def next_picture(draft: Draft) -> None:
    """The last grid is that of the picture to be made; it has no pixels."""
    import torch

    if "image_grid_thw" in draft.inputs:
        draft.inputs["image_grid_thw"] = torch.cat([draft.inputs["image_grid_thw"], torch.tensor([[1, 4, 4]])])
