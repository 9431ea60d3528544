"""What the installed transformers and a folder of model class modules hold, for `hfaccel registry`.

Sources are read without importing them where that suffices; the config of a class needs transformers imported, which
takes a second.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from pytest_hfaccel.core.errors import CheckpointError, ConfigError, RegistryError
from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.registry.auto_classes import PROCESSED, auto_entries
from pytest_hfaccel.registry.document import suggest

_ALL = re.compile(r"^__all__ = \[(.*?)\]", re.MULTILINE | re.DOTALL)
_MODEL_TYPE = re.compile(r'^    model_type(?:: \w+)? = "([^"]+)"', re.MULTILINE)
_MODEL = re.compile(r"class (\w+)\(.*(?:PreTrainedModel|GenerationMixin|BackboneMixin|Model|For\w+)\b.*\):")
_ABSTRACT = "PreTrainedModel"


@cache
def model_classes() -> frozenset[str]:
    """Return the public model classes of the installed transformers, without those that only others derive from."""
    names: set[str] = set()
    for file in _sources("modeling_*.py"):
        source = file.read_text(encoding="utf-8")
        public = _ALL.search(source)
        listed = set(ast.literal_eval(f"[{public[1]}]")) if public else set()
        names |= {name for name in _MODEL.findall(source) if name in listed and not name.endswith(_ABSTRACT)}
    return frozenset(names)


@cache
def model_types() -> frozenset[str]:
    """Return the `model_type` of every config of the installed transformers."""
    named = {entry.model_type for entry in auto_entries()}
    declared = (_MODEL_TYPE.findall(file.read_text(encoding="utf-8")) for file in _sources("configuration_*.py"))
    return frozenset(named.union(*declared))


def classes_without_entry(registered: Iterable[str]) -> list[str]:
    """Return the model classes that neither an auto mapping nor one of the registered architectures names."""
    return sorted(model_classes() - {entry.architecture for entry in auto_entries()} - set(registered))


def stale_heads() -> list[str]:
    """Return what `auto_classes.PROCESSED` says about pairs that the installed transformers does not have."""
    known = {(entry.head, entry.model_type) for entry in auto_entries()}
    return [f"{head or 'base model'} of {model_type}" for head, model_type in PROCESSED.keys() - known]


def pairs_without_checkpoint(rows: Path) -> dict[str, str]:
    """Return the pairs of which no tiny checkpoint was made, and why.

    Raises:
        CheckpointError: The file cannot be read, or holds something else.
    """
    try:
        read = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
        latest = {row["name"]: row for row in read}
        return {name: f"{row['stage']}: {row['error']}" for name, row in latest.items() if not row["ok"]}
    except OSError as error:
        raise CheckpointError(f"{rows} cannot be read: {error.strerror}.", stage="resolve") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{rows} has no rows of a sweep: {error}.",
            stage="resolve",
            hint="`python benchmarks/tiny_checkpoints.py --rows FILE` writes them.",
        ) from error


def _sources(pattern: str) -> Iterator[Path]:
    package = find_spec("transformers")
    for location in (package.submodule_search_locations or []) if package else []:
        yield from sorted(Path(location, "models").glob(f"*/{pattern}"))


@cache
def _names() -> frozenset[str]:
    import transformers

    return frozenset(transformers.__all__)  # `dir` takes a tenth of a second to say the same


def unknown_architectures(specs: Iterable[ModelSpec]) -> list[str]:
    """Return a line for each model whose class the installed transformers does not have."""
    return [
        f"{spec.source}: models.{spec.name}.architecture: transformers {version('transformers')} has no class "
        f"{spec.architecture!r}.{suggest(spec.architecture, _names())}"
        for spec in specs
        if not spec.requires_remote_code and spec.architecture not in _names()
    ]


def require_class(architecture: str) -> None:
    """Refuse a name that is no model class of the installed transformers.

    Raises:
        ConfigError: With the nearest name.
    """
    if _config_class(architecture) is None:
        near = suggest(architecture, _names())
        raise ConfigError(
            f"transformers {version('transformers')} has no model class {architecture!r}.{near}",
            hint="`hfaccel registry check --classes` lists the classes that have no entry.",
        )


def model_type_of(architecture: str) -> str | None:
    """Return the model type of a class (`bert` of `BertForMaskedLM`), or `None` if transformers lacks the class."""
    config_class = _config_class(architecture)
    return config_class.model_type if config_class else None


def default_config(architecture: str) -> dict[str, Any]:
    """Return the default config of a class as JSON has it; empty if transformers lacks the class."""
    config_class = _config_class(architecture)
    if config_class is None:
        return {}
    # By way of JSON, as config.json went: its keys are text, its tuples are lists.
    plain: dict[str, Any] = json.loads(json.dumps(config_class().to_dict(), default=str))
    return plain


def _config_class(architecture: str) -> Any:
    import transformers

    try:
        return getattr(getattr(transformers, architecture, None), "config_class", None)
    except ImportError:  # a class that needs a package which is not installed: transformers has a dummy for it
        return None


class ModuleClass(NamedTuple):
    """A test class of a model class module.

    Attributes:
        module: The file's name.
        patterns: Wildcards over the architecture classes it tests.
        fallback: Whether it takes every class that no other one tests.
    """

    module: str
    patterns: tuple[str, ...]
    fallback: bool


def read_modules(directory: Path) -> list[ModuleClass]:
    """Read the modules of a directory (`test_*.py`).

    Raises:
        RegistryError: A file is not Python.
    """
    found = []
    for path in sorted(directory.glob("test_*.py")):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, UnicodeDecodeError) as error:
            raise RegistryError([f"{path}: it cannot be read as Python: {error}"]) from error
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
                values: dict[str, Any] = dict(_literals(node))
                patterns = tuple(map(str, values.get("architectures", ())))
                fallback = bool(values.get("fallback", values.get("yields")))
                if patterns or fallback:
                    found.append(ModuleClass(path.name, patterns, fallback))
    return found


def without_module(architectures: Iterable[str], modules: Iterable[ModuleClass]) -> dict[str, bool]:
    """Return the classes that no module names by a wildcard, and whether one that takes every class has them."""
    known = list(modules)
    patterns = [pattern for module_class in known for pattern in module_class.patterns]
    carried = any(module_class.fallback for module_class in known)
    return {name: carried for name in architectures if not any(fnmatchcase(name, pattern) for pattern in patterns)}


def _literals(node: ast.ClassDef) -> Iterator[tuple[str, Any]]:
    for statement in node.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            with suppress(ValueError):  # computed when the module is imported: not known here
                yield statement.targets[0].id, ast.literal_eval(statement.value)
