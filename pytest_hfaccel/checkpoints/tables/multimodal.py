"""Special sizes, inputs and processors of multimodal models and their parts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

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
from pytest_hfaccel.checkpoints.tables.sizes import HEAD_DIM, HIDDEN, VOCABULARY
from pytest_hfaccel.checkpoints.tables.tokenizers import ProcessorMaker, match_config_to_tokenizer, train_tokenizer
from pytest_hfaccel.checkpoints.tables.vision import (
    TIMM_CONVOLUTIONS,
    TIMM_PATCHES,
    TIMM_WIDTHS,
    cropping_image_processor,
)

if TYPE_CHECKING:
    import torch


_IMAGE_ID = VOCABULARY - 60
"""An id for the image token where a config states none that fits."""

_CODES = 32
_ONE_TILE = {"image_grid_pinpoints": [[64, 64]], "vision_config": {"image_size": 64, "patch_size": 16}}
_QUANTIZER = {"base_channels": 32, "channel_multiplier": [1, 1], "embed_dim": 16, "latent_channels": 16}


def _rope(*sections: int) -> dict[str, Any]:
    """The rotary embedding of a text with images: its sections add up to half a head."""
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": list(sections)}


CONFIG_ARGUMENTS: dict[str, dict[str, Any]] = {
    # The text config's own defaults are refused: an assistant has no inputs per layer, and shares all of its layers.
    "gemma4_assistant": {
        "text_config": {
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": 0,
            "num_kv_shared_layers": 30,
            "model_type": "gemma4_text",
        }
    },
    # The default encoder is named by another spelling than the one it is registered under.
    "nougat": {"encoder": {"model_type": "donut-swin"}, "decoder": {"model_type": "mbart", "is_decoder": True}},
}
"""Arguments without which the class of a config cannot be made."""


OVERRIDES: dict[str, dict[str, Any]] = {
    # One grid of one tile: the base image and one crop.
    "llava_next": _ONE_TILE,
    "llava_next_video": _ONE_TILE,
    "llava_onevision": _ONE_TILE,
    # The number of queries by the number of patches.
    "aria": {"projector_patch_to_query_dict": {16: 4}, "image_token_index": 9},
    # The names of the image codes in the vocabulary: letters for digits.
    "chameleon": {
        "vocabulary_map": {
            "<image>": _IMAGE_ID,
            **{f"IMGIMG{chr(65 + code // 8)}{chr(65 + code % 8)}Z": 100 + code for code in range(64)},
        },
        "vq_config": {
            **_QUANTIZER,
            "num_embeddings": _CODES,
            "resolution": 32,
            "num_res_blocks": 1,
            "attn_type": "none",
        },
        "image_token_id": _IMAGE_ID,
    },
    "emu3": {
        "vocabulary_map": {
            "<image>": _IMAGE_ID,
            "<|extra_200|>": _IMAGE_ID - 1,
            **{f"<|visual token {code:06d}|>": 100 + code for code in range(_CODES)},
        },
        "vq_config": {
            **_QUANTIZER,
            "codebook_size": _CODES,
            "z_channels": 16,
            "num_res_blocks": 1,
            "hidden_size": 32,
            "attn_resolutions": [],
            "temporal_downsample_factor": 1,
        },
        "image_token_id": _IMAGE_ID,
    },
    # Two intermediate layers beside the last one's output make three hidden sizes; one layer looks at the image.
    "mllama_vision_model": {
        "intermediate_layers_indices": [0, 1],
        "vision_output_dim": 3 * HIDDEN,
        "num_global_layers": 1,
        "attention_heads": 4,
    },
    "mllama": {"text_config": {"cross_attention_layers": [1]}, "image_token_index": _IMAGE_ID},
    "qwen2_5_omni_thinker": {"vision_start_token_id": _IMAGE_ID - 1, "vision_end_token_id": _IMAGE_ID - 2},
    "qwen3_omni_moe_thinker": {"vision_start_token_id": _IMAGE_ID - 1, "vision_end_token_id": _IMAGE_ID - 2},
    # Patches are shuffled into a quarter as many of four times the width.
    "llama4_vision_model": {
        "intermediate_size": 256,
        "projector_input_dim": HIDDEN,
        "projector_output_dim": HIDDEN,
        "vision_output_dim": HIDDEN,
    },
    # The width of a flat patch: 16 x 16 pixels of three colours.
    "pix2struct_vision_model": {"patch_embed_hidden_size": 768},
    "pix2struct": {"vision_config": {"patch_embed_hidden_size": 768}},
    "unlimited_ocr_vision_encoder": {"hidden_size": 64},
    "gemma4_assistant": {"text_config": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}},
    # Four patches are merged into each vector that leaves the vision model.
    "muse_glimmer": {"out_hidden_size": 4 * HIDDEN},
    "muse_spark": {"out_hidden_size": 4 * HIDDEN},
    # Every layer stacks frames by its own factor, 32 samples in all.
    "muse_spark_audio": {
        "patch_sizes": [8, 4],
        "hidden_sizes": [16, 32],
        "depths": [1, 1],
        "num_hidden_layers": 2,
    },
    # Which layer of the vision model feeds which of the text model.
    "granite4_vision": {
        "deepstack_layer_map": [[0, 0]],
        "downsample_rate": "2/4",
        "spatial_target_layers": [0, 1],
        "image_grid_pinpoints": [[64, 64]],
        "vision_config": {"image_size": 64, "patch_size": 16},
    },
    "molmo2_adapter": {"vision_feature_layer": [1, 0]},
    # The tokens whose logits are the answer.
    "shieldgemma2": {"yes_token_index": 100, "no_token_index": 101},
    # The image tower's width, which the text projection meets.
    "align": {"projection_dim": 80},
    # Set by every checkpoint.
    "qwen3_omni_moe_talker_text": {"shared_expert_intermediate_size": 32},
    "llama4_text": {
        "no_rope_layers": [1, 0],
        "layer_types": ["chunked_attention", "full_attention"],
        "num_hidden_layers": 2,
        "moe_layers": [1],
    },
    # The indexer's heads and budget are its own.
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": HEAD_DIM,
        "indexer_budget": 8,
        "indexer_compress_ratio": 4,
    },
    "deepseek_ocr2_text": {"mlp_layer_types": ["dense", "sparse"]},
    "paddleocr_vl_text": {"rope_parameters": _rope(2, 3, 3)},
    "cosmos3_edge_text": {"rope_parameters": _rope(4, 2, 2)},
    "ernie4_5_vl_moe_text": {"rope_parameters": _rope(3, 3, 2)},
    "hunyuan_vl_text": {
        "head_dim": HEAD_DIM,
        "rope_parameters": _rope(2, 2, 2, 2),
    },
    "cohere_compass_text": {
        "rope_parameters": {kind: _rope(4, 2, 2) for kind in ("full_attention", "sliding_attention")},
        "layer_types": ["sliding_attention", "full_attention"],
        "num_hidden_layers": 2,
    },
    # What is rotated and what is not make up the head of a windowed layer.
    "dots3_note_text": {"head_dim": HEAD_DIM + 8},
    # The vision encoder takes the channels that the SAM encoder's neck ends with.
    "deepseek_ocr2_sam_vision_model": {"downsample_channels": [32, HIDDEN]},
    "unlimited_ocr_sam_vision_model": {"downsample_channels": [32, HIDDEN]},
    "glm_image_vqmodel": {"latent_channels": HIDDEN, "embed_dim": HIDDEN},
    # Fewer frames are faster, and the message tokens are one per frame.
    "xclip_vision_model": {"num_frames": 4},
    # The arguments of the default are FastViT's own.
    "fast_vlm": {"vision_config": {"model_args": None, "hidden_size": TIMM_WIDTHS[-1]}},
    # The last feature map of a picture of 64 pixels a side has 2 x 2 places.
    "gemma3n_vision": {"architecture": TIMM_CONVOLUTIONS, "hidden_size": TIMM_WIDTHS[-1]},
    "gemma3n": {"vision_soft_tokens_per_image": 4},
    "perception_lm": {"vision_config": {**TIMM_PATCHES, "do_pooling": False}},
    "pe_video_encoder": {"vision_config": TIMM_PATCHES},
}


CLASS_OVERRIDES: dict[str, dict[str, Any]] = {
    # Its query former reads text, too, which takes a branch of its own in every layer.
    "Blip2ForImageTextRetrieval": {"qformer_config": {"use_qformer_text_input": True}},
    # Queries are as wide as what a preprocessor makes of the pixels, which only one head divides.
    "PerceiverForImageClassificationConvProcessing": {"num_cross_attention_heads": 1},
    "PerceiverForImageClassificationFourier": {"num_cross_attention_heads": 1},
}


def _four_tiles(draft: Draft) -> torch.Tensor:
    """Mllama numbers its supported grids of tiles; the sixth is the first that has all four of them."""
    return draft.ones(BATCH, 1) * 6


def _mllama(draft: Draft) -> None:
    """Four tiles per picture: the number of a grid of tiles, and which text sees which tile."""
    if not draft.takes("pixel_values"):
        return
    draft.inputs["pixel_values"] = draft.noise(BATCH, 1, 4, 3, *draft.image_sides())
    draft.inputs["aspect_ratio_ids"] = _four_tiles(draft)
    draft.inputs["aspect_ratio_mask"] = draft.ones(BATCH, 1, 4)
    if draft.takes("cross_attention_mask"):
        draft.inputs["cross_attention_mask"] = draft.ones(BATCH, draft.inputs["input_ids"].shape[1], 1, 4)


def _kosmos2(draft: Draft) -> None:
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


def _flat_patches(draft: Draft) -> None:
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


def _positioned_patches(name: str) -> Change:
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
        draft.insert_placeholders(draft.placeholder("image"), 1)

    return change


def _patches_per_image(draft: Draft) -> None:
    """ColQwen2 pads each image's patches to one length instead of putting all in one row."""
    if "pixel_values" in draft.inputs:
        count = int(draft.inputs["image_grid_thw"][0].prod())
        draft.inputs["pixel_values"] = draft.inputs["pixel_values"].reshape(BATCH, count, -1)


def _unmerged(draft: Draft) -> None:
    """VideoLLaMA 3 says per image how many patches are merged."""
    import torch

    if draft.takes("image_merge_sizes") and "pixel_values" in draft.inputs:
        draft.inputs["image_merge_sizes"] = torch.tensor([1] * BATCH)
        draft.insert_placeholders(draft.placeholder("image"), 16)
    if draft.takes("merge_sizes") and "grid_thw" in draft.inputs:
        draft.inputs["merge_sizes"] = torch.tensor([1] * BATCH)


def _second_resolution(draft: Draft) -> None:
    """DeepSeek-VL's hybrid looks at each picture with two encoders."""
    if draft.takes("high_res_pixel_values"):
        side = draft.config.high_res_vision_config.image_size
        draft.inputs["high_res_pixel_values"] = draft.noise(BATCH, 3, side, side)


def _idefics(draft: Draft) -> None:
    """Which text sees which image."""
    if "pixel_values" in draft.inputs and "input_ids" in draft.inputs:
        draft.inputs["pixel_values"] = draft.inputs["pixel_values"].unsqueeze(1)
        draft.inputs["image_attention_mask"] = draft.ones(BATCH, draft.inputs["input_ids"].shape[1], 1)


def _folded_patches(draft: Draft) -> None:
    """Inkling's patches are small videos, colours last, and each of them becomes one token."""
    if not draft.takes("pixel_values"):
        return
    vision = getattr(draft.config, "vision_config", None) or draft.config
    draft.inputs["pixel_values"] = draft.noise(
        BATCH, vision.temporal_patch_size, vision.patch_size, vision.patch_size, vision.num_channels
    )
    draft.insert_placeholders(draft.placeholder("image"), 1)


def _merged_cells(draft: Draft) -> None:
    """Inkling 2's grids count cells of merged patches; a cell's pixels lie together, colours last."""
    import torch

    if not draft.takes("pixel_values"):
        return
    vision = getattr(draft.config, "vision_config", None) or draft.config
    side = vision.spatial_merge_size * vision.patch_size
    draft.inputs["pixel_values"] = draft.noise(4 * BATCH, side, side, vision.num_channels)
    draft.inputs["image_grid_thw"] = torch.tensor([[1, 2, 2]] * BATCH)
    draft.insert_placeholders(draft.placeholder("image"), 4)


def _pooled_crops(draft: Draft) -> None:
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
    draft.insert_placeholders(draft.placeholder("image"), 2)


def _height_and_width(draft: Draft) -> None:
    """Nemotron's vision model takes flat patches, and grids without time."""
    import torch

    vision = draft.config.vision_config
    draft.inputs["pixel_values"] = draft.noise(16 * BATCH, 3 * vision.patch_size**2)
    draft.inputs["image_grid_hw"] = torch.tensor([[4, 4]] * BATCH)
    draft.insert_placeholders(draft.placeholder("image"), 4)


def _packed_row(draft: Draft) -> None:
    """MiniCPM's vision model takes the patches of all pictures side by side in one strip, and each picture's grid."""
    import torch

    patch, side = draft.config.patch_size, 8
    draft.inputs["pixel_values"] = draft.noise(1, 3, patch, BATCH * side * side * patch)
    draft.inputs["target_sizes"] = torch.tensor([[side, side]] * BATCH, dtype=torch.int32)


def _cameras(draft: Draft) -> None:
    """A robot's cameras, its state and, for the model without a head, its embedded actions."""
    vision = draft.config.vlm_config.vision_config
    draft.inputs["pixel_values"] = draft.noise(BATCH, 1, 3, *draft.image_sides())
    draft.inputs["pixel_attention_mask"] = draft.ones(BATCH, 1) > 0
    draft.insert_placeholders(draft.config.vlm_config.image_token_id, (vision.image_size // vision.patch_size) ** 2)
    if draft.takes("state"):
        draft.inputs["state"] = draft.noise(BATCH, "max_state_dim")
    if draft.takes("action_embeds"):
        draft.inputs["action_embeds"] = draft.noise(BATCH, 5, "dit_config.hidden_size")


def _small_image_sizes(draft: Draft) -> torch.Tensor:
    """Height and width of images of 16 x 16 pixels."""
    return draft.ones(BATCH, 2) * 16


def _drafted(draft: Draft) -> None:
    """Vectors to be made into tokens, and some of the target's layers beside each other."""
    config = draft.config
    layers = len(config.target_layer_ids)
    draft.inputs = {
        "noise_embeds": draft.noise(BATCH, "block_size", "hidden_size"),
        "context_hidden_states": draft.noise(BATCH, 6, layers * config.hidden_size),
        "attention_mask": draft.ones(BATCH, 6 + config.block_size),
    }


def _next_picture(draft: Draft) -> None:
    """The last grid is that of the picture to be made; it has no pixels."""
    import torch

    if "image_grid_thw" in draft.inputs:
        draft.inputs["image_grid_thw"] = torch.cat([draft.inputs["image_grid_thw"], torch.tensor([[1, 4, 4]])])


def _masked_patches(draft: Draft) -> None:
    """FLAVA's codebook takes 112 pixels a side, the default of its config, and a square mask of patches."""
    import torch

    config = draft.config.image_config
    patches = config.image_size // config.patch_size
    draft.inputs["codebook_pixel_values"] = draft.noise(BATCH, 3, 8 * patches, 8 * patches)
    draft.inputs["bool_masked_pos"] = torch.arange(patches * patches).reshape(1, patches, patches).repeat(2, 1, 1) < 4
    draft.inputs["input_ids_masked"] = draft.inputs["input_ids"]


_TWO_TILES = where_taken("pixel_values", set_inputs(pixel_values=pixels(2)))


SPECIAL_INPUTS: dict[str, Change] = {
    "inkling_mm_model": _folded_patches,
    "inkling2": _merged_cells,
    "inkling2_vision": _merged_cells,
    "molmo2": _pooled_crops,
    "nemotron_h_omni": _height_and_width,
    "minicpm_ocr_vision": _packed_row,
    "minicpmv4_7_vision": _packed_row,
    "pi0": _cameras,
    "mllama": _mllama,
    "kosmos-2": _kosmos2,
    "kosmos-2.5": _kosmos2,
    "pix2struct": _flat_patches,
    "pix2struct_vision_model": _flat_patches,
    "gemma4": _positioned_patches("image_position_ids"),
    "gemma4_unified": _positioned_patches("image_position_ids"),
    "embedding_gemma2": _positioned_patches("image_position_ids"),
    "gemma4_vision": _positioned_patches("pixel_position_ids"),
    "colqwen2": _patches_per_image,
    "video_llama_3": _unmerged,
    "video_llama_3_vision": _unmerged,
    "deepseek_vl_hybrid": _second_resolution,
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
    "perception_lm": where_taken("pixel_values", set_inputs(pixel_values=pixels(1))),
    # A picture takes a token for each 2 x 2 pixels, and one per row.
    "emu3": where_taken("pixel_values", set_inputs(pixel_values=noise(3, 16, 16), image_sizes=_small_image_sizes)),
    # A sound takes a fixed number of tokens beside the picture's, in one text: the picture alone.
    "gemma3n": drop_inputs("input_features", "input_features_mask"),
    # Sounds are cut into chunks, whose lengths and places would have to be stated.
    "dots3_note": drop_inputs("input_features", "input_features_mask", "feature_attention_mask"),
    "llava": drop_inputs("image_sizes"),
    "vipllava": drop_inputs("image_sizes"),
    "video_llava": drop_inputs("image_sizes"),
    # The beginning of the answer.
    "BlipForQuestionAnswering": set_inputs(decoder_input_ids=ids(DECODER_TOKENS)),
    # A query former reads embeddings, and looks at an encoder's.
    "Blip2QFormerModel": set_inputs(
        query_embeds=noise(4, "hidden_size"), encoder_hidden_states=noise(6, "encoder_hidden_size")
    ),
    # Bytes, or pixels, in the width that the preprocessor gives them.
    "PerceiverModel": chain(drop_inputs("input_ids"), set_inputs(inputs=noise(TOKENS, "d_model"))),
    "PerceiverForMaskedLM": set_inputs(inputs=ids(16), attention_mask=ones(16)),
    "PerceiverForSequenceClassification": set_inputs(inputs=ids(16), attention_mask=ones(16)),
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


CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %} {% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
"""A chat with images, in the form of LLaVA's."""

_IMAGE_MARK = "<image>"
_CLASS_TOKENS = 1
"""The vision model's class token, which LLaVA counts and then drops."""


def _llava_processor(config: Any, *, tiled: bool) -> list[Any]:
    """Make LLaVA's processor, or LLaVA-NeXT's, which also cuts a picture into tiles."""
    import transformers

    tokenizer = train_tokenizer("LlamaTokenizer", extra=(_IMAGE_MARK,), pad_token="<pad>")
    config.image_token_index = config.image_token_id = tokenizer.convert_tokens_to_ids(_IMAGE_MARK)
    match_config_to_tokenizer(config, tokenizer)
    side, patch = config.vision_config.image_size, config.vision_config.patch_size
    config.image_seq_length = (side // patch) ** 2
    options = {"image_grid_pinpoints": config.image_grid_pinpoints} if tiled else {}
    pictures = cropping_image_processor("LlavaNextImageProcessor" if tiled else "CLIPImageProcessor", side, **options)
    processor = transformers.LlavaNextProcessor if tiled else transformers.LlavaProcessor
    return [
        processor(
            image_processor=pictures,
            tokenizer=tokenizer,
            patch_size=patch,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            image_token=_IMAGE_MARK,
            num_additional_image_tokens=_CLASS_TOKENS,
            chat_template=CHAT_TEMPLATE,
        )
    ]


def _dual_encoder_processor(config: Any, *, image_processor: str, processor: str) -> list[Any]:
    """Make a processor of text, and of images or the frames of videos."""
    import transformers

    tokenizer = train_tokenizer("CLIPTokenizer")
    match_config_to_tokenizer(config, tokenizer)
    images = cropping_image_processor(image_processor, config.vision_config.image_size)
    return [getattr(transformers, processor)(image_processor=images, tokenizer=tokenizer)]


PROCESSORS: dict[str, ProcessorMaker] = {
    "clip": partial(_dual_encoder_processor, image_processor="CLIPImageProcessor", processor="CLIPProcessor"),
    "xclip": partial(_dual_encoder_processor, image_processor="VideoMAEImageProcessor", processor="XCLIPProcessor"),
    "llava": partial(_llava_processor, tiled=False),
    "llava_next": partial(_llava_processor, tiled=True),
}
