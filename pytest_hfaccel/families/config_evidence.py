"""What a checkpoint's own `config.json` says, where one is on this disk: the strongest evidence there is.

Nothing is downloaded, and huggingface_hub is not imported: its cache's layout is a documented format.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from pytest_hfaccel.families.class_evidence import analyze_class
from pytest_hfaccel.families.model_types import SENTENCE, family_of_type
from pytest_hfaccel.families.records import Analysis, analysis, nothing

SOURCE = "config_analysis"
CONFIDENCE = 0.97

_SENTENCE_FILES = ("modules.json", "config_sentence_transformers.json")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def analyze_config(model_name: str) -> Analysis | None:
    """Say what the checkpoint on disk is for; `None` when there is none."""
    folder = checkpoint_folder(model_name)
    if folder is None:
        return None
    if any((folder / name).is_file() for name in _SENTENCE_FILES):
        return analysis(SOURCE, *SENTENCE, CONFIDENCE, CONFIDENCE, "the checkpoint is one of sentence-transformers")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return nothing(SOURCE, f"its config.json cannot be read: {error}")
    return _said_by(config if isinstance(config, dict) else {})


def _said_by(config: dict[str, Any]) -> Analysis:
    architectures = config.get("architectures")
    for name in architectures if isinstance(architectures, list) else ():
        said = analyze_class(str(name))
        if said["family"]:
            certainty = said["subfamily_confidence"]
            reason = f"config.json names {name}"
            return analysis(SOURCE, said["family"], said["subfamily"], CONFIDENCE, certainty, reason)
    kind = family_of_type(str(config.get("model_type", "")))
    if kind:
        return analysis(SOURCE, *kind, CONFIDENCE, 0.7, f"config.json names the type {config['model_type']}")
    return nothing(SOURCE, "its config.json names no known architecture or model type")


def checkpoint_folder(model_name: str) -> Path | None:
    """Return the folder with the `config.json` of a local directory or of a cached hub id."""
    if not model_name or "\0" in model_name:
        return None
    local = Path(model_name)
    if _holds_config(local):
        return local
    return _cached(model_name) if _HUB_ID.fullmatch(model_name) else None


def _cached(hub_id: str) -> Path | None:
    repository = hub_cache() / f"models--{hub_id.replace('/', '--')}"
    try:
        revision = (repository / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    folder = repository / "snapshots" / revision
    return folder if re.fullmatch(r"\w+", revision) and _holds_config(folder) else None


def _holds_config(folder: Path) -> bool:
    try:
        return (folder / "config.json").is_file()
    except OSError:
        # Too long for a file name, or a folder that may not be read.
        return False


def hub_cache() -> Path:
    """Return the hub's cache folder by the variables huggingface_hub reads, in its order."""
    if cache := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(cache)
    home = os.environ.get("HF_HOME")
    base = Path(home) if home else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "huggingface")
    return base / "hub"
