"""Converted models on disk: made once, shared by processes and runs."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.errors import CheckpointError, LoadError

if TYPE_CHECKING:
    import openvino as ov

    Export = Callable[[], tuple[Any, str, list[str]]]

_FORMAT = 1
"""Raised when what this module or `export` writes changes its meaning."""

_NOTES = "hfaccel.json"
_MANIFEST = "export.json"
_PACKAGES = ("transformers", "openvino", "torch")


@dataclass(frozen=True)
class Converted:
    """A converted model.

    Attributes:
        program: The OpenVINO model.
        metadata: transformers' `ExportMetadata`: what its runner rebuilds the outputs from.
        shapes: Which axes were kept open: `varying`, `all` or `static`.
        problems: Why the ways before that one did not work.
    """

    program: ov.Model
    metadata: Any
    shapes: str
    problems: list[str]


class ConvertedModels:
    """The folder of converted models.

    Args:
        folder: Where they lie; made when needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has(self, key: str) -> bool:
        """Whether a model has been converted already."""
        return (self._folder / key / _NOTES).is_file()

    def make(self, key: str, export: Export) -> None:
        """Convert a model unless it is there; of several processes that want it, one converts and the others wait.

        Raises:
            CheckpointError: The folder cannot be written.
        """
        with self._making(key) as is_missing:
            if is_missing:
                self._write(key, *export())

    def make_compressed(self, key: str, architecture: str) -> str:
        """Round the weights of a converted model to 8 bits, unless that has been done.

        Args:
            key: The converted model, in fp32; it stays as it is.
            architecture: The model's class, for messages.

        Returns:
            The key of the compressed model.

        Raises:
            LoadError: NNCF could not.
            CheckpointError: The folder cannot be written.
        """
        target = compressed_key(key)
        with self._making(target) as is_missing:
            if is_missing:
                self._write_compressed(key, target, architecture)
        return target

    def read(self, key: str) -> Converted:
        """Read a converted model; its weights are mapped, not copied.

        Raises:
            LoadError: The files are damaged.
        """
        from transformers.exporters.metadata import ExportMetadata

        from pytest_hfaccel.backends.openvino.device import core

        folder = self._folder / key
        try:
            notes = json.loads((folder / _NOTES).read_text(encoding="utf-8"))
            manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
            (entry,) = manifest["components"].values()
            program: ov.Model = core().read_model(str(folder / entry["file"]))
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise LoadError(
                f"the converted model in {folder} cannot be read: {error}",
                stage="convert",
                hint="Delete that folder: it is made again.",
            ) from error
        return Converted(program, ExportMetadata.from_dict(entry["metadata"]), notes["shapes"], notes["problems"])

    @contextmanager
    def _making(self, key: str) -> Iterator[bool]:
        """Hold the lock on a model; yields whether it is still to be made."""
        from filelock import FileLock

        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._folder / f"{key}.lock"):
                yield not self.has(key)
        except OSError as error:
            raise CheckpointError(
                f"the converted model cannot be written to {self._folder}: {error}",
                stage="convert",
                hint="Another place can be given with --hf-cache.",
            ) from error

    def _write_compressed(self, key: str, target: str, architecture: str) -> None:
        import openvino as ov

        from pytest_hfaccel.backends.openvino.compression import compressed

        program = compressed(self.read(key).program, architecture)
        manifest = json.loads((self._folder / key / _MANIFEST).read_text(encoding="utf-8"))
        (entry,) = manifest["components"].values()
        with tempfile.TemporaryDirectory(dir=self._folder, ignore_cleanup_errors=True) as name:
            complete = Path(name) / target
            shutil.copytree(self._folder / key, complete, ignore=shutil.ignore_patterns("*.xml", "*.bin"))
            ov.save_model(program, complete / entry["file"], compress_to_fp16=False)
            complete.replace(self._folder / target)

    def _write(self, key: str, exported: Any, shapes: str, problems: list[str]) -> None:
        with tempfile.TemporaryDirectory(dir=self._folder, ignore_cleanup_errors=True) as name:
            complete = Path(name) / key
            exported.save_pretrained(complete)
            notes = {"shapes": shapes, "problems": problems}
            (complete / _NOTES).write_text(json.dumps(notes), encoding="utf-8")
            complete.replace(self._folder / key)


def compressed_key(key: str) -> str:
    """Return the name of a converted model whose weights NNCF has rounded to 8 bits."""
    from pytest_hfaccel.backends.openvino.compression import compression_facts

    parts = [_FORMAT, key, compression_facts()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def conversion_key(fingerprint: str, signature: str) -> str:
    """Return the name of a converted model: a hash of all that the conversion depends on.

    Args:
        fingerprint: The checkpoint's.
        signature: That of the example inputs (`shapes.signature`).
    """
    from importlib.metadata import version

    parts = [_FORMAT, fingerprint, signature, *(version(package) for package in _PACKAGES)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
