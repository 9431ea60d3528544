"""Special inputs of multimodal models and their parts."""

from __future__ import annotations

import torch

from pytest_hfaccel.checkpoints.tables.draft import (
    BATCH,
    DECODER_TOKENS,
    TOKENS,
    Change,
    Draft,
    chain,
    drop_inputs,
    ids,
    noise,
    ones,
    pixels,
    replace_inputs,
    set_inputs,
    uniform,
    where_taken,
)


def _four_tiles(draft: Draft) -> torch.Tensor:
    """Mllama numbers its supported grids of tiles; the sixth is the first that has all four of them."""
    return draft.ones(BATCH, 1) * 6


def _mllama(draft: Draft) -> None:
    """Four tiles per picture: the number of a grid of tiles, and which text sees which tile."""
    set_inputs(pixel_values=pixels(1, 4), aspect_ratio_ids=_four_tiles, aspect_ratio_mask=ones(1, 4))(draft)
    if draft.takes("cross_attention_mask"):
        draft.inputs["cross_attention_mask"] = draft.ones(BATCH, draft.inputs["input_ids"].shape[1], 1, 4)


def _kosmos2(draft: Draft) -> None:
    """The places in the text that the image takes: as many as the resampler has queries."""
    count = draft.config.latent_query_num
    tokens = draft.ids(BATCH, count + 6)
    places = torch.zeros_like(tokens)
    places[:, 1 : 1 + count] = 1
    draft.inputs |= {
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "image_embeds_position_mask": places,
    }


def _flat_patches(draft: Draft) -> None:
    """Pix2Struct's patches: row and column, counted from one, before the pixels."""
    width = getattr(draft.config, "vision_config", draft.config).patch_embed_hidden_size
    patches = draft.noise(BATCH, 16, 2 + width)
    patches[..., 0] = torch.arange(16) // 4 + 1
    patches[..., 1] = torch.arange(16) % 4 + 1
    draft.inputs.pop("input_ids", None)
    draft.inputs |= {"flattened_patches": patches, "attention_mask": torch.ones(BATCH, 16)}


def _positioned_patches(name: str) -> Change:
    """Gemma 4's patches with their columns and rows; a square of patches is pooled into each token."""

    def change(draft: Draft) -> None:
        vision = draft.vision_part()
        patch = getattr(vision, "model_patch_size", None) or vision.patch_size
        side = 2 * (getattr(vision, "pooling_kernel_size", 1) or 1)
        rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        places = torch.stack([columns.flatten(), rows.flatten()], -1)
        draft.inputs["pixel_values"] = draft.noise(BATCH, side * side, 3 * patch * patch)
        draft.inputs[name] = places.unsqueeze(0).repeat(BATCH, 1, 1)
        draft.insert_image(1)

    return where_taken(name, change)


def _patches_per_image(draft: Draft) -> None:
    """ColQwen2 pads each image's patches to one length instead of putting all in one row."""
    if "pixel_values" in draft.inputs:
        count = int(draft.inputs["image_grid_thw"][0].prod())
        draft.inputs["pixel_values"] = draft.inputs["pixel_values"].reshape(BATCH, count, -1)


def _unmerged(draft: Draft) -> None:
    """VideoLLaMA 3 says per image how many patches are merged."""
    if draft.takes("image_merge_sizes") and "pixel_values" in draft.inputs:
        draft.inputs["image_merge_sizes"] = draft.ones(BATCH)
        draft.insert_image(16)
    if draft.takes("merge_sizes") and "grid_thw" in draft.inputs:
        draft.inputs["merge_sizes"] = draft.ones(BATCH)


def _second_resolution(draft: Draft) -> torch.Tensor:
    """DeepSeek-VL's hybrid looks at each picture with two encoders."""
    side = draft.config.high_res_vision_config.image_size
    return draft.noise(BATCH, 3, side, side)


def _idefics(draft: Draft) -> None:
    """Which text sees which image."""
    if "pixel_values" in draft.inputs and "input_ids" in draft.inputs:
        draft.inputs["pixel_values"] = draft.inputs["pixel_values"].unsqueeze(1)
        draft.inputs["image_attention_mask"] = draft.ones(BATCH, draft.inputs["input_ids"].shape[1], 1)


def _folded_patches(draft: Draft) -> None:
    """Inkling's patches are small videos, colours last, and each of them becomes one token."""
    vision = draft.vision_part()
    draft.inputs["pixel_values"] = draft.noise(
        BATCH, vision.temporal_patch_size, vision.patch_size, vision.patch_size, vision.num_channels
    )
    draft.insert_image(1)


def _merged_cells(draft: Draft) -> None:
    """Inkling 2's grids count cells of merged patches; a cell's pixels lie together, colours last."""
    vision = draft.vision_part()
    side = vision.spatial_merge_size * vision.patch_size
    draft.inputs["pixel_values"] = draft.noise(4 * BATCH, side, side, vision.num_channels)
    draft.inputs["image_grid_thw"] = draft.rows(1, 2, 2)
    draft.insert_image(4)


def _pooled_crops(draft: Draft) -> None:
    """Molmo 2 says which patches of a crop make up a token, and how tokens are laid out in crop and whole picture."""
    vision = draft.config.vision_config
    patches = vision.num_position_embeddings
    draft.inputs["pixel_values"] = draft.noise(BATCH, patches, 3 * vision.patch_size**2)
    draft.inputs["image_token_pooling"] = draft.integers(0, BATCH * patches, 2 * BATCH, 4)
    draft.inputs["image_grids"] = draft.rows(1, 2, 0, 0)
    draft.inputs["image_num_crops"] = draft.ones(BATCH)
    draft.insert_image(2)


def _height_and_width(draft: Draft) -> None:
    """Nemotron's vision model takes flat patches, and grids without time."""
    draft.inputs["pixel_values"] = draft.noise(16 * BATCH, 3 * draft.config.vision_config.patch_size**2)
    draft.inputs["image_grid_hw"] = draft.rows(4, 4)
    draft.insert_image(4)


def _packed_row(draft: Draft) -> None:
    """MiniCPM's vision model takes the patches of all pictures side by side in one strip, and each picture's grid."""
    patch, side = draft.config.patch_size, 8
    draft.inputs["pixel_values"] = draft.noise(1, 3, patch, BATCH * side * side * patch)
    draft.inputs["target_sizes"] = draft.rows(side, side).int()


def _cameras(draft: Draft) -> None:
    """A robot's cameras, its state and, for the model without a head, its embedded actions."""
    vision = draft.config.vlm_config.vision_config
    draft.inputs["pixel_values"] = draft.noise(BATCH, 1, 3, *draft.image_sides())
    draft.inputs["pixel_attention_mask"] = draft.ones(BATCH, 1) > 0
    draft.insert_placeholders(draft.config.vlm_config.image_token_id, (vision.image_size // vision.patch_size) ** 2)
    set_inputs(state=noise("max_state_dim"), action_embeds=noise(5, "dit_config.hidden_size"))(draft)


def _drafted(draft: Draft) -> None:
    """Vectors to be made into tokens, and some of the target's layers beside each other."""
    config = draft.config
    draft.inputs = {
        "noise_embeds": draft.noise(BATCH, "block_size", "hidden_size"),
        "context_hidden_states": draft.noise(BATCH, 6, len(config.target_layer_ids) * config.hidden_size),
        "attention_mask": draft.ones(BATCH, 6 + config.block_size),
    }


def _next_picture(draft: Draft) -> None:
    """The last grid is that of the picture to be made; it has no pixels."""
    if "image_grid_thw" in draft.inputs:
        draft.inputs["image_grid_thw"] = torch.cat([draft.inputs["image_grid_thw"], torch.tensor([[1, 4, 4]])])


def _masked_patches(draft: Draft) -> None:
    """FLAVA's codebook takes 112 pixels a side, the default of its config, and a square mask of patches."""
    config = draft.config.image_config
    patches = config.image_size // config.patch_size
    draft.inputs["codebook_pixel_values"] = draft.noise(BATCH, 3, 8 * patches, 8 * patches)
    draft.inputs["bool_masked_pos"] = torch.arange(patches * patches).reshape(1, patches, patches).repeat(2, 1, 1) < 4
    draft.inputs["input_ids_masked"] = draft.inputs["input_ids"]


_FLAT_PATCHES = where_taken("flattened_patches", _flat_patches)
_IMAGE_POSITIONS = _positioned_patches("image_position_ids")
_KOSMOS2 = where_taken("image_embeds_position_mask", _kosmos2)
_MERGED_CELLS = where_taken("pixel_values", _merged_cells)
_TWO_TILES = set_inputs(pixel_values=pixels(2))
_BYTES = set_inputs(inputs=ids(16), attention_mask=ones(16))
_WITHOUT_IMAGE_SIZES = drop_inputs("image_sizes")

SPECIAL_INPUTS: dict[str, Change] = {
    "inkling_mm_model": where_taken("pixel_values", _folded_patches),
    "inkling2": _MERGED_CELLS,
    "inkling2_vision": _MERGED_CELLS,
    "molmo2": where_taken("image_token_pooling", _pooled_crops),
    "nemotron_h_omni": _height_and_width,
    "minicpm_ocr_vision": _packed_row,
    "minicpmv4_7_vision": _packed_row,
    "pi0": _cameras,
    "mllama": where_taken("pixel_values", _mllama),
    "kosmos-2": _KOSMOS2,
    "kosmos-2.5": _KOSMOS2,
    "pix2struct": _FLAT_PATCHES,
    "pix2struct_vision_model": _FLAT_PATCHES,
    "gemma4": _IMAGE_POSITIONS,
    "gemma4_unified": _IMAGE_POSITIONS,
    "embedding_gemma2": _IMAGE_POSITIONS,
    "gemma4_vision": _positioned_patches("pixel_position_ids"),
    "colqwen2": _patches_per_image,
    "video_llama_3": _unmerged,
    "video_llama_3_vision": _unmerged,
    "deepseek_vl_hybrid": set_inputs(high_res_pixel_values=_second_resolution),
    "idefics": _idefics,
    # The whole picture, and one tile of it.
    "llava_next": _TWO_TILES,
    "llava_next_video": _TWO_TILES,
    "llava_onevision": _TWO_TILES,
    "granite4_vision": _TWO_TILES,
    # Images are patches of a list per sample, which is not a tensor: the text alone.
    "fuyu": drop_inputs("pixel_values"),
    "neomme": drop_inputs("pixel_values", "image_grid_thw"),
    "muse_glimmer_assistant": _drafted,
    "glm_image": _next_picture,
    # Regions that a detector found: features and boxes.
    "lxmert": set_inputs(visual_feats=noise(5, "visual_feat_dim"), visual_pos=uniform(5, "visual_pos_dim")),
    # One tile per picture.
    "granite_docling": where_taken(
        "pixel_attention_mask",
        set_inputs(pixel_values=pixels(1), pixel_attention_mask=lambda draft: draft.ones(BATCH, 1) > 0),
    ),
    "perception_lm": set_inputs(pixel_values=pixels(1)),
    # A picture takes a token for each 2 x 2 pixels, and one per row.
    "emu3": where_taken(
        "pixel_values", set_inputs(pixel_values=noise(3, 16, 16), image_sizes=lambda draft: draft.rows(16, 16))
    ),
    # A sound takes a fixed number of tokens beside the picture's, in one text: the picture alone.
    "gemma3n": drop_inputs("input_features", "input_features_mask"),
    # Sounds are cut into chunks, whose lengths and places would have to be stated.
    "dots3_note": drop_inputs("input_features", "input_features_mask", "feature_attention_mask"),
    "llava": _WITHOUT_IMAGE_SIZES,
    "vipllava": _WITHOUT_IMAGE_SIZES,
    "video_llava": _WITHOUT_IMAGE_SIZES,
    # The beginning of the answer.
    "BlipForQuestionAnswering": set_inputs(decoder_input_ids=ids(DECODER_TOKENS)),
    # A query former reads embeddings, and looks at an encoder's.
    "Blip2QFormerModel": set_inputs(
        query_embeds=noise(4, "hidden_size"), encoder_hidden_states=noise(6, "encoder_hidden_size")
    ),
    # Bytes, or pixels, in the width that the preprocessor gives them.
    "PerceiverModel": chain(drop_inputs("input_ids"), set_inputs(inputs=noise(TOKENS, "d_model"))),
    "PerceiverForMaskedLM": _BYTES,
    "PerceiverForSequenceClassification": _BYTES,
    "PerceiverForImageClassificationConvProcessing": set_inputs(inputs=noise(3, 64, 64)),
    "PerceiverForImageClassificationFourier": set_inputs(inputs=noise(3, 224, 224)),
    "PerceiverForImageClassificationLearned": set_inputs(inputs=noise(3, 224, 224)),
    "FlavaForPreTraining": _masked_patches,
    # The sizes of the pictures and of their tiles.
    "mllama_vision_model": replace_inputs(
        pixel_values=pixels(1, 4), aspect_ratio_ids=_four_tiles, aspect_ratio_mask=ones(1, 4)
    ),
    "kimi_k25_vision": set_inputs(
        pixel_values=lambda draft: draft.noise(BATCH * 16, 3, "patch_size", "patch_size"),
    ),
    # The mask says what to leave out.
    "gemma3n_audio": replace_inputs(
        audio_mel=noise(32, "input_feat_size"), audio_mel_mask=lambda draft: draft.ones(BATCH, 32) < 1
    ),
}
