"""What `hfaccel generate` writes is green at once, on the tiny checkpoint of a model of each family and subfamily."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_hfaccel.classify import MODEL_SUBFAMILIES
from pytest_hfaccel.generator import make_module, write_module
from pytest_hfaccel.registry import load_registry, resolve_model
from tests.harness import Project

MODELS = {
    ("embedding", "masked_lm"): "bert-base-uncased",
    ("embedding", "sentence_transformer"): "sentence-transformers/all-MiniLM-L6-v2",
    ("embedding", "token_classifier"): "bert/BertForTokenClassification",
    ("text_generation", "causal_lm"): "gpt2",
    ("text_generation", "chat_model"): "nanochat/NanoChatModel",
    ("text_generation", "seq2seq"): "t5-small",
    ("vision", "image_classifier"): "google/vit-base-patch16-224",
    ("vision", "object_detector"): "facebook/detr-resnet-50",
    ("vision", "segmentation"): "beit/BeitForSemanticSegmentation",
    ("vision", "depth_estimation"): "depth_anything/DepthAnythingForDepthEstimation",
    ("vision", None): "lightglue/LightGlueForKeypointMatching",
    ("audio", "speech_recognition"): "facebook/wav2vec2-base-960h",
    ("audio", "audio_classifier"): "audio-spectrogram-transformer/ASTForAudioClassification",
    ("audio", "text_to_speech"): "vits/VitsModel",
    ("audio", None): "encodec/EncodecModel",
    ("multimodal", "vision_language"): "llava-hf/llava-1.5-7b-hf",
    ("multimodal", "image_text_encoder"): "openai/clip-vit-base-patch32",
    ("multimodal", "document_qa"): "layoutlm/LayoutLMForQuestionAnswering",
    ("video", "video_classifier"): "timesformer/TimesformerForVideoClassification",
    ("video", "video_text_encoder"): "microsoft/xclip-base-patch32",
    ("time_series", "forecaster"): "patchtsmixer/PatchTSMixerForRegression",
}


def test_every_family_and_subfamily_has_a_model() -> None:
    known = {(family, subfamily) for family, names in MODEL_SUBFAMILIES.items() for subfamily in names}
    assert known <= set(MODELS)


@pytest.mark.tables
def test_the_models_are_of_these_families(tmp_path: Path) -> None:
    registry = load_registry()
    for pair, name in MODELS.items():
        (spec,) = resolve_model(name, registry)
        found = make_module(spec, tmp_path).classification
        assert (found["family"], found["subfamily"]) == pair, name


@pytest.mark.nightly
@pytest.mark.tables
def test_all_are_green(project: Project) -> None:
    (project.directory / "test_hf_bert.py").unlink()
    registry = load_registry()
    own = 0
    for name in MODELS.values():
        (spec,) = resolve_model(name, registry)
        module = make_module(spec, project.directory)
        own += module.text.count("    def test_")
        assert write_module(module)
    # Of no family that the classifier knows.
    (spec,) = resolve_model("bert/BertForNextSentencePrediction", registry)
    assert write_module(make_module(spec, project.directory, template="hf_template.py"))
    run = project.run("--hf-device", "cpu", "--hf-weights", "tiny", timeout=1200)
    assert run.code == 0, run.output[-6000:]
    assert set(run.counts) <= {"passed", "xfailed", "skipped"}
    for cell in run.results:
        assert "passed" in run.statuses(cell).values(), cell
    assert own >= 12
