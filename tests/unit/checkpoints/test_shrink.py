"""The generic rules: a config of real dimensions becomes a tiny one of the same structure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_hfaccel.checkpoints import tables
from pytest_hfaccel.checkpoints.configs import TokenIds, merge, real_config, shrink, tiny_config
from pytest_hfaccel.checkpoints.tables import sizes
from pytest_hfaccel.core.errors import ConfigError, LoadError
from pytest_hfaccel.core.spec import ModelSpec

# The config classes of transformers import torch.
pytestmark = pytest.mark.slow


def spec(architecture: str, **dims: Any) -> ModelSpec:
    return ModelSpec(name="x", architecture=architecture, task="fill-mask", dims=dims, source="registry.yaml:7")


def test_sizes_become_small() -> None:
    config = tiny_config(spec("BertForMaskedLM"))
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (64, 2, 4)
    assert (config.intermediate_size, config.vocab_size, config.max_position_embeddings) == (128, 1024, 128)


def test_what_is_small_already_stays() -> None:
    assert tiny_config(spec("BertForMaskedLM", hidden_size=32)).hidden_size == 32


def test_what_is_no_size_stays() -> None:
    config = tiny_config(spec("BertForMaskedLM", hidden_act="relu", type_vocab_size=1, layer_norm_eps=1e-5))
    assert (config.hidden_act, config.type_vocab_size, config.layer_norm_eps) == ("relu", 1, 1e-5)


@pytest.mark.parametrize(("heads", "kv_heads", "tiny"), [(32, 32, 4), (32, 8, 2), (32, 1, 1)])
def test_grouped_queries_stay_grouped(heads: int, kv_heads: int, tiny: int) -> None:
    config = tiny_config(spec("LlamaForCausalLM", num_attention_heads=heads, num_key_value_heads=kv_heads))
    assert (config.num_attention_heads, config.num_key_value_heads) == (4, tiny)


def test_what_the_class_derives_is_derived_again() -> None:
    config = tiny_config(spec("LlamaForCausalLM", hidden_size=5120, num_attention_heads=40))
    assert config.head_dim == config.hidden_size // config.num_attention_heads


@pytest.mark.parametrize(("codes", "tiny"), [(512, 64), (256, 16)])
def test_codes_as_wide_as_the_model_stay_so(codes: int, tiny: int) -> None:
    config = tiny_config(spec("Xcodec2Model", hidden_size=512, codebook_dim=codes))
    assert (config.hidden_size, config.codebook_dim) == (64, tiny)


def test_there_is_a_layer_of_each_kind() -> None:
    config = tiny_config(spec("Gemma2ForCausalLM"))
    assert sorted(config.layer_types) == ["full_attention", "sliding_attention"]
    assert config.num_hidden_layers == 2


def test_nested_configs_shrink_and_keep_their_type() -> None:
    config = tiny_config(spec("LlavaForConditionalGeneration", text_config={"model_type": "mistral"}))
    assert config.text_config.model_type == "mistral"
    assert (config.text_config.hidden_size, config.vision_config.hidden_size) == (64, 64)
    assert config.vision_config.image_size == 4 * config.vision_config.patch_size


def test_a_token_has_one_id_in_all_parts_of_a_config() -> None:
    tokens = TokenIds()
    assert tokens.fit(5) == 5
    assert tokens.fit(-1) == -1
    image = tokens.fit(32_000)
    assert sizes.VOCABULARY - sizes.SPECIAL_IDS <= image < sizes.VOCABULARY
    assert tokens.fit(32_001) not in (image, 5)
    assert tokens.fit(32_000) == image


def test_a_pyramid_keeps_its_stages() -> None:
    config = tiny_config(spec("SwinForImageClassification"))
    assert config.depths == [1, 1, 1, 1]
    assert config.hidden_size == 8 * config.embed_dim


def test_long_lists_of_labels_are_cut() -> None:
    config = tiny_config(spec("ViTForImageClassification", num_labels=1000))
    assert config.num_labels == sizes.LABELS == len(config.label2id)


@pytest.mark.parametrize("build", [real_config, tiny_config])
def test_no_backbone_comes_from_elsewhere(build: Any) -> None:
    config = build(spec("DetrForObjectDetection"))
    assert config.backbone_config.model_type == "resnet"
    assert list(config.backbone_config.out_indices) == [1, 2, 3, 4]


def test_shrinking_does_not_change_the_config_it_reads() -> None:
    real = real_config(spec("LlavaForConditionalGeneration"))
    before = real.to_dict()
    shrink(real)
    assert real.to_dict() == before


def test_merging_replaces_all_but_dictionaries() -> None:
    into: dict[str, Any] = {"a": 1, "nested": {"b": 2, "c": [1, 2]}}
    merge(into, {"nested": {"c": [3]}, "d": 4})
    assert into == {"a": 1, "nested": {"b": 2, "c": [3]}, "d": 4}


def test_dims_that_do_not_fit_name_their_place() -> None:
    with pytest.raises(ConfigError, match=r"registry.yaml:7: dims: BertConfig does not take them.*hidden_size"):
        tiny_config(spec("BertForMaskedLM", hidden_size="large"))


def test_an_unknown_class_is_named() -> None:
    with pytest.raises(LoadError, match="has no model class 'BertForPoetry'"):
        tiny_config(spec("BertForPoetry"))


def test_the_tables_name_nothing_twice() -> None:
    text = Path(tables.__file__).with_name("overrides.yaml").read_text(encoding="utf-8")
    root = yaml.compose(text)
    assert isinstance(root, yaml.MappingNode)
    for _, table in root.value:
        names = [key.value for key, _ in table.value]
        assert sorted(set(names)) == sorted(names)
    assert len(tables.SPECIAL_INPUTS) == sum(
        len(module.SPECIAL_INPUTS) for module in (tables.audio, tables.multimodal, tables.text, tables.vision)
    )
