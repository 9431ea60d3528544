"""Special sizes, inputs and processors of text models."""

from __future__ import annotations

from functools import partial
from typing import Any

from pytest_hfaccel.checkpoints.tables.draft import TOKENS, Change, Draft, ids, ones, replace_inputs
from pytest_hfaccel.checkpoints.tables.sizes import EXPERTS, FEED_FORWARD, HEADS, HIDDEN, KV_HEADS
from pytest_hfaccel.checkpoints.tables.tokenizers import ProcessorMaker, text_tokenizer

_HYBRID = {
    "layers_block_type": ["linear_attention", "linear_attention", "hybrid", "linear_attention", "hybrid"],
    "num_hidden_layers": 5,
}


OVERRIDES: dict[str, dict[str, Any]] = {
    # Its cache asks for a number of layers that the outer config does not have.
    "blt": {"use_cache": False},
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
}


CLASS_OVERRIDES: dict[str, dict[str, Any]] = {
    # Half of the model, which says so.
    "T5GemmaEncoderModel": {"is_encoder_decoder": False},
}


def _separated(draft: Draft) -> None:
    """Longformer reads the question off the places of the separators: exactly three of them per row."""
    draft.inputs["input_ids"][..., [3, 5, 6]] = draft.config.sep_token_id


def _questions(draft: Draft) -> None:
    """Jev takes one prompt: where each question's answer is marked, its number of options, and its kind."""
    import torch

    draft.inputs = {
        "input_ids": draft.ids(1, TOKENS),
        "marks": torch.tensor([[3, 6]]),
        "num_options": torch.tensor([[2, 2]]),
        "question_type_ids": torch.tensor([[0, 0]]),
    }


SPECIAL_INPUTS: dict[str, Change] = {
    "JevForDecision": _questions,
    "LongformerForMultipleChoice": _separated,
    "LongformerForQuestionAnswering": _separated,
    # Landmarks are means of segments of a text of one length.
    "NystromformerForMultipleChoice": replace_inputs(
        input_ids=ids(2, "segment_means_seq_len"), attention_mask=ones(2, "segment_means_seq_len")
    ),
    "nystromformer": replace_inputs(
        input_ids=ids("segment_means_seq_len"), attention_mask=ones("segment_means_seq_len")
    ),
}


PROCESSORS: dict[str, ProcessorMaker] = {
    "bert": partial(text_tokenizer, tokenizer_class="BertTokenizer"),
    "distilbert": partial(text_tokenizer, tokenizer_class="DistilBertTokenizer"),
    "roberta": partial(text_tokenizer, tokenizer_class="RobertaTokenizer"),
    "gpt2": partial(text_tokenizer, tokenizer_class="GPT2Tokenizer", pad_token="<|pad|>"),
    "t5": partial(text_tokenizer, tokenizer_class="T5Tokenizer"),
    "llama": partial(text_tokenizer, tokenizer_class="LlamaTokenizer", pad_token="<pad>"),
    "qwen2": partial(text_tokenizer, tokenizer_class="Qwen2Tokenizer"),
}
