"""Which model class modules there are, read from their sources: importing a user's module could run anything."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pytest_hfaccel.core.errors import RegistryError


@dataclass(frozen=True)
class ModuleClass:
    """A test class of a model class module.

    Attributes:
        module: The file's name.
        patterns: Wildcards over the architecture classes it tests.
        yields: Whether it takes every class that no other one tests.
    """

    module: str
    patterns: tuple[str, ...]
    yields: bool


def read_modules(directory: Path) -> list[ModuleClass]:
    """Read the modules of a directory (`test_*.py`).

    Raises:
        RegistryError: A file is not Python.
    """
    return [found for path in sorted(directory.glob("test_*.py")) for found in _classes(path)]


def without_module(architectures: Iterable[str], modules: Iterable[ModuleClass]) -> dict[str, bool]:
    """Return the classes that no module names by a wildcard, and whether one that takes every class has them."""
    known = list(modules)
    patterns = [pattern for found in known for pattern in found.patterns]
    carried = any(found.yields for found in known)
    return {name: carried for name in architectures if not any(fnmatchcase(name, pattern) for pattern in patterns)}


def _classes(path: Path) -> Iterator[ModuleClass]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise RegistryError([f"{path}: it cannot be read as Python: {error}"]) from error
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            values: dict[str, Any] = dict(_literals(node))
            patterns = tuple(str(pattern) for pattern in values.get("architectures", ()))
            if patterns or values.get("yields"):
                yield ModuleClass(path.name, patterns, bool(values.get("yields")))


def _literals(node: ast.ClassDef) -> Iterator[tuple[str, Any]]:
    for statement in node.body:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else None
        if isinstance(target, ast.Name) and isinstance(statement, ast.Assign):
            try:
                yield target.id, ast.literal_eval(statement.value)
            except ValueError:  # computed when the module is imported: not known here
                continue
