"""Overrides for single classes of a model type, whose other classes do without."""

from __future__ import annotations

from typing import Any

from pytest_hfaccel.checkpoints.rules import HEADS, HIDDEN

_FOUR_LAYERS = {"num_hidden_layers": 4, "out_indices": [1, 2, 3, 4]}

OF_CLASS: dict[str, dict[str, Any]] = {
    # The neck makes a pyramid of four layers' features.
    "BeitForSemanticSegmentation": {**_FOUR_LAYERS, "out_features": ["stage1", "stage2", "stage3", "stage4"]},
    "Data2VecVisionForSemanticSegmentation": _FOUR_LAYERS,
    # Its query former reads text, too, which takes a branch of its own in every layer.
    "Blip2ForImageTextRetrieval": {"qformer_config": {"use_qformer_text_input": True}},
    # Only the class with a decoder needs its sizes, which every checkpoint of it states.
    "HieraForPreTraining": {"decoder_hidden_size": HIDDEN, "decoder_depth": 1, "decoder_num_heads": HEADS},
    # Queries are as wide as what a preprocessor makes of the pixels, which only one head divides.
    "PerceiverForImageClassificationConvProcessing": {"num_cross_attention_heads": 1},
    "PerceiverForImageClassificationFourier": {"num_cross_attention_heads": 1},
    # Half of the model, which says so.
    "T5GemmaEncoderModel": {"is_encoder_decoder": False},
}
