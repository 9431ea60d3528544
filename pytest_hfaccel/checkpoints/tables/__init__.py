"""What single model types and classes need besides the general rules: one file per modality, each with its reasons.

- `OVERRIDES`, by the `model_type` of a config or of a nested config: arguments of the tiny config. They replace what
  `shrink` gave; dictionaries merge.
- `CLASS_OVERRIDES`: the same for single classes of a model type whose other classes do without.
- `CONFIG_ARGUMENTS`: arguments without which the config class of a model type cannot be made at all.
- `SPECIAL_INPUTS`, by class or model type: how inputs guessed from the signature are changed.
- `PROCESSORS`, by model type: tokenizer and processors where those that transformers names for it would not do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pytest_hfaccel.checkpoints.tables import audio, multimodal, series, text, vision
from pytest_hfaccel.checkpoints.tables.draft import Change
from pytest_hfaccel.checkpoints.tables.tokenizers import ProcessorMaker

Entry = TypeVar("Entry")


def _joined(*tables: Mapping[str, Entry]) -> dict[str, Entry]:
    joined: dict[str, Entry] = {}
    for table in tables:
        twice = joined.keys() & table.keys()
        if twice:
            raise ValueError(f"in two tables: {', '.join(sorted(twice))}")
        joined |= table
    return joined


OVERRIDES: dict[str, dict[str, Any]] = _joined(
    text.OVERRIDES, vision.OVERRIDES, audio.OVERRIDES, multimodal.OVERRIDES, series.OVERRIDES
)
CLASS_OVERRIDES: dict[str, dict[str, Any]] = _joined(
    text.CLASS_OVERRIDES, vision.CLASS_OVERRIDES, multimodal.CLASS_OVERRIDES
)
CONFIG_ARGUMENTS = multimodal.CONFIG_ARGUMENTS
SPECIAL_INPUTS: dict[str, Change] = _joined(
    text.SPECIAL_INPUTS,
    vision.SPECIAL_INPUTS,
    audio.SPECIAL_INPUTS,
    multimodal.SPECIAL_INPUTS,
    series.SPECIAL_INPUTS,
)
PROCESSORS: dict[str, ProcessorMaker] = _joined(
    text.PROCESSORS, vision.PROCESSORS, audio.PROCESSORS, multimodal.PROCESSORS
)
