"""Loads the tokenizer and the processors a checkpoint has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_TOKENIZER_FILES = frozenset(
    {"tokenizer_config.json", "tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model"}
)
"""Old checkpoints have a vocabulary only."""

_PARTS = ("tokenizer", "image_processor", "feature_extractor", "video_processor")


def load_processors(directory: Path, *, trust_remote_code: bool = False) -> dict[str, Any]:
    """Load what lies in a checkpoint's directory.

    Returns:
        `processor` where the checkpoint has one, and its parts (`tokenizer`, `image_processor`, `feature_extractor`);
        the keys are the parameter names of `transformers.pipeline`.
    """
    import transformers

    names = {path.name for path in directory.iterdir()}
    options = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    found: dict[str, Any] = {}
    if "processor_config.json" in names or {"preprocessor_config.json", "tokenizer_config.json"} <= names:
        processor = transformers.AutoProcessor.from_pretrained(directory, **options)
        found = {part: getattr(processor, part) for part in _PARTS if getattr(processor, part, None) is not None}
        if found:
            found["processor"] = processor
            return {name: value for name, value in found.items() if name != "video_processor"}
    if names & _TOKENIZER_FILES:
        found["tokenizer"] = transformers.AutoTokenizer.from_pretrained(directory, **options)
    if "preprocessor_config.json" in names:
        kind = _preprocessor_kind(directory)
        loader = transformers.AutoFeatureExtractor if kind == "feature_extractor" else transformers.AutoImageProcessor
        found[kind] = loader.from_pretrained(directory, **options)
    return found


def _preprocessor_kind(directory: Path) -> str:
    import json

    config = json.loads((directory / "preprocessor_config.json").read_text(encoding="utf-8"))
    return "feature_extractor" if "feature_extractor_type" in config else "image_processor"
