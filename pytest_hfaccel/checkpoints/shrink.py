"""The generic shrinker: a config -> the arguments of the same config class with small sizes.

Only what the model states is shrunk: the class derives the rest (head sizes, layer types) from it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from pytest_hfaccel.checkpoints import rules
from pytest_hfaccel.checkpoints.backbones import SUBSTITUTED, substitute
from pytest_hfaccel.checkpoints.overrides import OVERRIDES
from pytest_hfaccel.checkpoints.sizes import USUAL, Sizes, absent_vision, set_fields
from pytest_hfaccel.checkpoints.stated import layer_differences, layer_kinds, stated_fields
from pytest_hfaccel.checkpoints.token_ids import TokenIds


@dataclass(frozen=True)
class _Part:
    """One config of a nest of configs, while it is being shrunk."""

    fields: Mapping[str, Any]
    layers: int
    tokens: TokenIds

    @property
    def staged(self) -> bool:
        """Whether the model is a pyramid of stages rather than a stack of equal layers."""
        return any(isinstance(self.fields.get(name), list | tuple) for name in rules.STAGE_DEPTHS | rules.STAGE_WIDTHS)


def shrink(config: Any, sizes: Sizes = USUAL, tokens: TokenIds | None = None) -> dict[str, Any]:
    """Return the arguments with which the class of `config` gives a tiny model of the same structure.

    Args:
        config: The config of the real dimensions.
        sizes: How it is shrunk.
        tokens: The special ids given out so far, for the configs nested in another.
    """
    if tokens is not None and config.model_type in SUBSTITUTED:  # a part, not the model itself
        config = substitute(config)
    tokens = tokens or TokenIds()
    fields = stated_fields(config)
    kinds = layer_kinds(config)
    fields |= absent_vision(config, fields)
    if len(set(kinds)) > 1 and "layer_types" in fields:
        fields["layer_types"] = kinds
    part = _Part(fields, _layers(fields, kinds), tokens)
    small: dict[str, Any] = {"model_type": config.model_type}
    for name, value in fields.items():
        small[name] = shrink(value, sizes, tokens) if hasattr(value, "model_type") else _smaller(name, value, part)
    _count_layer_types(small)
    small |= set_fields(small, sizes)
    small |= _layer_differences(config, kinds, small.get("layer_types"), part)
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
        return part.tokens.small(value)
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
        return [part.tokens.small(token) for token in value]
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


def _count_layer_types(small: dict[str, Any]) -> None:
    if small.get("layer_types"):
        for name in ("num_hidden_layers", "num_layers", "n_layer"):
            if name in small:
                small[name] = len(small["layer_types"])


def _layer_differences(config: Any, kinds: list[str], small_kinds: list[str] | None, part: _Part) -> dict[str, Any]:
    """Give each layer of the tiny model what the first layer of its kind has differently in the real one."""
    differences = layer_differences(config)
    if not differences:
        return {}
    sources = [kinds.index(kind) for kind in small_kinds] if small_kinds else range(part.layers)
    found = {layer: differences[source] for layer, source in enumerate(sources) if source in differences}
    parts = {layer: replace(part, fields={**part.fields, **fields}) for layer, fields in found.items()}
    return {
        "per_layer_config": {
            layer: {name: _smaller(name, value, parts[layer]) for name, value in fields.items()}
            for layer, fields in found.items()
        }
    }


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
