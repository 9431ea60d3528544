"""What a tiny config gets besides shrunken fields: values for empty fields, and configs that are absent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_hfaccel.checkpoints import rules


@dataclass(frozen=True)
class Sizes:
    """How a config is shrunk.

    Attributes:
        filled: Whether fields that are `None` by default get the size of their kind.
        rotary_half: Half the width of a head, which the sections of a text's rotary embedding add up to; `None`
            leaves the sections to the config.
    """

    filled: bool = False
    rotary_half: int | None = None


USUAL = Sizes()


def set_fields(small: Mapping[str, Any], sizes: Sizes) -> dict[str, Any]:
    """Return the fields that are not shrunk but set, because the usual way did not do."""
    extra: dict[str, Any] = {}
    if sizes.filled:
        missing = {name: size for name, size in rules.SIZES_OF_NONE.items() if name in small and small[name] is None}
        # Where a part of the head is rotated, the class adds the parts up itself.
        extra = {name: size for name, size in missing.items() if name != "head_dim" or "qk_rope_head_dim" not in small}
    if sizes.rotary_half and "rope_parameters" in small and "vocab_size" in small:
        rope = small["rope_parameters"] or {"rope_type": "default", "rope_theta": 10000.0}
        extra["rope_parameters"] = {**rope, "mrope_section": _three_sections(sizes.rotary_half)}
    return extra


def _three_sections(half: int) -> list[int]:
    """Divide half a head among time, height and width; time gets what is left over."""
    third = max(1, half // 3)
    return [half - 2 * third, third, third]


def absent_vision(config: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Give a model the eyes that its default config leaves out, and without which it is the text model again."""
    specification = (getattr(type(config), "sub_configs_defaults", None) or {}).get("vision_config")
    if specification is None or fields.get("vision_config") is not None:
        return {}
    found = specification.config_class
    if specification.model_type:
        from transformers import CONFIG_MAPPING

        found = CONFIG_MAPPING[specification.model_type]
    return {"vision_config": found(**specification.init_kwargs)}
