"""How large a tiny model is: config field names -> sizes. Pure data, applied by `shrink`.

The names are those of transformers' configs. A field of one of these names that is larger becomes the size given; a
smaller one stays. What does not fit a rule is an override per model type (`overrides.py`).
"""

from __future__ import annotations

HIDDEN = 64
HEADS = 4
KV_HEADS = 2
HEAD_DIM = 16
FEED_FORWARD = 128
LAYERS = 2
VOCABULARY = 1024
POSITIONS = 128
EXPERTS = 4
ACTIVE_EXPERTS = 2
PATCHES_PER_SIDE = 4

SIZES: tuple[tuple[int, str], ...] = (
    (
        HIDDEN,
        """
        hidden_size d_model n_embd embed_dim embedding_size dim emb_dim projection_dim projector_hidden_size
        output_channels mit_hidden_size out_hidden_size hidden_dim classifier_proj_size output_hidden_size
        codevector_dim proj_codevector_dim upsample_hidden_size
    """,
    ),
    (
        FEED_FORWARD,
        """
        intermediate_size ffn_dim encoder_ffn_dim decoder_ffn_dim d_ff mlp_dim n_inner mit_intermediate_size
        iou_head_hidden_dim dim_feedforward
    """,
    ),
    (
        HEADS,
        """
        num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads attention_heads
        mit_num_attention_heads prompt_num_attention_heads
    """,
    ),
    (HEAD_DIM, "head_dim d_kv kv_channels d_head"),
    (
        LAYERS,
        """
        num_hidden_layers n_layer n_layers num_layers num_decoder_layers encoder_layers decoder_layers
        mit_num_hidden_layers prompt_layers num_encoder_layers
    """,
    ),
    (VOCABULARY, "vocab_size"),
    (POSITIONS, "max_position_embeddings n_positions max_target_positions max_source_positions n_ctx"),
    (EXPERTS, "num_experts num_local_experts n_routed_experts moe_num_experts"),
    (ACTIVE_EXPERTS, "num_experts_per_tok moe_topk moe_k"),
    (32, "moe_intermediate_size shared_expert_intermediate_size num_pos_feats tdnn_dim conv_dim xvector_output_dim"),
    (16, "num_conv_pos_embeddings num_conv_pos_embedding_groups"),
    (10, "num_queries num_detection_tokens"),
    (8, "num_codevectors_per_group sliding_window attention_window"),
)

LIMITS: dict[str, int] = {name: size for size, names in SIZES for name in names.split()}

KV_HEAD_NAMES = frozenset(["num_key_value_heads", "n_kv_heads", "num_kv_heads"])
"""As many as attention heads where the real model has as many, else `KV_HEADS`: grouped queries stay grouped."""

LAYER_TYPES = frozenset({"layer_types"})
"""One entry per layer: shortened, one layer of each kind first."""

TEXT_POSITIONS_OF_CLIP = 77
"""CLIP's text length is part of its processor's contract; its positions stay."""
