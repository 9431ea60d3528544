"""Which files of a repository a checkpoint consists of, and whether they are in the local cache."""

from __future__ import annotations

from pathlib import Path

from pytest_hfaccel.checkpoints.reading import missing_weights
from pytest_hfaccel.spec import ModelSpec

CONFIGS = ("*.json", "*.jinja", "*.txt", "*.model", "*.spm", "*.tiktoken")
"""Configs, tokenizers and chat templates."""

CODE = ("*.py",)

SAFE_WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")
PICKLED_WEIGHTS = ("pytorch_model.bin", "pytorch_model-*-of-*.bin")
"""The names that `from_pretrained` reads; repositories often hold the same weights in other formats besides."""

FOLDERS = ("*/*",)
"""Folders hold other formats (onnx, coreml, original) and other models."""


def cached_snapshot(spec: ModelSpec, *, allow_pickle: bool = False) -> Path | None:
    """Return the model's snapshot in the local cache, if it has config and weights."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(spec.hub_id, "config.json", revision=spec.revision)
    if not isinstance(config, str):
        return None
    directory = Path(config).parent
    return directory if has_weights(directory, allow_pickle=allow_pickle) else None


def has_weights(directory: Path, *, allow_pickle: bool = False) -> bool:
    """Whether a directory holds complete weights: a single file, or an index with all files it names."""
    forms = [("model", ".safetensors"), *([("pytorch_model", ".bin")] if allow_pickle else [])]
    try:
        return any(missing_weights(directory, stem, suffix) is None for stem, suffix in forms)
    except ValueError:
        # An index that is not JSON was cut off while it was written: download it again.
        return False
