"""What architecture classes say: every one transformers lists, and those it does not know."""

from __future__ import annotations

import pytest

from pytest_hfaccel.classify import MODEL_FAMILIES, MODEL_SUBFAMILIES, UNKNOWN, classify_model
from pytest_hfaccel.classify.known_models import auto_tables, families_of, tables_of
from pytest_hfaccel.registry.auto_classes import read_entries


def test_every_listed_class_has_a_family() -> None:
    listed = auto_tables().heads_of_class
    assert len(listed) > 1000
    for name in listed:
        answer = classify_model("", model_class=name)
        assert answer["family"] in MODEL_FAMILIES, name
        assert answer["subfamily"] is None or answer["subfamily"] in MODEL_SUBFAMILIES[answer["family"]], name


@pytest.mark.parametrize(
    ("name", "family", "subfamily"),
    [
        ("BertForMaskedLM", "embedding", "masked_lm"),
        ("BertForTokenClassification", "embedding", "token_classifier"),
        ("T5EncoderModel", "embedding", "sentence_transformer"),
        ("GPT2LMHeadModel", "text_generation", "causal_lm"),
        ("T5ForConditionalGeneration", "text_generation", "seq2seq"),
        ("BartForConditionalGeneration", "text_generation", "seq2seq"),
        ("LlamaForSequenceClassification", "embedding", "token_classifier"),
        ("ViTForImageClassification", "vision", "image_classifier"),
        ("SegformerForSemanticSegmentation", "vision", "segmentation"),
        ("DPTForDepthEstimation", "vision", "depth_estimation"),
        ("SiglipVisionModel", "vision", "image_classifier"),
        ("WhisperForConditionalGeneration", "audio", "speech_recognition"),
        ("HubertForSequenceClassification", "audio", "audio_classifier"),
        ("SpeechT5ForTextToSpeech", "audio", "text_to_speech"),
        ("CLIPModel", "multimodal", "image_text_encoder"),
        ("LayoutLMv3ForTokenClassification", "multimodal", "document_qa"),
        ("FuyuForCausalLM", "multimodal", "vision_language"),
        ("Gemma3ForConditionalGeneration", "multimodal", "vision_language"),
        ("Gemma3ForCausalLM", "text_generation", "causal_lm"),
        ("VideoMAEForVideoClassification", "video", "video_classifier"),
        ("XCLIPModel", "video", "video_text_encoder"),
        ("PatchTSTForRegression", "time_series", "forecaster"),
        # Listed nowhere: read from the name.
        ("BlipForImageTextRetrieval", "multimodal", "image_text_encoder"),
        ("CLIPSegForImageSegmentation", "vision", "segmentation"),
        ("LlavaLlamaForCausalLM", "multimodal", "vision_language"),
        ("JinaBertForMaskedLM", "embedding", "masked_lm"),
        ("ParlerTTSForConditionalGeneration", "audio", "text_to_speech"),
        ("BaichuanForCausalLM", "text_generation", "causal_lm"),
        ("XLNetForQuestionAnswering", "embedding", "token_classifier"),
        ("transformers.models.bert.modeling_bert.BertForMaskedLM", "embedding", "masked_lm"),
    ],
)
def test_a_class_is_classified(name: str, family: str, subfamily: str) -> None:
    answer = classify_model("", model_class=name)
    assert (answer["family"], answer["subfamily"]) == (family, subfamily)


def test_a_class_that_says_nothing_is_unknown() -> None:
    assert classify_model("", model_class="NewModel")["family"] == UNKNOWN


def test_the_class_outweighs_the_name_but_not_a_stated_purpose() -> None:
    assert classify_model("openai/clip-vit-base", model_class="CLIPVisionModel")["family"] == "vision"
    assert classify_model("Qwen/Qwen3-Embedding-0.6B", model_class="Qwen3ForCausalLM")["family"] == "embedding"


def test_tables_are_read_from_source() -> None:
    source = (
        "OTHER = 3\n"
        'MODEL_MAPPING_NAMES = OrderedDict([("new", "NewModel")])\n'
        'MODEL_FOR_CTC_MAPPING_NAMES = OrderedDict([*list(OTHER), ("new", ("NewForCTC", "NewerForCTC"))])\n'
    )
    tables = tables_of(read_entries(source))
    assert tables.heads_of_type == {"new": {"", "CTC"}}
    assert tables.heads_of_class["NewerForCTC"] == {"CTC": ["new"]}
    assert families_of(tables) == {"new": ("audio", "speech_recognition")}
