"""How large a tiny model is: config field names -> sizes. Pure data, applied by `shrink`.

The names are those of transformers' configs. A larger integer in a field of one of these names becomes the size listed
here; a smaller one stays. What a rule gets wrong is an override per model type, in the other tables.
"""

from __future__ import annotations

import re
from typing import Any

HIDDEN = 64
FEED_FORWARD = 128
EXPERT_FEED_FORWARD = 32
HEADS = 4
KV_HEADS = 2
HEAD_DIM = 16
LAYERS = 2
MOST_LAYERS = 12
"""Where the kinds of layers follow from their number: enough for each of them, unless that takes more than this."""
POSITIONS = 128
EXPERTS = 4
ACTIVE_EXPERTS = 2
LABELS = 8
VOCABULARY = 1024
SPECIAL_IDS = 64
"""The top ids of the tiny vocabulary, kept for special tokens whose real ids do not fit into it."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SIZES: tuple[tuple[int, str], ...] = (
    (
        HIDDEN,
        """
        adapter_in_dim adapter_input_size adapter_out_dim audio_embed_dim audio_hidden_size backbone_hidden_size
        c_hidden class_embed_dim classifier_proj_size code_hidden_size codevector_dim condition_dim conditioning_dim
        conv_dim cross_hidden_size d_embed d_latents d_model d_pair d_single decoder_embed_dim decoder_hidden_dim
        decoder_hidden_size depth_hidden_size descriptor_decoder_dim dim downsample_hidden_size emb_dim emb_size
        embed_dim embedding_dim embedding_size encoder_hidden_dim encoder_hidden_size entity_emb_size feature_size
        fpn_feature_size fpn_hidden_size fusion_hidden_size hidden_channels hidden_dim hidden_expand_dim hidden_size
        hidden_size_global hidden_size_per_layer_input image_embed_dim image_text_hidden_size image_token_embed_dim
        input_embedding_size lang_embed_dim mask_dim mask_downsampler_embed_dim mask_feature_size
        memory_attention_hidden_size memory_encoder_hidden_size memory_encoder_output_dim memory_fuser_embed_dim
        mit_hidden_size mm_embed_dim mm_hidden_size moe_hidden_size n_embd num_feats out_hidden_size output_channels
        output_dim
        output_embedding_size output_hidden_size output_proj_dims pairwise_hidden_size patch_embed_hidden_size
        perceiver_resampler_hidden_size pixel_decoder_hidden_dim pred_hidden_size proj_codevector_dim project_dim
        projection_dim projection_hidden_size projector_hidden_size projector_input_dim projector_output_dim
        pronunciation_embed_dim qk_channels reassemble_hidden_size resampler_hidden_size retrieval_vector_size
        shape_embed_dim shared_hidden_size talker_hidden_size text_embed_dim text_encoder_width text_hidden_size
        thinker_hidden_size upsample_hidden_size upsample_initial_channel v_channels vision_embed_dim
        vision_feature_size vision_hidden_size vision_output_dim vit_dim width
        """,
    ),
    (
        FEED_FORWARD,
        """
        adapter_intermediate_size alignment_intermediate_size d_ff d_inner decoder_dim_feedforward decoder_ffn_dim
        decoder_intermediate_size decoder_linear_units decoder_mlp_dim dense_intermediate_size dff dim_feedforward
        dim_ff encoder_dim_feedforward encoder_feedforward_dim encoder_ffn_dim encoder_intermediate_size
        encoder_linear_units feed_forward_size ffn_dim ffn_hidden_size head_hidden_size intermediate_size
        intermediate_size_mlp iou_head_hidden_dim memory_attention_feed_forward_hidden_size
        memory_attention_mlp_hidden_size memory_fuser_intermediate_dim mit_intermediate_size mlp_dim n_inner
        pair_transition_intermediate_size perceiver_resampler_mlp_intermediate_size projection_hidden_dim
        projection_intermediate_dim projection_intermediate_size projector_intermediate_size
        prompt_intermediate_size shared_experts_intermediate_size shared_intermediate_size
        speech_encoder_intermediate_size t2u_decoder_ffn_dim t2u_encoder_ffn_dim vision_intermediate_size
        """,
    ),
    (
        EXPERT_FEED_FORWARD,
        """
        expert_ffn_hidden_size moe_intermediate_size moe_shared_expert_intermediate_size
        moe_shared_intermediate_size share_expert_dim shared_expert_intermediate_size
        """,
    ),
    (
        HEADS,
        """
        attention_heads conf_num_attention_heads cross_num_attention_heads decoder_attention_heads
        decoder_cross_attention_heads decoder_num_attention_heads decoder_num_heads decoder_self_attention_heads
        encoder_attention_heads encoder_num_attention_heads index_n_heads linear_num_heads
        memory_attention_num_attention_heads mit_num_attention_heads n_attn_heads n_head n_heads num_attention_heads
        num_attn_heads num_cross_attention_heads num_decoder_attention_heads num_encoder_attention_heads num_heads
        num_mem_heads num_self_attention_heads perceiver_resampler_num_attention_heads pred_num_attention_heads
        prompt_num_attention_heads speech_encoder_attention_heads swa_num_attention_heads
        t2u_decoder_attention_heads t2u_encoder_attention_heads
        """,
    ),
    (
        HEAD_DIM,
        """
        attention_head_size cross_head_dim d_head d_kv dim_head global_head_dim global_pointer_head_size head_dim
        index_head_dim kv_channels linear_head_dim linear_key_head_dim linear_value_head_dim
        perceiver_resampler_attention_head_dim qk_head_dim qk_nope_head_dim resampler_dim_head resampler_head_dim
        swa_head_dim v_head_dim
        """,
    ),
    (
        EXPERTS,
        "moe_num_experts n_experts n_routed_experts num_experts num_local_experts num_routed_experts zero_expert_num",
    ),
    (ACTIVE_EXPERTS, "moe_k moe_topk num_experts_per_tok num_experts_per_token top_k_experts"),
    (
        POSITIONS,
        """
        max_2d_position_embeddings max_decoder_position_embeddings max_encoder_position_embeddings
        max_position_embeddings max_seq_len max_sequence_length max_source_positions max_target_positions
        max_text_len model_max_length n_ctx n_positions seq_len seq_length t2u_max_position_embeddings
        """,
    ),
    (101, "ngram_vocab_size_base"),
    (100, "encoder_hash_byte_group_vocab"),
    (64, "entity_vocab_size mamba_d_ssm num_centroids num_embeddings num_hash_buckets train_num_points"),
    (32, "audio_prompt_dim flow_size num_pos_feats q_lora_rank router_hidden_size tdnn_dim xvector_output_dim"),
    (
        16,
        """
        block_size codebook_dim dim_model_base embedding_rank kv_lora_rank lqe_hidden_dim mamba_d_state
        max_relative_positions n_mels num_clusters
        num_conv_pos_embedding_groups num_conv_pos_embeddings num_latents num_patches o_lora_rank rel_extent
        rotary_dim segment_means_seq_len ssm_state_size
        """,
    ),
    (12, "shape_size"),
    (10, "coordinate_size num_detection_tokens num_queries"),
    (
        8,
        """
        adapter_rank attention_chunk_size attention_window attention_window_size chunk_size laurel_rank
        mamba_chunk_size mamba_n_heads mamba_num_heads max_num_bins num_codevectors_per_group qk_rope_head_dim
        sliding_window sliding_window_size state_size
        """,
    ),
    (
        4,
        """
        index_block_size index_topk linear_num_value_heads mm_tokens_per_image num_denoising num_landmarks
        num_query_tokens num_verbalizers
        """,
    ),
    (2, "index_kpool index_topk_blocks linear_num_key_heads n_group num_attention_chunks spatial_merge_size"),
    (
        1,
        """
        decoder_sparse_step encoder_sparse_step first_k_dense_replace insert_layer_id max_window_layers
        moe_layer_start_index moe_num_shared_experts n_shared_experts num_dense_layers
        num_first_full_attention_layers num_last_full_attention_layers num_local_layers num_nextn_predict_layers
        num_sparse_decoder_layers num_sparse_encoder_layers topk_group
        """,
    ),
    (0, "num_kv_shared_layers"),
)

LIMITS: dict[str, int] = {name: size for size, names in _SIZES for name in _words(names)}

KV_HEAD_NAMES = _words(
    """
    cross_num_key_value_heads decoder_num_key_value_heads encoder_num_key_value_heads multi_query_group_num n_kv_heads
    num_global_key_value_heads num_key_value_attention_heads num_key_value_heads num_kv_heads swa_num_key_value_heads
    """
)
"""As many as attention heads where the real model has as many, else `KV_HEADS`: grouped queries stay grouped."""

HEAD_NAMES = ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads")
"""Where the number of attention heads stands that key-value heads are compared with; the first that is there."""

LAYER_COUNT = re.compile(
    r"(num_hidden_layers|num_layers|n_layers?|layers|depth|num_blocks|num_encoder_blocks"
    r"|(\w+_)?(encoder|decoder)_layers"
    r"|\w*num_(encoder|decoder|spatial|temporal|auxiliary|attention|coda|prelude)_layers"
    r"|\w+_num_hidden_layers|\w+_num_layers|[lxr]_layers|query_dec_layers|prompt_layers"
    r"|num_self_attends_per_block|num_mel_attn_blocks|duration_predictor_layers|energy_predictor_layers"
    r"|resampler_depth|num_res_blocks|text_encoder_proj_layers)"
)

VOCABULARY_SIZE = re.compile(
    r"(vocab_size|(text|src|tgt|text_encoder|t2u|pronunciation|shape|vision)_vocab_size|n_vocab|unpadded_vocab_size"
    r"|vocab_size_per_layer_input|unit_hifi_gan_vocab_size)"
)

TOKEN_ID = re.compile(r"\w*(token_id|token_index|_token|_id|_index)s?")
NOT_TOKEN_IDS = _words(
    """
    ce_ignore_index decode_index default_prompt_id document_token head_in_index ignore_index insert_layer_id lang_id
    loss_ignore_index moe_layer_end_index moe_layer_start_index num_speakers_token num_special_tokens
    semantic_loss_ignore_index sparse_pred_ignore_index vision_feature_layer
    """
)
"""Named like token ids, but counting something else."""

LAYER_INDEX_LISTS = _words(
    """
    backbone_out_indices deepstack_visual_indexes extract_layers fullatt_block_indexes global_attn_indexes
    intermediate_hidden_state_indices intermediate_hook_ids
    """
)
"""Lists of layer numbers: renumbered from 0, and the model gets as many layers as the longest has entries."""

STAGE_DEPTHS = _words("depths num_block_repeats stage_num_blocks block_sizes n_attn_blocks")
"""Layers per stage: one each (two where there are at most two stages)."""

STAGE_WIDTHS = _words("hidden_sizes embed_dims neck_hidden_sizes encoder_hidden_sizes")
"""Widths per stage: scaled so that the narrowest stage has `NARROWEST` channels."""

NARROWEST = 16
"""Also the width of the first stage where a pyramid states no other: it doubles from stage to stage."""

WINDOW = 2
"""Patches per side of an attention window in a pyramid, whose last stage has 2 x 2 patches."""

EQUAL_WIDTHS = {"conv_dim": 32, "tdnn_dim": 32, "decoder_in_channels": HIDDEN, "vision_features_channels": HIDDEN}
"""Lists of widths that all become the same."""

LARGE_PATCH = 12
PATCHES_PER_SIDE = 4
SIDE_OF_SMALL_PATCHES = 64
"""Images have 4 x 4 patches of `LARGE_PATCH` pixels and more; smaller patches fill 64 pixels."""

SIZES_OF_NONE: dict[str, Any] = {
    "audio_token_id": VOCABULARY - 61,
    "head_dim": HEAD_DIM,
    "hidden_size": HIDDEN,
    "image_token_id": VOCABULARY - 60,
    "image_token_index": VOCABULARY - 60,
    "intermediate_size": FEED_FORWARD,
    "linear_key_head_dim": HEAD_DIM,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_value_head_dim": HEAD_DIM,
    "mlp_dim": FEED_FORWARD,
    "moe_intermediate_size": EXPERT_FEED_FORWARD,
    "moe_topk": ACTIVE_EXPERTS,
    "n_group": 1,
    "n_routed_experts": EXPERTS,
    "n_shared_experts": 1,
    "num_attention_heads": HEADS,
    "num_dense_layers": 1,
    "num_experts": EXPERTS,
    "num_experts_per_tok": ACTIVE_EXPERTS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": KV_HEADS,
    "num_local_experts": EXPERTS,
    "pad_token_id": 0,
    "shared_expert_intermediate_size": EXPERT_FEED_FORWARD,
    "sliding_window": 8,
    "top_k_experts": ACTIVE_EXPERTS,
    "topk_group": 1,
    "video_token_id": VOCABULARY - 62,
    "video_token_index": VOCABULARY - 62,
    "vocab_size": VOCABULARY,
    "vocabulary_map": {},
}
"""Sizes for fields that are `None` by default and stated by every checkpoint, where the model cannot run without."""
