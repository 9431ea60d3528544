"""Converted models on disk: made once, shared by processes and runs."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
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
        from filelock import FileLock

        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._folder / f"{key}.lock"):
                if not self.has(key):
                    self._write(key, *export())
        except OSError as error:
            raise CheckpointError(
                f"the converted model cannot be written to {self._folder}: {error}",
                stage="convert",
                hint="Another place can be given with --hf-cache.",
            ) from error

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

    def _write(self, key: str, exported: Any, shapes: str, problems: list[str]) -> None:
        with tempfile.TemporaryDirectory(dir=self._folder, ignore_cleanup_errors=True) as name:
            complete = Path(name) / key
            exported.save_pretrained(complete)
            notes = {"shapes": shapes, "problems": problems}
            (complete / _NOTES).write_text(json.dumps(notes), encoding="utf-8")
            complete.replace(self._folder / key)


def conversion_key(fingerprint: str, signature: str) -> str:
    """Return the name of a converted model: a hash of all that the conversion depends on.

    Args:
        fingerprint: The checkpoint's.
        signature: That of the example inputs (`shapes.signature`).
    """
    from importlib.metadata import version

    parts = [_FORMAT, fingerprint, signature, *(version(package) for package in _PACKAGES)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
