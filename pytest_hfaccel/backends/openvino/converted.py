"""Converted models on disk: made once, shared by processes and runs."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.errors import LoadError
from pytest_hfaccel.core.files import build_once, find_damage

if TYPE_CHECKING:
    import openvino as ov

    Export = Callable[[], tuple[Any, str, list[str]]]

_FORMAT = 2
"""Raised when what this module or `export` writes changes its meaning."""

_NOTES = "hfaccel.json"
_EXPORT = "export.json"
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
        """Whether a model has been converted already, and its files are as they were written."""
        return (self._folder / key).is_dir() and not find_damage(self._folder / key)

    def make(self, key: str, export: Export) -> None:
        """Convert a model unless it is there; of several processes that want it, one converts and the others wait.

        Raises:
            CheckpointError: The folder cannot be written.

        Warns:
            DamagedCacheWarning: It was there, but damaged, and has been converted again.
        """
        build_once(self._folder / key, lambda target: _write(target, *export()), stage="convert")

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
        build_once(
            self._folder / target,
            lambda directory: self._write_compressed(key, directory, architecture),
            stage="convert",
        )
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
            manifest = json.loads((folder / _EXPORT).read_text(encoding="utf-8"))
            (entry,) = manifest["components"].values()
            program: ov.Model = core().read_model(str(folder / entry["file"]))
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise LoadError(
                f"the converted model in {folder} cannot be read: {error}",
                stage="convert",
                hint="Delete that folder: it is made again.",
            ) from error
        return Converted(program, ExportMetadata.from_dict(entry["metadata"]), notes["shapes"], notes["problems"])

    def _write_compressed(self, key: str, directory: Path, architecture: str) -> None:
        import openvino as ov

        from pytest_hfaccel.backends.openvino.compression import compressed

        program = compressed(self.read(key).program, architecture)
        for name in (_NOTES, _EXPORT):
            shutil.copyfile(self._folder / key / name, directory / name)
        (entry,) = json.loads((directory / _EXPORT).read_text(encoding="utf-8"))["components"].values()
        ov.save_model(program, directory / entry["file"], compress_to_fp16=False)


def _write(directory: Path, exported: Any, shapes: str, problems: list[str]) -> None:
    exported.save_pretrained(directory)
    notes = {"shapes": shapes, "problems": problems}
    (directory / _NOTES).write_text(json.dumps(notes), encoding="utf-8")


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
