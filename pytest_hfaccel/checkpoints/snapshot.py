"""Which files of a repository a checkpoint consists of, and whether they are in the local cache."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pytest_hfaccel.checkpoints.reading import missing_weights
from pytest_hfaccel.core.errors import CheckpointError
from pytest_hfaccel.core.files import LARGE_BYTES, hash_of, replace_file
from pytest_hfaccel.core.spec import ModelSpec

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


def demand_intact(directory: Path, known: Path) -> None:
    """Refuse a snapshot of the hub's cache in which a file has another content than it was downloaded with.

    The cache names a file's content by its hash: SHA-256, or git's SHA-1 for small files. Directories that are no
    snapshot hold no such names, and pass.

    Args:
        directory: The snapshot.
        known: A folder that keeps the size and time of change of large files found intact, so that they are hashed
            once.

    Raises:
        CheckpointError: The file, and what to delete.
    """
    for path in sorted(directory.iterdir()):
        content = path.resolve()
        if content.parent.name != "blobs" or not content.is_file():
            continue
        stat, note = content.stat(), known / content.name
        stamp = f"{stat.st_size} {stat.st_mtime_ns}"
        if stat.st_size >= LARGE_BYTES and note.is_file() and note.read_text(encoding="utf-8") == stamp:
            continue
        if not _is_named_by_content(content, stat.st_size):
            raise CheckpointError(
                f"{path} is damaged: its content is not what the hub's cache names it by ({content.name[:12]}...).",
                hint=f"Delete {content}; it is downloaded again.",
            )
        if stat.st_size >= LARGE_BYTES:
            with suppress(OSError):  # a cache that cannot be written: it is hashed again next time
                replace_file(note, stamp)


def _is_named_by_content(content: Path, size: int) -> bool:
    """Whether a file's name is its hash, told by its length; true of a name that is none (some mirrors have others)."""
    match len(content.name):
        case 64:
            return hash_of(content) == content.name
        case 40:  # git's way; mirrors may hash the content alone
            return content.name in (hash_of(content, f"blob {size}\0".encode(), "sha1"), hash_of(content, b"", "sha1"))
        case _:
            return True
