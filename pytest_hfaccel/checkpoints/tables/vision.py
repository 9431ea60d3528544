"""Special sizes, inputs and processors of models of images and videos."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

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
from pytest_hfaccel.checkpoints.tables.sizes import HEADS, HIDDEN, LABELS, LAYERS
from pytest_hfaccel.checkpoints.tables.tokenizers import ProcessorMaker

_ENCODER = {"image_size": 32, "patch_size": 16}
_HGNET = {"model_type": "hgnet_v2", "return_idx": None}
_THIN = {"neck_hidden_sizes": [16, 16, 32, 32], "fusion_hidden_size": 16, "head_hidden_size": 16}


def _lcnet(stride: Any) -> list[list[list[Any]]]:
    """Blocks of a PP-LCNet v4: kernel, input and output channels, stride, and whether channels are weighted."""
    later = [[[3, 16, 16, stride, False]], [[3, 16, 32, stride, False]], [[3, 32, 64, stride, False]]]
    return [[[3, 16, 16, 1, True]], *later]


_PAGES = {"block_configs": _lcnet(2), "out_features": ["stage1", "stage2", "stage3", "stage4"]}
_RATIOS = (("long", 7), ("mid", 5), ("short", 3))
_DETECTOR = {
    "kernel_list": [3, 2, 2],
    "scale_factor_list": [1, 2, 4, 8],
    "neck_out_channels": HIDDEN,
    # Each convolution's kernel, stride and padding: long in one direction, or in both.
    "intraclass_block_config": {
        "reduce_channel": [1, 1, 0],
        "return_channel": [1, 1, 0],
        **{f"vertical_long_to_small_conv_{name}ratio": [[n, 1], [1, 1], [n // 2, 0]] for name, n in _RATIOS},
        **{f"horizontal_small_to_long_conv_{name}ratio": [[1, n], [1, 1], [0, n // 2]] for name, n in _RATIOS},
        **{f"symmetric_conv_long_{name}ratio": [[n, n], [1, 1], [n // 2, n // 2]] for name, n in _RATIOS},
    },
}


TIMM_CONVOLUTIONS = "test_convnext"


TIMM_WIDTHS = [24, 32, 48, 64]
"""The channels of its feature maps, of a fourth, eighth, sixteenth and thirty-second of the picture's sides."""


TIMM_PATCHES = {"architecture": "test_vit", "model_args": {"embed_dim": HIDDEN, "img_size": [64, 64]}}
"""Patches of 16 x 16 pixels."""


OVERRIDES: dict[str, dict[str, Any]] = {
    # Bottleneck blocks divide their width by four, and four stages of the rule's widths are 600,000 parameters.
    "resnet": {"embedding_size": 32, "hidden_sizes": [32, 32, 64, 64]},
    "bit": {"embedding_size": 32, "hidden_sizes": [32, 64, 128, 256], "num_groups": 4},
    # Four lists that say the widths of the same stages.
    "hgnet_v2": {
        "embedding_size": 16,
        "stem_channels": [3, 16, 16],
        "stage_in_channels": [16, 32, 64, 128],
        "stage_mid_channels": [8, 16, 16, 32],
        "stage_out_channels": [32, 64, 128, 256],
        "stage_num_blocks": [1, 1, 1, 1],
        "stage_numb_of_layers": [1, 1, 1, 1],
        "hidden_sizes": [32, 64, 128, 256],
        "depths": [1, 1, 1, 1],
    },
    "hiera": {"image_size": [64, 64], "embed_dim": 32, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8]},
    # Widths and depths follow from coefficients; the last stage's is the hidden one.
    "efficientnet": {"image_size": 64, "width_coefficient": 0.25, "depth_coefficient": 0.1, "hidden_dim": 320},
    "align_vision_model": {"image_size": 64, "width_coefficient": 0.25, "depth_coefficient": 0.1, "hidden_dim": 80},
    # A field of its own hides that of all configs which would fill in the labels' names; its checkpoints state them.
    "pvt": {"num_labels": LABELS, "id2label": {label: f"LABEL_{label}" for label in range(LABELS)}},
    "depth_anything": _THIN,
    "prompt_depth_anything": _THIN,
    "zoedepth": {
        "fusion_hidden_size": 32,
        "neck_hidden_sizes": [16, 16, 32, 32],
        "bottleneck_features": 32,
        "num_attractors": [4, 2, 1, 1],
        "bin_embedding_dim": 16,
    },
    # Three encoders of one image size; the picture is cut into patches of it at several scales.
    "depth_pro": {
        "patch_size": 32,
        "scaled_images_feature_dims": [32, 32, 16],
        "intermediate_feature_dims": [16, 16],
        "fusion_hidden_size": 16,
        "intermediate_hook_ids": [1, 0],
        "image_model_config": _ENCODER,
        "patch_model_config": _ENCODER,
        "fov_model_config": _ENCODER,
    },
    "vitmatte": {"convstream_hidden_sizes": [16, 32, 48], "fusion_hidden_sizes": [64, 32, 16, 8]},
    # One layer with global and one with windowed attention; 4 x 4 patches hold four windows of 2.
    "sam_vision_model": {
        "num_hidden_layers": LAYERS,
        "global_attn_indexes": [1],
        "window_size": 2,
        "mlp_dim": 2 * HIDDEN,
    },
    # A pyramid whose stages are described by six lists and one place with global attention.
    "sam2_hiera_det_model": {
        "hidden_size": 16,
        "num_attention_heads": 1,
        "image_size": [64, 64],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [16, 32, 64, 128],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "window_size_per_stage": [8, 4, 8, 4],
        "query_stride": [2, 2],
        "global_attention_blocks": [3],
        "window_positional_embedding_background_size": [4, 4],
    },
    "sam2_vision_model": {
        "backbone_channel_list": [128, 64, 32, 16],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": HIDDEN,
    },
    "sam3_tracker": {"vision_config": {"backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]}},
    # Boxes are given in thousandths of the page.
    "pp_doclayout_v2": {
        "backbone_config": _HGNET,
        "class_thresholds": [0.5, 0.5],
        "class_order": [0, 1],
        "reading_order_config": {"max_2d_position_embeddings": 1024},
    },
    "pp_doclayout_v3": {"backbone_config": _HGNET, "x4_feat_dim": 32},
    "pp_doclayout_v4": {"backbone_config": _HGNET, "x4_feat_dim": 32},
    # A backbone's blocks: kernel, input and output channels, stride, and whether channels are weighted.
    "pp_lcnet_v3": {
        "scale": 1.0,
        "block_configs": [
            [[3, 16, 16, 1, False]],
            [[3, 16, 16, 2, False]],
            [[3, 16, 32, 2, False]],
            [[3, 32, 32, 2, False]],
            [[5, 32, 64, 2, True]],
        ],
    },
    "pp_lcnet_v4": {"block_configs": _lcnet([2, 1]), "stem_channels": [3, 16, 16]},
    # Text lines keep their width; pages do not, and a detector looks at all stages.
    "pp_ocrv6_small_det": {
        "backbone_config": _PAGES,
        "layer_list_out_channels": [16, 16, 32, 64],
        "neck_out_channels": 32,
    },
    # Every checkpoint states these.
    "pp_ocrv5_server_det": _DETECTOR,
    "pp_ocrv6_medium_det": {**_DETECTOR, "backbone_config": _PAGES},
    # The bridge joins the features of all six stages.
    "uvdoc": {"backbone_config": {"out_features": [f"stage{number}" for number in range(1, 7)]}},
    # The stem's width is the first of the widths.
    "textnet": {"stem_out_channels": 16},
    "sapiens2": {"head_config": {"upsample_out_channels": [16], "conv_out_channels": [16]}},
    # What follows the neck takes the neck's channels.
    "pp_formulanet_vision": {
        "post_conv_in_channels": HIDDEN,
        "post_conv_mid_channels": HIDDEN,
        "post_conv_out_channels": HIDDEN,
    },
    "slanext": {"post_conv_in_channels": HIDDEN, "post_conv_out_channels": HIDDEN},
    # The ResNet in place of timm's Swin gives channels first, which the norm after it does not expect.
    "omdet-turbo": {
        "apply_layernorm_after_vision_backbone": False,
        "encoder_in_channels": [32, 32, 64],
        # The task is projected only where its width is not the hidden one, and the projection is read always.
        "text_projection_in_dim": HIDDEN,
        "text_projection_out_dim": HIDDEN,
        "class_embed_dim": HIDDEN,
        "encoder_hidden_dim": 32,
        "decoder_hidden_dim": 32,
        "vision_features_channels": [32, 32, 32],
    },
    "lw_detr": {"projector_scale_factors": [1.0], "group_detr": 1, "backbone_config": {"num_windows": 4}},
    "lw_detr_vit": {"num_windows": 4, "image_size": 64, "pretrain_image_size": 64},
    "rf_detr": {
        "backbone_config": {
            "model_type": "rf_detr_dinov2",
            "hidden_size": HIDDEN,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "image_size": 64,
            "patch_size": 16,
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
            "num_windows": 2,
            "mlp_ratio": 2,
        }
    },
    # The mask head takes the width and the heads together in groups of eight.
    "detr": {"encoder_attention_heads": 8, "decoder_attention_heads": 8},
    # The rotated part of a head is stretched fourfold, and must fill half the width.
    "efficientloftr": {
        "out_features": [16, 16, 32, 64],
        "stage_num_blocks": [1, 1, 1, 1],
        "hidden_size": 64,
        "num_attention_heads": 8,
    },
    "oneformer": {"task_seq_len": 8, "use_task_norm": True},
    "perceiver": {"d_latents": 64, "d_model": 64, "num_latents": 8},
    "tvp": {
        "max_img_size": 64,
        "visual_prompt_size": 8,
        "num_frames": 4,
        "max_grid_col_position_embeddings": 8,
        "max_grid_row_position_embeddings": 8,
    },
    # The prompt is merged before the first feature map is taken.
    "seggpt": {"merge_index": 0, "intermediate_hidden_state_indices": [1, 1, 2, 3], "num_hidden_layers": 4},
    # timm's own models for tests, of a quarter of a million parameters.
    "timm_wrapper": {"architecture": TIMM_CONVOLUTIONS},
    # Its default names none.
    "timm_backbone": {"backbone": TIMM_CONVOLUTIONS},
    "edgetam_vision_model": {
        # A config of timm takes the number of labels by its own name.
        "backbone_config": {"architecture": TIMM_CONVOLUTIONS, "num_classes": 2},
        "backbone_channel_list": TIMM_WIDTHS[::-1],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": HIDDEN,
    },
}

_FOUR_LAYERS = {"num_hidden_layers": 4, "out_indices": [1, 2, 3, 4]}


CLASS_OVERRIDES: dict[str, dict[str, Any]] = {
    # The neck makes a pyramid of four layers' features.
    "BeitForSemanticSegmentation": {**_FOUR_LAYERS, "out_features": ["stage1", "stage2", "stage3", "stage4"]},
    "Data2VecVisionForSemanticSegmentation": _FOUR_LAYERS,
    # Only the class with a decoder needs its sizes, which every checkpoint of it states.
    "HieraForPreTraining": {"decoder_hidden_size": HIDDEN, "decoder_depth": 1, "decoder_num_heads": HEADS},
}


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
    import torch

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
    import torch

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


def _square_image_processor(config: Any, class_name: str, *, crops: bool = False) -> list[Any]:
    """Make a processor for a model of square images, perhaps with a crop after resizing."""
    side = {"height": config.image_size, "width": config.image_size}
    return [image_processor(class_name, size=side, **({"crop_size": side} if crops else {}))]


def _detr_image_processor(config: Any) -> list[Any]:
    """Make DETR's processor, which takes images of any size: small ones here."""
    del config
    return [image_processor("DetrImageProcessor", size={"shortest_edge": 64, "longest_edge": 96})]


def _sam_processor(config: Any) -> list[Any]:
    """Make SAM's processor: pictures padded to a square, with points or boxes; masks are a quarter as large."""
    import transformers

    side = config.vision_config.image_size
    processor = image_processor(
        "SamImageProcessor",
        size={"longest_edge": side},
        pad_size={"height": side, "width": side},
        mask_size={"longest_edge": side // 4},
        mask_pad_size={"height": side // 4, "width": side // 4},
    )
    return [transformers.SamProcessor(image_processor=processor)]


def cropping_image_processor(class_name: str, side: int, **options: Any) -> Any:
    """Make a processor that scales the shorter edge and cuts out the middle, as CLIP's does."""
    return image_processor(
        class_name, size={"shortest_edge": side}, crop_size={"height": side, "width": side}, **options
    )


def image_processor(class_name: str, **options: Any) -> Any:
    """Make an image processor; without torchvision the name gives the class that works with PIL."""
    import transformers

    return getattr(transformers, class_name)(**options)


PROCESSORS: dict[str, ProcessorMaker] = {
    "vit": partial(_square_image_processor, class_name="ViTImageProcessor"),
    "deit": partial(_square_image_processor, class_name="DeiTImageProcessor", crops=True),
    "detr": _detr_image_processor,
    "sam": _sam_processor,
}
