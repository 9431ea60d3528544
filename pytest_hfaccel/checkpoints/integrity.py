"""Check that the files of a checkpoint are complete and intact; errors name file, problem and next step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import CheckpointError, HfAccelError, LoadError, error_line, first_line
from pytest_hfaccel.core.files import LARGE_BYTES, hash_of, replace_file

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_AGAIN = "Download or save the checkpoint again."


@contextmanager
def read_errors(directory: Path, *, allow_pickle: bool = False) -> Iterator[None]:
    """Raise our errors for what goes wrong inside; errors about memory pass through.

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
        try:
            require_sound_files(directory, allow_pickle=allow_pickle)
        except CheckpointError as damage:
            raise damage from error
        if isinstance(error, OSError):
            raise CheckpointError(f"{directory}: the checkpoint cannot be read: {first_line(error)}") from error
        raise LoadError(f"{directory}: {error_line(error)}") from error


def require_sound_files(directory: Path, *, allow_pickle: bool = False) -> None:
    """Refuse a checkpoint with damaged files.

    Raises:
        CheckpointError: A file is missing, damaged or not readable.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is not a directory.", hint="A checkpoint is what save_pretrained writes.")
    try:
        _require_regular_files(directory)
        _require_json(directory)
        _require_weights(directory, allow_pickle=allow_pickle)
        _require_sound_weights(directory)
    except OSError as error:
        raise CheckpointError(f"{error.filename or directory} cannot be read: {error.strerror or error}.") from error


def require_intact_snapshot(directory: Path, verified: Path) -> None:
    """Refuse a snapshot of the hub's cache in which a file has another content than it was downloaded with.

    The cache names a file's content by its hash: SHA-256, or git's SHA-1 for small files. Directories that are no
    snapshot hold no such names, and pass.

    Args:
        directory: The snapshot.
        verified: A folder with the size and time of change of large files that were intact, so that they are hashed
            once.

    Raises:
        CheckpointError: The file, and what to delete.
    """
    for path in sorted(directory.iterdir()):
        content = path.resolve()
        if content.parent.name != "blobs" or not content.is_file():
            continue
        stat, note = content.stat(), verified / content.name
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
    """Whether a file's name is its hash; True for names that are no hash by their length (some mirrors have others)."""
    match len(content.name):
        case 64:
            return hash_of(content) == content.name
        case 40:  # git's way; mirrors may hash the content alone
            return content.name in (hash_of(content, f"blob {size}\0".encode(), "sha1"), hash_of(content, b"", "sha1"))
        case _:
            return True


def _require_regular_files(directory: Path) -> None:
    """Refuse a dangling link, and what reading would never end: a pipe, a device."""
    for path in sorted(directory.iterdir()):
        if path.is_symlink() and not path.exists():
            raise CheckpointError(f"{path} is a link to {path.readlink()}, which is not there.", hint=_AGAIN)
        if not path.is_file() and not path.is_dir():
            raise CheckpointError(f"{path} is neither a file nor a directory.", hint=_AGAIN)


def _require_json(directory: Path) -> None:
    if not (directory / "config.json").is_file():
        raise CheckpointError(
            f"{directory} has no config.json.", hint="A checkpoint is what save_pretrained writes; give its directory."
        )
    for path in sorted(directory.glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(
                f"{path} is not valid JSON: {error}.", hint="Download or save the checkpoint again, or repair the file."
            ) from error
        if path.name == "config.json" and not isinstance(content, dict):
            raise CheckpointError(f"{path} is not a JSON object, but a {type(content).__name__}.", hint=_AGAIN)


def _require_weights(directory: Path, *, allow_pickle: bool) -> None:
    missing = missing_weights(directory, "model", ".safetensors")
    pickled = sorted(path.name for pattern in _PICKLED for path in directory.glob(pattern))
    if missing is None or (pickled and allow_pickle):
        return
    if pickled:
        raise CheckpointError(
            f"{directory} has no safetensors weights, only {', '.join(pickled)}.",
            hint="HFACCEL_ALLOW_PICKLE=1 loads them; unpickling can run code of their author.",
        )
    raise CheckpointError(f"{directory} has no complete weights: {missing} is missing.", hint=_AGAIN)


def _require_sound_weights(directory: Path) -> None:
    from safetensors import SafetensorError, safe_open

    for path in sorted(directory.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np"):
                pass
        except SafetensorError as error:
            raise _unsound(path, error) from error


def _unsound(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a sound safetensors file ({path.stat().st_size} bytes): {error}.",
        hint=f"It is damaged or incomplete. {_AGAIN}",
    )


def missing_weights(directory: Path, stem: str, suffix: str) -> str | None:
    """Return the weights file that is missing, or `None` if there is one file, or an index and all it names.

    Raises:
        ValueError: The index is not valid JSON.
        CheckpointError: The index is no index, or names a file outside of the directory.
    """
    if (directory / f"{stem}{suffix}").is_file():
        return None
    index = directory / f"{stem}{suffix}.index.json"
    if not index.is_file():
        return f"{stem}{suffix}"
    shards = _shards(index)
    return next((name for name in shards if not (directory / name).is_file()), None if shards else index.name)


def weight_files(directory: Path) -> list[Path]:
    """Return the safetensors files that `from_pretrained` reads; none where the weights are pickled.

    Raises:
        CheckpointError: The index is no index, or names a file outside of the directory.
    """
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    return [directory / name for name in _shards(index)] if index.is_file() else []


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Return what the header of a safetensors file says of each tensor: `dtype`, `shape` and `data_offsets`.

    Raises:
        CheckpointError: It is no such header, or names a tensor twice.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            if length > size - 8:
                raise ValueError(f"its header is said to have {length} bytes")
            header: dict[str, Any] = json.loads(file.read(length), object_pairs_hook=_unique_keys)
        except (ValueError, RecursionError) as error:
            raise _unsound(path, error) from error
    return {name: facts for name, facts in header.items() if name != "__metadata__"}


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it names {next(name for name in names if names.count(name) > 1)} twice")
    return table


def _shards(index: Path) -> list[str]:
    """Return the files that an index of weights names, sorted."""
    content = json.loads(index.read_text(encoding="utf-8"))
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise CheckpointError(f"{index} has no weight_map from tensors to files.", hint=_AGAIN)
    names = sorted(set(shards.values()))
    for name in names:
        if not name or Path(name).name != name:
            raise CheckpointError(f"{index} names {name!r}, which is not a file in its directory.", hint=_AGAIN)
    return names
