"""Small models of many architectures: to be traced, and to be run for real beside it."""

from __future__ import annotations

import inspect
from typing import Any

_WIDTH = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
_IMAGE = {**_WIDTH, "image_size": 64, "patch_size": 16}
_TWO_SIDES = {
    f"{side}_{name}": value
    for side in ("encoder", "decoder")
    for name, value in {"layers": 2, "attention_heads": 4, "ffn_dim": 128}.items()
}

LENGTH = 16

BERT = {**_WIDTH, "vocab_size": 1000}

MODELS: dict[str, dict[str, Any]] = {
    "BertForMaskedLM": BERT,
    "GPT2LMHeadModel": {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 1000},
    "LlamaForCausalLM": {**BERT, "num_key_value_heads": 2},
    "T5ForConditionalGeneration": {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4},
    "BartForConditionalGeneration": {**_TWO_SIDES, "d_model": 64, "vocab_size": 1000},
    "ViTForImageClassification": _IMAGE,
    "ResNetForImageClassification": {"embedding_size": 16, "hidden_sizes": [32, 32, 64, 64], "depths": [1, 1, 1, 1]},
    "CLIPModel": {"text_config": BERT, "vision_config": _IMAGE},
    "WhisperForConditionalGeneration": {**_TWO_SIDES, "d_model": 64, "max_source_positions": 50},
    "Wav2Vec2ForCTC": {**_WIDTH, "conv_dim": [32] * 7},
}
"""Architecture class -> its dimensions."""


def real_model(architecture: str, **more: Any) -> Any:
    """Build a small model with weights, in eval mode."""
    import torch
    import transformers

    model_class = getattr(transformers, architecture)
    torch.manual_seed(0)
    return model_class(model_class.config_class(**MODELS[architecture], **more)).eval()


def real_inputs(model: Any, batch: int, length: int = LENGTH) -> dict[str, Any]:
    """Return inputs with values, of the shapes that are traced."""
    import torch

    from pytest_hfaccel.tracing.input_shapes import input_shapes, text_length

    arguments = inspect.signature(model.forward).parameters
    required = {name: argument.default is inspect.Parameter.empty for name, argument in arguments.items()}
    shapes = input_shapes(model.config, required, model.main_input_name, batch, text_length(model.config, length))
    made = {}
    for name, one in shapes.items():
        filled = torch.ones if name.endswith("mask") else _tokens
        made[name] = torch.rand(one.shape) if one.floating else filled(one.shape, dtype=torch.int64)
    return made


def _tokens(shape: tuple[int, ...], dtype: Any) -> Any:
    import torch

    return torch.randint(5, 50, shape, dtype=dtype)
