"""Converted models on disk: made once, shared by processes and runs."""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers.exporters.metadata import ExportMetadata

from pytest_hfaccel.backends.exported import ExportedRuntime, capture, inputs
from pytest_hfaccel.core.errors import LoadError
from pytest_hfaccel.core.files import build_once, find_damage

Export = Callable[[], tuple[Any, str, list[str]]]

_FORMAT = 3
"""Raised when what this module writes changes its meaning. Changes of how models are exported need no new number."""

_NOTES = "hfaccel.json"
_EXPORT = "export.json"


@dataclass(frozen=True)
class Conversion:
    """A converted model.

    Attributes:
        program: The runtime's object.
        metadata: transformers' `ExportMetadata`: what its runner rebuilds the outputs from.
        shapes: Which axes were kept open: `varying`, `all` or `static`.
        problems: Why the ways before that one did not work.
    """

    program: Any
    metadata: ExportMetadata
    shapes: str
    problems: list[str]


class Conversions:
    """The folder of a runtime's converted models.

    Args:
        runtime: Reads, writes and compresses programs.
        cache: The folder that the runtime's own lies in; made when needed.
    """

    def __init__(self, runtime: ExportedRuntime, cache: Path) -> None:
        self._runtime = runtime
        self._folder = cache / runtime.name

    def key(self, fingerprint: str, signature: str) -> str:
        """Return the name of a converted model: a hash of all that the conversion depends on.

        Args:
            fingerprint: The checkpoint's.
            signature: That of the example inputs (`inputs.signature`).
        """
        packages = ("transformers", *self._runtime.packages, "torch")
        versions = [version(package) for package in packages]
        return _hash(
            [_FORMAT, fingerprint, signature, *versions, _code_of(_first_definition(self._runtime, "convert"))]
        )

    def compressed_key(self, key: str) -> str:
        """Return the name of a converted model whose weights have been rounded to 8 bits."""
        code = _code_of(_first_definition(self._runtime, "compress"))
        return _hash([_FORMAT, key, self._runtime.compression_facts(), code])

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

        def write(directory: Path) -> None:
            exported, shapes, problems = export()
            exported.save_pretrained(directory)
            notes = {"shapes": shapes, "problems": problems}
            (directory / _NOTES).write_text(json.dumps(notes), encoding="utf-8")

        build_once(self._folder / key, write, stage="convert")

    def make_compressed(self, key: str, architecture: str) -> str:
        """Round the weights of a converted model to 8 bits, unless that has been done.

        Args:
            key: The converted model, in fp32; it stays as it is.
            architecture: The model's class, for messages.

        Returns:
            The key of the compressed model.

        Raises:
            LoadError: The runtime could not.
            CheckpointError: The folder cannot be written.
        """

        def write(directory: Path) -> None:
            program = self._runtime.compress(self.read(key).program, architecture)
            for name in (_NOTES, _EXPORT):
                shutil.copyfile(self._folder / key / name, directory / name)
            self._runtime.write(program, directory / _entry(directory)["file"])

        target = self.compressed_key(key)
        build_once(self._folder / target, write, stage="convert")
        return target

    def read(self, key: str) -> Conversion:
        """Read a converted model.

        Raises:
            LoadError: The files are damaged.
        """
        folder = self._folder / key
        try:
            notes = json.loads((folder / _NOTES).read_text(encoding="utf-8"))
            entry = _entry(folder)
            program = self._runtime.read(folder / entry["file"])
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise LoadError(
                f"the converted model in {folder} cannot be read: {error}",
                stage="convert",
                hint="Delete that folder: it is made again.",
            ) from error
        return Conversion(program, ExportMetadata.from_dict(entry["metadata"]), notes["shapes"], notes["problems"])


def _entry(folder: Path) -> dict[str, Any]:
    """Return what transformers' manifest says about the one component of an export."""
    manifest = json.loads((folder / _EXPORT).read_text(encoding="utf-8"))
    entry: dict[str, Any]
    (entry,) = manifest["components"].values()
    return entry


def _first_definition(runtime: ExportedRuntime, method: str) -> Callable[..., Any]:
    """Return a method as the first class in a runtime's line has it: runtimes that convert alike share conversions."""
    line = type(runtime).__mro__
    found: Callable[..., Any] = next(vars(each)[method] for each in reversed(line) if method in vars(each))
    return found


@cache
def _code_of(method: Callable[..., Any]) -> str:
    """Return a hash of the code that decides what a method of a runtime makes of a model.

    That is the method, `capture` and `inputs`, and what these call of this package. The options of an export, what is
    done about dtypes and which axes stay open all stand there: a cached conversion must not survive a change of them.
    """
    texts = dict(_sources(method))
    for module in (capture, inputs):
        texts[module.__name__] = inspect.getsource(module)
        for value in vars(module).values():
            if inspect.isfunction(value) and value.__module__ not in (capture.__name__, inputs.__name__):
                texts |= _sources(value, helpers=False)
    return _hash(sorted(texts.items()))


def _sources(function: Callable[..., Any], *, helpers: bool = True) -> dict[str, str]:
    """Return the source of a function of this package and, of its module, of the functions and constants it uses."""
    plain = inspect.unwrap(function)
    if not plain.__module__.startswith("pytest_hfaccel."):
        return {}
    found = {f"{plain.__module__}.{plain.__qualname__}": inspect.getsource(plain)}
    for name in plain.__code__.co_names if helpers else ():
        value = plain.__globals__.get(name)
        if inspect.isfunction(value):
            found |= _sources(value, helpers=False)
        elif isinstance(value, str | int | float | tuple):
            found[f"{plain.__module__}.{name}"] = repr(value)
    return found


def _hash(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
