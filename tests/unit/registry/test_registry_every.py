"""Every pair of transformers' auto mappings as a model, without a list of our own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.tasks import TASKS
from pytest_hfaccel.registry import load_registry, resolve_model
from pytest_hfaccel.registry.auto_classes import (
    TASK_OF_HEAD,
    AutoEntry,
    auto_entries,
    every_pair,
    main_pairs,
    match_pairs,
    read_entries,
)

SOURCE = """
MODEL_MAPPING_NAMES = OrderedDict([("funnel", ("FunnelModel", "FunnelBaseModel"))])
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES = OrderedDict([*list(OTHER.items()), ("opt", "OPTForCausalLM")])
MODEL_FOR_CAUSAL_LM_MAPPING = _LazyAutoMapping(CONFIG_MAPPING_NAMES, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
"""


def test_tables_are_read_from_the_source() -> None:
    assert list(read_entries(SOURCE)) == [
        AutoEntry("", "funnel", "FunnelModel"),
        AutoEntry("", "funnel", "FunnelBaseModel"),
        AutoEntry("CAUSAL_LM", "opt", "OPTForCausalLM"),
    ]


def test_every_entry_of_the_installed_transformers_is_a_model() -> None:
    assert {spec.name for spec in every_pair()} == {
        f"{entry.model_type}/{entry.architecture}" for entry in auto_entries()
    }
    assert len(every_pair()) > 1000


def test_every_head_has_a_task() -> None:
    assert set(TASK_OF_HEAD.values()) <= set(TASKS)
    assert {spec.task for spec in every_pair()} <= set(TASKS)


def test_the_main_pairs_are_base_class_and_main_head() -> None:
    names = [spec.name for spec in main_pairs() if spec.dims["model_type"] == "bert"]
    assert names == ["bert/BertForMaskedLM", "bert/BertModel"]


@pytest.mark.parametrize(
    ("pair", "task"),
    [
        ("opt/OPTForCausalLM", "text-generation"),
        ("opt/OPTModel", "base-model"),
        ("whisper/WhisperForConditionalGeneration", "automatic-speech-recognition"),
        ("vit/ViTForImageClassification", "image-classification"),
        ("qwen2_vl/Qwen2VLForConditionalGeneration", "multimodal-generation"),
    ],
)
def test_the_task_is_that_of_the_head(pair: str, task: str) -> None:
    assert [spec.task for spec in match_pairs(pair)] == [task]


def test_a_wildcard_without_a_registered_model_means_pairs() -> None:
    registry = load_registry()
    assert {spec.dims["model_type"] for spec in resolve_model("opt/*", registry)} == {"opt"}
    assert [spec.name for spec in resolve_model("opt/OPTForCausalLM", registry)] == ["opt/OPTForCausalLM"]
    assert {spec.source for spec in resolve_model("bert*", registry)}.isdisjoint({every_pair()[0].source})
    with pytest.raises(ConfigError, match="'nothing/x\\*' matches no registered model"):
        resolve_model("nothing/x*", registry)


def test_listing_imports_neither_torch_nor_transformers() -> None:
    listing = "from pytest_hfaccel.registry.auto_classes import every_pair; every_pair()"
    code = f"import sys; {listing}; print(*sorted(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers"} & set(found.stdout.split())
