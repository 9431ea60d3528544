"""The models of the prediction experiment: real architectures at dimensions that this kind of machine runs in seconds.

They are built from their configs with seeded random weights: nothing is downloaded. `relatives` groups architectures
that are variations of each other (BERT and RoBERTa, LLaMA and Qwen2): the experiment holds all relatives out together,
so that a model is never predicted from its twin.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_hfaccel.core.spec import ModelSpec


@dataclass(frozen=True)
class ZooModel:
    """A model of the experiment.

    Attributes:
        spec: Class, task and dimensions.
        relatives: Name of the group of architectures that are held out together.
        points: (batch, tokens) to measure at; 0 tokens for models without text.
    """

    spec: ModelSpec
    relatives: str
    points: tuple[tuple[int, int], ...]


TEXT = ((1, 32), (1, 128), (8, 32), (8, 128))
MEDIA = ((1, 0), (8, 0))
MEDIA_SMALL = ((1, 0), (4, 0))
PAIRS = ((1, 16), (1, 64), (8, 16))
SPEECH_TO_TEXT = ((1, 16), (1, 64), (4, 16))


def _width(hidden: int, layers: int, heads: int, ff: int | None = None) -> dict[str, int]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": ff or 4 * hidden,
    }


def _decoder(hidden: int, layers: int, heads: int, ff: int, kv: int, vocab: int = 32000) -> dict[str, int]:
    return {**_width(hidden, layers, heads, ff), "num_key_value_heads": kv, "vocab_size": vocab}


def _bart(width: int, layers: int, heads: int) -> dict[str, int]:
    return {
        "d_model": width,
        **{f"{side}_layers": layers for side in ("encoder", "decoder")},
        **{f"{side}_ffn_dim": 4 * width for side in ("encoder", "decoder")},
        **{f"{side}_attention_heads": heads for side in ("encoder", "decoder")},
    }


_MASK, _TEXT_CLASS, _FEATURES, _LM = "fill-mask", "text-classification", "feature-extraction", "text-generation"
_SEQ2SEQ, _IMAGE, _IMAGE_FEATURES = "text2text-generation", "image-classification", "image-feature-extraction"
_SPEECH, _SOUND, _IMAGE_TEXT = "automatic-speech-recognition", "audio-classification", "zero-shot-image-classification"

_ROWS: tuple[tuple[str, str, str, str, Mapping[str, Any], tuple[tuple[int, int], ...]], ...] = (
    ("bert-tiny", "bert", "BertForMaskedLM", _MASK, _width(128, 2, 2), TEXT),
    ("bert-mini", "bert", "BertForMaskedLM", _MASK, _width(256, 4, 4), TEXT),
    ("bert-small", "bert", "BertForMaskedLM", _MASK, _width(512, 8, 8), TEXT),
    ("bert-base", "bert", "BertForMaskedLM", _MASK, {}, TEXT),
    ("distilbert-small", "bert", "DistilBertForMaskedLM", _MASK, {"dim": 384, "n_layers": 4, "n_heads": 6,
                                                                "hidden_dim": 1536}, TEXT),
    ("roberta-small", "bert", "RobertaForSequenceClassification", _TEXT_CLASS,
     {**_width(384, 6, 6), "vocab_size": 50265, "max_position_embeddings": 514}, TEXT),
    ("electra-small", "bert", "ElectraForSequenceClassification", _TEXT_CLASS,
     {**_width(256, 12, 4), "embedding_size": 128}, TEXT),
    ("mpnet-small", "bert", "MPNetModel", _FEATURES, _width(384, 6, 6), TEXT),
    ("albert-base", "albert", "AlbertForMaskedLM", _MASK,
     {**_width(768, 12, 12), "vocab_size": 30000, "embedding_size": 128}, TEXT),
    ("mobilebert-12l", "mobilebert", "MobileBertModel", _FEATURES, {"num_hidden_layers": 12}, TEXT),
    ("deberta-v2-xsmall", "deberta", "DebertaV2Model", _FEATURES,
     {**_width(384, 6, 6), "vocab_size": 32000, "relative_attention": True, "position_buckets": 256,
      "norm_rel_ebd": "layer_norm", "share_att_key": True, "pos_att_type": ["p2c", "c2p"],
      "position_biased_input": False, "max_relative_positions": -1}, TEXT),
    ("squeezebert-6l", "squeezebert", "SqueezeBertModel", _FEATURES, {"num_hidden_layers": 6}, TEXT),
    ("modernbert-small", "modernbert", "ModernBertForMaskedLM", _MASK, _width(384, 8, 6, 576), TEXT),
    ("fnet-6l", "fnet", "FNetForMaskedLM", _MASK,
     {"hidden_size": 512, "num_hidden_layers": 6, "intermediate_size": 2048}, TEXT),
    ("gpt2-mini", "gpt2", "GPT2LMHeadModel", _LM, {"n_embd": 256, "n_layer": 4, "n_head": 4}, TEXT),
    ("distilgpt2", "gpt2", "GPT2LMHeadModel", _LM, {"n_layer": 6}, TEXT),
    ("opt-mini", "gpt2", "OPTForCausalLM", _LM,
     {"hidden_size": 384, "num_hidden_layers": 6, "ffn_dim": 1536, "num_attention_heads": 6,
      "word_embed_proj_dim": 384, "vocab_size": 32000}, TEXT),
    ("pythia-70m", "neox", "GPTNeoXForCausalLM", _LM, {**_width(512, 6, 8), "vocab_size": 50304}, TEXT),
    ("bloom-mini", "bloom", "BloomForCausalLM", _LM,
     {"vocab_size": 64000, "hidden_size": 512, "n_layer": 6, "n_head": 8}, TEXT),
    ("llama-60m", "llama", "LlamaForCausalLM", _LM, _decoder(512, 8, 8, 1376, 4), TEXT),
    ("llama-160m", "llama", "LlamaForCausalLM", _LM, _decoder(768, 12, 12, 2048, 12), TEXT),
    ("qwen2-mini", "llama", "Qwen2ForCausalLM", _LM, _decoder(384, 6, 6, 1536, 2), TEXT),
    ("phi-mini", "llama", "PhiForCausalLM", _LM, {**_width(512, 8, 8), "vocab_size": 51200}, TEXT),
    ("gemma-mini", "llama", "GemmaForCausalLM", _LM,
     {**_decoder(512, 6, 8, 2048, 1, 64000), "head_dim": 64}, TEXT),
    ("t5-tiny", "t5", "T5ForConditionalGeneration", _SEQ2SEQ,
     {"d_model": 256, "d_kv": 64, "d_ff": 1024, "num_layers": 4, "num_heads": 4}, TEXT),
    ("t5-small", "t5", "T5ForConditionalGeneration", _SEQ2SEQ, {}, TEXT),
    ("bart-small", "bart", "BartForConditionalGeneration", _SEQ2SEQ, _bart(512, 4, 8), TEXT),
    ("marian-small", "bart", "MarianMTModel", _SEQ2SEQ,
     {**_bart(384, 4, 6), "vocab_size": 32000, "pad_token_id": 1, "decoder_start_token_id": 1}, TEXT),
    ("vit-tiny", "vit", "ViTForImageClassification", _IMAGE, _width(192, 12, 3), MEDIA),
    ("vit-small", "vit", "ViTForImageClassification", _IMAGE, _width(384, 12, 6), MEDIA),
    ("vit-base-patch32", "vit", "ViTForImageClassification", _IMAGE, {"patch_size": 32}, MEDIA),
    ("deit-small", "vit", "DeiTForImageClassification", _IMAGE, _width(384, 12, 6), MEDIA),
    ("beit-mini", "vit", "BeitForImageClassification", _IMAGE, _width(384, 6, 6), MEDIA),
    ("dinov2-mini", "vit", "Dinov2Model", _IMAGE_FEATURES,
     {"image_size": 224, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6}, MEDIA),
    ("swin-micro", "swin", "SwinForImageClassification", _IMAGE,
     {"embed_dim": 48, "depths": [2, 2, 4, 2], "num_heads": [2, 4, 8, 16]}, MEDIA_SMALL),
    ("swin-tiny", "swin", "SwinForImageClassification", _IMAGE, {}, MEDIA_SMALL),
    ("resnet-18", "resnet", "ResNetForImageClassification", _IMAGE,
     {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"}, MEDIA),
    ("resnet-50", "resnet", "ResNetForImageClassification", _IMAGE, {}, MEDIA),
    ("regnet-y-mini", "regnet", "RegNetForImageClassification", _IMAGE,
     {"embedding_size": 32, "hidden_sizes": [48, 104, 208, 440], "depths": [1, 3, 6, 6], "groups_width": 8,
      "layer_type": "y"}, MEDIA),
    ("convnext-atto", "convnext", "ConvNextForImageClassification", _IMAGE,
     {"depths": [2, 2, 6, 2], "hidden_sizes": [40, 80, 160, 320]}, MEDIA),
    ("convnext-tiny", "convnext", "ConvNextForImageClassification", _IMAGE, {}, MEDIA_SMALL),
    ("mobilenet-v2", "mobilenet", "MobileNetV2ForImageClassification", _IMAGE, {}, MEDIA),
    ("efficientnet-b0", "mobilenet", "EfficientNetForImageClassification", _IMAGE,
     {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280, "image_size": 224}, MEDIA),
    ("poolformer-s12", "poolformer", "PoolFormerForImageClassification", _IMAGE, {"depths": [2, 2, 6, 2]}, MEDIA),
    ("segformer-b0", "segformer", "SegformerForImageClassification", _IMAGE, {}, MEDIA_SMALL),
    ("wav2vec2-small", "wav2vec2", "Wav2Vec2ForCTC", _SPEECH, _width(384, 6, 6), MEDIA),
    ("wav2vec2-base", "wav2vec2", "Wav2Vec2ForCTC", _SPEECH, {}, MEDIA_SMALL),
    ("hubert-small", "wav2vec2", "HubertForCTC", _SPEECH, {**_width(384, 6, 6), "conv_dim": [256] * 7}, MEDIA),
    ("whisper-tiny", "whisper", "WhisperForConditionalGeneration", _SPEECH, _bart(384, 4, 6), SPEECH_TO_TEXT),
    ("ast-mini", "ast", "ASTForAudioClassification", _SOUND, _width(192, 6, 3), MEDIA_SMALL),
    ("clip-mini", "clip", "CLIPModel", _IMAGE_TEXT,
     {"text_config": _width(256, 6, 4), "vision_config": {**_width(384, 6, 6), "patch_size": 16},
      "projection_dim": 256}, PAIRS),
    ("clip-vit-base-patch32", "clip", "CLIPModel", _IMAGE_TEXT, {}, PAIRS),
    ("siglip-mini", "clip", "SiglipModel", _IMAGE_TEXT,
     {"text_config": {**_width(384, 6, 6), "vocab_size": 32000},
      "vision_config": {**_width(384, 6, 6), "patch_size": 16}}, PAIRS),
)  # fmt: skip


def zoo() -> Iterator[ZooModel]:
    """Return the models of the experiment."""
    for name, relatives, architecture, task, dims, points in _ROWS:
        spec = ModelSpec(
            name=f"zoo/{name}", architecture=architecture, task=task, dims=dims, source="prediction_zoo.py"
        )
        yield ZooModel(spec, relatives, points)
