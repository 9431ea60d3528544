"""Overrides for models of text."""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.checkpoints.rules import EXPERTS, FEED_FORWARD, HEAD_DIM, HEADS, HIDDEN, KV_HEADS

_HYBRID = {
    "layers_block_type": ["linear_attention", "linear_attention", "hybrid", "linear_attention", "hybrid"],
    "num_hidden_layers": 5,
}

_SERIES = {"prediction_length": 4, "context_length": 8, "lags_sequence": [1, 2, 3], "num_time_features": 1}

OVERRIDES: dict[str, dict[str, Any]] = {
    # Series have no default length. Lags reach back so far.
    "autoformer": {**_SERIES, "label_length": 4},
    "informer": _SERIES,
    "time_series_transformer": _SERIES,
    # Its cache asks for a number of layers that the outer config does not have.
    "blt": {"use_cache": False},
    # What is rotated and what is not make up the head of a windowed layer.
    "dots3_note_text": {"head_dim": HEAD_DIM + 8},
    # Embeddings of the usual size drown the layers where they are tied to the head: every token generates itself.
    "t5": {"initializer_factor": 0.02},
    "mt5": {"initializer_factor": 0.02},
    # The layers with attention are named by number; the others are state spaces.
    "bamba": {"attn_layer_indices": [1], "num_hidden_layers": 2},
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
        "num_hidden_layers": 2,
    },
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"], "num_hidden_layers": 2},
    # Two recurrent layers come before the first with attention.
    "recurrent_gemma": {"num_hidden_layers": 3},
    # A hybrid layer must repeat to show that its weights are shared.
    "zamba": {**_HYBRID, "attn_layer_period": 2, "attn_layer_offset": 1},
    "zamba2": {**_HYBRID, "n_mamba_heads": 8, "mamba_d_state": 16},
    # DBRX keeps its sizes in dictionaries.
    "dbrx": {
        "attn_config": {"rope_theta": 10000.0, "kv_n_heads": KV_HEADS, "clip_qkv": 8},
        "ffn_config": {
            "ffn_hidden_size": FEED_FORWARD,
            "moe_num_experts": EXPERTS,
            "moe_top_k": 2,
            "hidden_size": HIDDEN,
        },
        "d_model": HIDDEN,
        "n_heads": HEADS,
        "n_layers": 2,
        "max_seq_len": 128,
    },
    # The kinds of layers are counted in a nested list.
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "window_size": 8},
    # The inner width, twice the hidden size, is the heads' total width.
    "mamba2": {"num_heads": 8, "head_dim": 16, "state_size": 16, "n_groups": 1, "chunk_size": 8},
    # The position table is a product of two, and its widths add up to the hidden size.
    "reformer": {
        # Hashing is random unless it is seeded.
        "hash_seed": 0,
        "axial_pos_shape": [8, 16],
        "axial_pos_embds_dim": [16, 48],
        "attn_layers": ["local", "lsh"],
        "local_attn_chunk_length": 4,
        "lsh_attn_chunk_length": 4,
        "attention_head_size": 16,
        "num_attention_heads": 2,
        "hidden_size": 64,
        "num_buckets": 2,
        "max_position_embeddings": 128,
    },
    "xlstm": {"hidden_size": 64, "num_heads": 4, "chunk_size": 16, "qk_dim_factor": 1.0},
    # Set by every checkpoint.
    "qwen3_omni_moe_talker_text": {"shared_expert_intermediate_size": 32},
    # The outer config hands this down; an encoder by itself has no outer config.
    "t5gemma2_text": {"dropout_rate": 0.0},
    # The adapter of one language is used; without a default the caller must name it.
    "xmod": {"default_language": "en_XX"},
    # A second stream of positions is narrower by this ratio, and still has to divide among the heads.
    "lilt": {"hidden_size": 48, "intermediate_size": 96, "num_attention_heads": 4, "channel_shrink_ratio": 2},
    "led": {"attention_window": 8, "max_encoder_position_embeddings": 128, "max_decoder_position_embeddings": 128},
    # The end of a question is marked by separators: they must be among the tokens.
    "longformer": {"attention_window": 8, "sep_token_id": 2},
    # Six coordinate embeddings of these widths make up the hidden size.
    "layoutlmv3": {"coordinate_size": 10, "shape_size": 12},
    # The default is the tokenizer's 33 amino acids and markers.
    "esm": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32},
    # Defaults of None stand for what every checkpoint states.
    "deepseek_v2": {
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "head_dim": 8,
        "num_key_value_heads": HEADS,
    },
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2, "num_dense_layers": 1},
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
    # Sections of the rotary embedding add up to half a head.
    "paddleocr_vl_text": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    },
    "cosmos3_edge_text": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
    },
    "ernie4_5_vl_moe_text": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [3, 3, 2]}
    },
    "hunyuan_vl_text": {
        "head_dim": HEAD_DIM,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2, 2]},
    },
    "cohere_compass_text": {
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
            for kind in ("full_attention", "sliding_attention")
        },
        "layer_types": ["sliding_attention", "full_attention"],
        "num_hidden_layers": 2,
    },
}
