"""The config a checkpoint is built with: the real dimensions, or a shrunken copy of them.

Only what a config states is shrunk: its class derives the rest (head sizes, layer types) from it again. The sizes are
in `tables/sizes.py`, what they get wrong in `tables/overrides.yaml`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from importlib import import_module
from typing import Any

import transformers

from pytest_hfaccel.checkpoints.tables import CLASS_OVERRIDES, CONFIG_ARGUMENTS, OVERRIDES
from pytest_hfaccel.checkpoints.tables import sizes as rules
from pytest_hfaccel.core.errors import ConfigError, LoadError
from pytest_hfaccel.core.results import Cause
from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.upstream.transformers import modeling_module

_NOT_STRUCTURE = frozenset(["transformers_version", "architectures", "dtype", "_out_features", "_out_indices"])
_TIMM_BACKBONE = "timm_backbone"
"""Backbones that need another package or a download, which a ResNet of transformers replaces."""


@dataclasses.dataclass(frozen=True)
class ShrinkOptions:
    """How a config is shrunk.

    Attributes:
        filled: Whether fields that are `None` by default get the size of their kind.
        rotary_half: Half the width of a head, which the sections of a text's rotary embedding add up to; `None`
            leaves the sections to the config.
    """

    filled: bool = False
    rotary_half: int | None = None


_USUAL = ShrinkOptions()


def model_class(spec: ModelSpec) -> Any:
    """Return the transformers class of a model.

    Raises:
        LoadError: This transformers has no such class.
    """
    cls = getattr(transformers, spec.architecture, None) or _unexported(spec)
    if cls is None or not hasattr(cls, "config_class"):
        raise LoadError(
            f"transformers {transformers.__version__} has no model class {spec.architecture!r}.", stage="resolve"
        )
    return cls


def _unexported(spec: ModelSpec) -> Any:
    """Find a class that an auto mapping names, and that transformers leaves out of its public names."""
    if "model_type" not in spec.dims:
        return None
    try:
        return getattr(import_module(modeling_module(spec.dims["model_type"])), spec.architecture, None)
    except ImportError:
        return None


def real_config(spec: ModelSpec) -> Any:
    """Return the config of the model's real dimensions: the class's defaults, and what the registry says differs.

    Raises:
        ConfigError: The class's config does not take the registry's `dims`.
    """
    config_class = _config_class(spec)
    dims = {name: value for name, value in spec.dims.items() if name != "model_type"}
    try:
        return replace_timm_backbone(config_class(**{**CONFIG_ARGUMENTS.get(config_class.model_type, {}), **dims}))
    except Exception as error:
        raise ConfigError(
            f"{spec.source or spec.name}: dims: {config_class.__name__} does not take them: {error}"
        ) from error


def _config_class(spec: ModelSpec) -> Any:
    """Return the config class of a model: that of its model type, where its class takes configs of several types."""
    own = model_class(spec).config_class
    model_type = spec.dims.get("model_type")
    if model_type not in transformers.CONFIG_MAPPING:
        return own
    named = transformers.CONFIG_MAPPING[model_type]
    return named if own is None or issubclass(named, own) else own


def tiny_config(spec: ModelSpec, options: ShrinkOptions | None = None) -> Any:
    """Return the config of the same class and structure, shrunken below a million parameters.

    Args:
        spec: The model.
        options: How it is shrunk where the usual way does not do.

    Raises:
        LoadError: The config's class does not take the shrunken sizes.
    """
    real = real_config(spec)
    small = shrink(real, options or ShrinkOptions())
    small.pop("model_type")
    if spec.task == "text-generation" and getattr(real, "is_decoder", None) is False:
        # Bidirectional encoders have a head for generation, too; their checkpoints for it say that they are decoders.
        small["is_decoder"] = True
    merge(small, CLASS_OVERRIDES.get(spec.architecture, {}))
    try:
        return type(real)(**small)
    except Exception as error:
        raise LoadError(
            f"a tiny {type(real).__name__} cannot be made: {type(error).__name__}: {error}",
            hint=f"An override for the model type {real.model_type!r} (checkpoints/tables/overrides.yaml) would help.",
            cause=Cause.TINY_CHECKPOINT,
        ) from error


class TokenIds:
    """Maps special token ids, the same everywhere in one config: an image token stays one token."""

    def __init__(self) -> None:
        self._mapped: dict[int, int] = {}

    def fit(self, token_id: int) -> int:
        """Return the id itself where it fits (or is a negative marker), else one from the top of the vocabulary."""
        if token_id < rules.VOCABULARY - rules.SPECIAL_IDS:
            return token_id
        return self._mapped.setdefault(token_id, rules.VOCABULARY - 1 - len(self._mapped))


@dataclasses.dataclass(frozen=True)
class _Part:
    """One config of a nest of configs, while it is being shrunk."""

    fields: Mapping[str, Any]
    layers: int
    tokens: TokenIds

    @property
    def staged(self) -> bool:
        """Whether the model is a pyramid of stages rather than a stack of equal layers."""
        return any(isinstance(self.fields.get(name), list | tuple) for name in rules.STAGE_DEPTHS | rules.STAGE_WIDTHS)


def shrink(config: Any, options: ShrinkOptions = _USUAL, tokens: TokenIds | None = None) -> dict[str, Any]:
    """Return the arguments with which the class of `config` gives a tiny model of the same structure.

    Args:
        config: The config of the real dimensions.
        options: How it is shrunk.
        tokens: The special ids assigned so far; a nested config shares them with the outer one.
    """
    if tokens is not None and config.model_type == _TIMM_BACKBONE:  # a part, not the model itself
        config = _substitute(config)
    tokens = tokens or TokenIds()
    fields = _stated_fields(config)
    kinds = list(_value(config, "layer_types") or ())  # stated or derived
    fields |= _absent_vision(config, fields)
    if len(set(kinds)) > 1 and "layer_types" in fields:
        fields["layer_types"] = kinds
    part = _Part(fields, _layers(fields, kinds), tokens)
    small: dict[str, Any] = {"model_type": config.model_type}
    for name, value in fields.items():
        small[name] = shrink(value, options, tokens) if hasattr(value, "model_type") else _smaller(name, value, part)
    if small.get("layer_types"):
        small |= {
            name: len(small["layer_types"]) for name in ("num_hidden_layers", "num_layers", "n_layer") if name in small
        }
    small |= _set_fields(small, options)
    small |= _small_layer_overrides(config, kinds, small.get("layer_types"), part)
    merge(small, OVERRIDES.get(config.model_type, {}))
    return small


def merge(into: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Change a nested dictionary in place; dictionaries merge, everything else replaces."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = deepcopy(value)


def _smaller(name: str, value: Any, part: _Part) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    if name in ("id2label", "label2id"):
        return dict(list(value.items())[: rules.LABELS])
    if isinstance(value, int):
        return _smaller_number(name, value, part)
    if isinstance(value, list | tuple) and value:
        return _smaller_list(name, list(value), part)
    if isinstance(value, dict) and "mrope_section" in value:
        return {**value, "mrope_section": _sections(value["mrope_section"])}
    return value


def _smaller_number(name: str, value: int, part: _Part) -> int:
    if rules.VOCABULARY_SIZE.fullmatch(name):
        return min(value, rules.VOCABULARY)
    if name in rules.KV_HEAD_NAMES:
        heads = next((part.fields[head] for head in rules.HEAD_NAMES if isinstance(part.fields.get(head), int)), None)
        return min(value, rules.HEADS if value == heads else rules.KV_HEADS)
    if name == "image_size":
        return _side(value, part.fields.get("patch_size"))
    if name == "window_size" and part.staged:
        return min(value, rules.WINDOW)
    if name in rules.LIMITS:
        return min(value, _limit(name, part))
    if rules.LAYER_COUNT.fullmatch(name):
        return value if name == "num_encoder_blocks" and part.staged else min(value, part.layers)
    if rules.TOKEN_ID.fullmatch(name) and name not in rules.NOT_TOKEN_IDS:
        return part.tokens.fit(value)
    return value


def _limit(name: str, part: _Part) -> int:
    # The width of a pyramid's first stage: it doubles from stage to stage.
    if name == "embed_dim" and part.staged and isinstance(part.fields.get("num_heads"), list | tuple):
        return rules.NARROWEST
    # The rotated part of a head is a part of it.
    if name == "head_dim" and part.fields.get("qk_rope_head_dim") == part.fields["head_dim"]:
        return rules.LIMITS["qk_rope_head_dim"]
    # Codes as wide as what they stand for need no projection, and their class may have none.
    if name == "codebook_dim" and part.fields.get("hidden_size") == part.fields["codebook_dim"]:
        return rules.LIMITS["hidden_size"]
    return rules.LIMITS[name]


def _smaller_list(name: str, value: list[Any], part: _Part) -> list[Any]:
    if name == "layer_types":
        return _one_of_each(value)
    if name == "out_features" and not part.staged and "num_hidden_layers" in part.fields:
        return [f"stage{number}" for number in range(part.layers - len(value) + 1, part.layers + 1)]
    if name in rules.STAGE_DEPTHS:
        return [min(depth, 1 if len(value) > rules.LAYERS else rules.LAYERS) for depth in value]
    if not all(isinstance(item, int) and not isinstance(item, bool) for item in value):
        return value
    if name in rules.LAYER_INDEX_LISTS:
        return list(range(len(value)))
    if name == "image_size":
        return [_side(side, part.fields.get("patch_size")) for side in value]
    if name in ("num_heads", "num_attention_heads") and part.staged and "embed_dim" in part.fields:
        return [2 * heads // min(value) for heads in value]
    if name in rules.STAGE_WIDTHS:
        return [rules.NARROWEST * max(1, round(width / min(value))) for width in value]
    if name in rules.EQUAL_WIDTHS:
        return [rules.EQUAL_WIDTHS[name]] * len(value)
    if name == "vision_feature_layer":
        return [max(-part.layers, min(part.layers, layer)) for layer in value]
    if rules.TOKEN_ID.fullmatch(name) and name not in rules.NOT_TOKEN_IDS:
        return [part.tokens.fit(token) for token in value]
    return value


def _layers(fields: Mapping[str, Any], kinds: list[str]) -> int:
    """How many layers the model needs: one per entry of every list of layer numbers, feature maps or layer kinds.

    Kinds that the class derives from a layer's number are all there from the last one's first layer on.
    """
    names = (*rules.LAYER_INDEX_LISTS, "out_features")
    lists = [fields[name] for name in names if isinstance(fields.get(name), list | tuple)]
    if fields.get("layer_types"):
        lists.append(_one_of_each(list(fields["layer_types"])))
    first_layers = [1 + kinds.index(kind) for kind in set(kinds)] if "layer_types" not in fields else []
    derived = [count for count in first_layers if count <= rules.MOST_LAYERS]
    return max([rules.LAYERS, *derived, *map(len, lists)])


def _one_of_each(kinds: list[str]) -> list[str]:
    different = list(dict.fromkeys(kinds))
    return different if len(different) > 1 else different * rules.LAYERS


def _small_layer_overrides(config: Any, kinds: list[str], small_kinds: list[str] | None, part: _Part) -> dict[str, Any]:
    """Give each layer of the tiny model what the first layer of its kind has differently in the real one."""
    if not getattr(config, "is_heterogeneous", False):
        return {}
    differences = {int(layer): fields for layer, fields in config.to_dict().get("per_layer_config", {}).items()}
    sources = [kinds.index(kind) for kind in small_kinds] if small_kinds else range(part.layers)
    small = {}
    for layer, source in enumerate(sources):
        if source in differences:
            inner = dataclasses.replace(part, fields={**part.fields, **differences[source]})
            small[layer] = {name: _smaller(name, value, inner) for name, value in differences[source].items()}
    return {"per_layer_config": small} if differences else {}


def _side(side: int, patch: Any) -> int:
    if isinstance(patch, list | tuple):
        patch = patch[0]
    if not isinstance(patch, int) or patch <= 0:
        return min(side, rules.SIDE_OF_SMALL_PATCHES)
    large = patch >= rules.LARGE_PATCH
    patches = rules.PATCHES_PER_SIDE if large else max(rules.PATCHES_PER_SIDE, rules.SIDE_OF_SMALL_PATCHES // patch)
    return min(side, patch * patches)


def _sections(sections: list[int]) -> list[int]:
    """Scale multimodal rotary sections, which add up to half a head, to the tiny head."""
    half = rules.HEAD_DIM // 2
    scaled = [max(1, section * half // sum(sections)) for section in sections]
    scaled[-1] += half - sum(scaled)
    return scaled


def _set_fields(small: Mapping[str, Any], options: ShrinkOptions) -> dict[str, Any]:
    """Return the fields that are not shrunk but set, because the usual way did not do."""
    extra: dict[str, Any] = {}
    if options.filled:
        missing = {name: size for name, size in rules.SIZES_OF_NONE.items() if name in small and small[name] is None}
        # Where a part of the head is rotated, the class adds the parts up itself.
        extra = {name: size for name, size in missing.items() if name != "head_dim" or "qk_rope_head_dim" not in small}
    if options.rotary_half and "rope_parameters" in small and "vocab_size" in small:
        rope = small["rope_parameters"] or {"rope_type": "default", "rope_theta": 10000.0}
        # Time, height and width share half a head; time gets what is left over.
        third = max(1, options.rotary_half // 3)
        extra["rope_parameters"] = {**rope, "mrope_section": [options.rotary_half - 2 * third, third, third]}
    return extra


def _absent_vision(config: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Add a vision config where the default has none; without it the class builds a text-only model."""
    specification = (getattr(type(config), "sub_configs_defaults", None) or {}).get("vision_config")
    if specification is None or fields.get("vision_config") is not None:
        return {}
    config_class = specification.config_class
    if specification.model_type:
        config_class = transformers.CONFIG_MAPPING[specification.model_type]
    return {"vision_config": config_class(**specification.init_kwargs)}


def _substitute(config: Any) -> Any:
    """Return a ResNet config that gives as many feature maps as a timm backbone.

    A ResNet-50, the default of transformers' config, is what the detection models name by default.
    """
    return transformers.ResNetConfig(out_indices=list(config.out_indices), num_channels=config.num_channels)


def replace_timm_backbone(config: Any) -> Any:
    """Replace the timm backbone of a config in place."""
    backbone = getattr(config, "backbone_config", None)
    if getattr(backbone, "model_type", None) == _TIMM_BACKBONE:
        config.backbone_config = _substitute(backbone)
    return config


def _stated_fields(config: Any) -> dict[str, Any]:
    """Return the class's defaults, and what this config says differently; nested configs as they are.

    A field that is `None` by default is derived from others when the class fills it. It counts as stated only where
    the config says something else than the class's default config does.
    """
    config_class: type = type(config)
    usual = _usual(config_class)
    stated: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        if field.name in _NOT_STRUCTURE:
            continue
        value = _value(config, field.name)
        if not hasattr(value, "model_type") and value == _value(usual, field.name):
            factory = field.default_factory
            value = None if field.default is dataclasses.MISSING else field.default
            value = value if factory is dataclasses.MISSING else factory()
        stated[field.name] = value
    # What a config holds besides its fields, such as options that its outer config gives to any backbone.
    for name, value in vars(config).items():
        known = name in stated or name in _NOT_STRUCTURE or name.startswith("_")
        if not known and isinstance(value, bool | int | float | str | list) and value != _value(usual, name):
            stated[name] = value
    # The feature maps of a backbone are properties rather than fields of its config.
    stages = getattr(config, "out_features", None)
    if isinstance(stages, list | tuple) and hasattr(config, "stage_names"):
        stated["out_features"] = list(stages)
    return stated


@cache
def _usual(config_class: type) -> Any:
    """The class's default config, or `None` where a class has none: then all of a config is stated."""
    try:
        return config_class()
    except Exception:  # Whatever a class's own validation raises.
        return None


def _value(config: Any, name: str) -> Any:
    # Not by way of attributes: reading one that differs between layers is an error.
    return vars(config).get(name) if config is not None else None
