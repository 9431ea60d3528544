"""What goes wrong while a checkpoint is read, as errors that name the file, the problem and the next step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_hfaccel.errors import CheckpointError, HfAccelError, LoadError

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@contextmanager
def reading(directory: Path, *, allow_pickle: bool = False) -> Iterator[None]:
    """Turn what goes wrong inside into our errors; what tells of memory passes through.

    Raises:
        CheckpointError: A file is missing, damaged or not readable.
        LoadError: The files are sound, and transformers could not build the model from them.
    """
    try:
        yield
    except (MemoryError, HfAccelError):
        raise
    except Exception as error:
        if "out of memory" in str(error).lower():
            raise
        damage = find_damage(directory, allow_pickle=allow_pickle)
        if damage is not None:
            raise damage from error
        if isinstance(error, OSError):
            raise CheckpointError(f"{directory}: the checkpoint cannot be read: {_first_line(error)}") from error
        raise LoadError(f"{directory}: {type(error).__name__}: {_first_line(error)}") from error


def find_damage(directory: Path, *, allow_pickle: bool = False) -> CheckpointError | None:
    """Return what is wrong with a checkpoint's files, or `None` if each is there and sound by itself."""
    if not directory.is_dir():
        return CheckpointError(f"{directory} is not a directory.", hint="A checkpoint is what save_pretrained writes.")
    if not (directory / "config.json").is_file():
        return CheckpointError(
            f"{directory} has no config.json.", hint="A checkpoint is what save_pretrained writes; give its directory."
        )
    try:
        return _bad_json(directory) or _bad_weights(directory) or _no_weights(directory, allow_pickle=allow_pickle)
    except OSError as error:
        return CheckpointError(f"{error.filename or directory} cannot be read: {error.strerror or error}.")


def _bad_json(directory: Path) -> CheckpointError | None:
    for path in sorted(directory.glob("*.json")):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            return CheckpointError(
                f"{path} is not valid JSON: {error}.", hint="Download or save the checkpoint again, or mend the file."
            )
    return None


def _bad_weights(directory: Path) -> CheckpointError | None:
    from safetensors import SafetensorError, safe_open

    for path in sorted(directory.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np"):
                pass
        except SafetensorError as error:
            return CheckpointError(
                f"{path} is not a sound safetensors file ({path.stat().st_size} bytes): {error}.",
                hint="It is damaged or incomplete: download or save the checkpoint again.",
            )
    return None


def _no_weights(directory: Path, *, allow_pickle: bool) -> CheckpointError | None:
    missing = missing_weights(directory, "model", ".safetensors")
    if missing is None:
        return None
    pickled = sorted(path.name for pattern in _PICKLED for path in directory.glob(pattern))
    if pickled and allow_pickle:
        return None
    if pickled:
        return CheckpointError(
            f"{directory} has no safetensors weights, only {', '.join(pickled)}.",
            hint="HFACCEL_ALLOW_PICKLE=1 loads them; unpickling runs code of whoever wrote them.",
        )
    return CheckpointError(
        f"{directory} has no complete weights: {missing} is missing.", hint="Download or save the checkpoint again."
    )


def missing_weights(directory: Path, stem: str, suffix: str) -> str | None:
    """Return the weights file that is missing, or `None` if there is one file, or an index and all it names.

    Raises:
        ValueError: The index is not valid JSON.
    """
    if (directory / f"{stem}{suffix}").is_file():
        return None
    index = directory / f"{stem}{suffix}.index.json"
    if not index.is_file():
        return f"{stem}{suffix}"
    shards = sorted(set(json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values()))
    return next((name for name in shards if not (directory / name).is_file()), None if shards else index.name)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
