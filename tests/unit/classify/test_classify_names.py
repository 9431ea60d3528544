"""What names say, how fast, and that nothing heavy is imported for it."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from pytest_hfaccel.classify import UNKNOWN, classify_model
from pytest_hfaccel.classify.name_evidence import split_name


@pytest.mark.parametrize(
    ("name", "family", "subfamily"),
    [
        ("bert-base-uncased", "embedding", "masked_lm"),
        ("gpt2", "text_generation", "causal_lm"),
        ("vit-base-patch16-224", "vision", "image_classifier"),
        # The first word decides, not what the model is built from.
        ("facebook/detr-resnet-50", "vision", "object_detector"),
        ("llava-hf/llava-v1.6-mistral-7b-hf", "multimodal", "vision_language"),
        # A purpose word changes the modality.
        ("Qwen/Qwen3-Embedding-0.6B", "embedding", "sentence_transformer"),
        ("Qwen/Qwen-VL-Chat", "multimodal", "vision_language"),
        ("meta-llama/Llama-3.2-11B-Vision", "multimodal", "vision_language"),
        ("microsoft/speecht5_tts", "audio", "text_to_speech"),
        ("nlpconnect/vit-gpt2-image-captioning", "multimodal", "vision_language"),
        ("dslim/bert-base-NER", "embedding", "token_classifier"),
        # Versions and sizes glued to the word, separators left out.
        ("timm/resnet18.a1_in1k", "vision", "image_classifier"),
        ("PekingU/rtdetr_r50vd", "vision", "object_detector"),
        ("Salesforce/blip2-opt-2.7b", "multimodal", "vision_language"),
        # Whole words only: `deit` is not `t5`, `distilled` is not `led`.
        ("facebook/deit-base-distilled-patch16-224", "vision", "image_classifier"),
        # Only the purpose is known, or only the publisher.
        ("someone/my-asr-thing", "audio", "speech_recognition"),
        ("timm/mixer_b16_224", "vision", "image_classifier"),
        ("google/gemma-3-4b-it", "multimodal", "vision_language"),
        ("google/gemma-3-1b-it", "text_generation", "chat_model"),
    ],
)
def test_a_name_is_classified(name: str, family: str, subfamily: str) -> None:
    answer = classify_model(name)
    assert (answer["family"], answer["subfamily"]) == (family, subfamily)
    assert answer["analyses"][-1]["source"] == "name_analysis"


@pytest.mark.parametrize("name", ["my-custom-model", "org/x1", "", "///", "....", "\u540d\u524d", "a\0b", "x" * 5000])
def test_what_is_not_known_is_said_so(name: str) -> None:
    answer = classify_model(name)
    assert answer["family"] == UNKNOWN
    assert answer["subfamily"] is None
    assert answer["confidence"] <= 0.2
    assert answer["reason"]


def test_weak_evidence_gives_less_confidence() -> None:
    sure = classify_model("bert-base-uncased")["confidence"]
    unsure = classify_model("someone/my-asr-thing")["confidence"]
    assert classify_model("my-custom-model")["confidence"] < unsure < sure < 1


def test_a_local_path_is_read_by_its_last_part() -> None:
    assert split_name("./checkpoints/My_BERT-v2/") == (["checkpoints"], ["my", "bert", "v2"])


def test_classification_by_name_takes_less_than_a_millisecond() -> None:
    names = [f"org{at}/distilbert-base-uncased-finetuned-{at}" for at in range(300)]
    classify_model("warm-up")
    started = time.process_time()
    for name in names:
        classify_model(name)
    assert (time.process_time() - started) / len(names) < 1e-3


def test_neither_torch_nor_transformers_is_imported() -> None:
    code = (
        "import sys; from pytest_hfaccel.classify import classify_model;"
        "classify_model('gpt2'); classify_model('x', model_class='GPT2LMHeadModel', tasks=['text-generation']);"
        "classify_model('of-no-known-kind');"
        "heavy = {'torch', 'transformers', 'huggingface_hub', 'pytest'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
