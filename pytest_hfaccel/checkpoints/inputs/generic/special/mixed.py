"""Special inputs of models that take text with images, and their vision parts."""

from __future__ import annotations

from pytest_hfaccel.checkpoints.inputs.generic.draft import BATCH, DECODER_TOKENS, TOKENS
from pytest_hfaccel.checkpoints.inputs.generic.special import layouts
from pytest_hfaccel.checkpoints.inputs.generic.special.recipes import (
    Change,
    both,
    given,
    ids,
    noise,
    ones,
    pixels,
    uniform,
    where_taken,
    without,
)

_TWO_TILES = where_taken("pixel_values", given(pixel_values=pixels(2)))


SPECIAL: dict[str, Change] = {
    "inkling_mm_model": layouts.folded_patches,
    "inkling2": layouts.merged_cells,
    "inkling2_vision": layouts.merged_cells,
    "molmo2": layouts.pooled_crops,
    "nemotron_h_omni": layouts.height_and_width,
    "minicpm_ocr_vision": layouts.packed_row,
    "minicpmv4_7_vision": layouts.packed_row,
    "pi0": layouts.cameras,
    "mllama": layouts.mllama,
    "kosmos-2": layouts.kosmos2,
    "kosmos-2.5": layouts.kosmos2,
    "pix2struct": layouts.flat_patches,
    "pix2struct_vision_model": layouts.flat_patches,
    "gemma4": layouts.positioned_patches("image_position_ids"),
    "gemma4_unified": layouts.positioned_patches("image_position_ids"),
    "embedding_gemma2": layouts.positioned_patches("image_position_ids"),
    "gemma4_vision": layouts.positioned_patches("pixel_position_ids"),
    "colqwen2": layouts.patches_per_image,
    "video_llama_3": layouts.unmerged,
    "video_llama_3_vision": layouts.unmerged,
    "deepseek_vl_hybrid": layouts.second_resolution,
    "idefics": layouts.idefics,
    # The whole picture, and one tile of it.
    "llava_next": _TWO_TILES,
    "llava_next_video": _TWO_TILES,
    "llava_onevision": _TWO_TILES,
    "granite4_vision": _TWO_TILES,
    # Images are patches of a list per sample, which is not a tensor: the text alone.
    "fuyu": without("pixel_values"),
    "neomme": without("pixel_values", "image_grid_thw"),
    "muse_glimmer_assistant": layouts.drafted,
    "glm_image": layouts.next_picture,
    # Regions that a detector found: features and boxes.
    "lxmert": given(visual_feats=noise(5, "visual_feat_dim"), visual_pos=uniform(5, "visual_pos_dim")),
    # One tile per picture.
    "granite_docling": where_taken(
        "pixel_attention_mask",
        given(pixel_values=pixels(1), pixel_attention_mask=lambda draft: draft.ones(BATCH, 1) > 0),
    ),
    "perception_lm": where_taken("pixel_values", given(pixel_values=pixels(1))),
    # A picture takes a token for each 2 x 2 pixels, and one per row.
    "emu3": where_taken("pixel_values", given(pixel_values=noise(3, 16, 16), image_sizes=layouts.small)),
    # A sound takes a fixed number of tokens beside the picture's, in one text: the picture alone.
    "gemma3n": without("input_features", "input_features_mask"),
    # Sounds are cut into chunks, whose lengths and places would have to be stated.
    "dots3_note": without("input_features", "input_features_mask", "feature_attention_mask"),
    "llava": without("image_sizes"),
    "vipllava": without("image_sizes"),
    "video_llava": without("image_sizes"),
    # The beginning of the answer.
    "BlipForQuestionAnswering": given(decoder_input_ids=ids(DECODER_TOKENS)),
    # A query former reads embeddings, and looks at an encoder's.
    "Blip2QFormerModel": given(
        query_embeds=noise(4, "hidden_size"), encoder_hidden_states=noise(6, "encoder_hidden_size")
    ),
    # Bytes, or pixels, in the width that the preprocessor gives them.
    "PerceiverModel": both(without("input_ids"), given(inputs=noise(TOKENS, "d_model"))),
    "PerceiverForMaskedLM": given(inputs=ids(16), attention_mask=ones(16)),
    "PerceiverForSequenceClassification": given(inputs=ids(16), attention_mask=ones(16)),
    "PerceiverForImageClassificationConvProcessing": given(inputs=noise(3, 64, 64)),
    "PerceiverForImageClassificationFourier": given(inputs=noise(3, 224, 224)),
    "PerceiverForImageClassificationLearned": given(inputs=noise(3, 224, 224)),
}
