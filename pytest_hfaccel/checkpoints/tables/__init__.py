"""What single model types and classes need besides the general rules: one file per modality, each with its reasons.

- `overrides.yaml`, by model type or class: arguments of tiny configs.
- `SPECIAL_INPUTS`, by class or model type: how inputs guessed from the signature are changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pytest_hfaccel.checkpoints.tables import audio, multimodal, text, vision
from pytest_hfaccel.checkpoints.tables.draft import Change

_TABLES: dict[str, dict[str, dict[str, Any]]] = yaml.load(
    Path(__file__).with_name("overrides.yaml").read_text(encoding="utf-8"),
    Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader),  # noqa: S506 - libyaml's is as safe, and ten times as fast
)
OVERRIDES, CLASS_OVERRIDES, CONFIG_ARGUMENTS = (
    _TABLES[name] for name in ("overrides", "class_overrides", "config_arguments")
)
_CHAMELEON, _EMU3 = OVERRIDES["chameleon"], OVERRIDES["emu3"]
# The names of the image codes in the vocabulary; Chameleon's have letters for digits.
_CHAMELEON["vocabulary_map"] = {
    "<image>": _CHAMELEON["image_token_id"],
    **{f"IMGIMG{chr(65 + code // 8)}{chr(65 + code % 8)}Z": 100 + code for code in range(64)},
}
_EMU3["vocabulary_map"] = {
    "<image>": _EMU3["image_token_id"],
    "<|extra_200|>": _EMU3["image_token_id"] - 1,
    **{f"<|visual token {code:06d}|>": 100 + code for code in range(_EMU3["vq_config"]["codebook_size"])},
}

SPECIAL_INPUTS: dict[str, Change] = {
    **text.SPECIAL_INPUTS,
    **vision.SPECIAL_INPUTS,
    **audio.SPECIAL_INPUTS,
    **multimodal.SPECIAL_INPUTS,
}
