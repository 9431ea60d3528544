"""Which classes of the installed transformers can be tested, read from its sources without importing it."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from pytest_hfaccel.core.errors import CheckpointError
from pytest_hfaccel.registry.auto_tables import auto_entries
from pytest_hfaccel.registry.heads import PROCESSED

_ALL = re.compile(r"^__all__ = \[(.*?)\]", re.MULTILINE | re.DOTALL)
_MODEL_TYPE = re.compile(r'^    model_type(?:: \w+)? = "([^"]+)"', re.MULTILINE)
_MODEL = re.compile(r"class (\w+)\(.*(?:PreTrainedModel|GenerationMixin|BackboneMixin|Model|For\w+)\b.*\):")
_ABSTRACT = "PreTrainedModel"


@cache
def model_classes() -> frozenset[str]:
    """Return the public model classes of the installed transformers, without those that only others derive from."""
    return frozenset(name for file in _sources("modeling_*.py") for name in _public_models(file))


@cache
def model_types() -> frozenset[str]:
    """Return the `model_type` of every config of the installed transformers."""
    named = {entry.model_type for entry in auto_entries()}
    found = (_MODEL_TYPE.findall(file.read_text(encoding="utf-8")) for file in _sources("configuration_*.py"))
    return frozenset(named.union(*found))


def classes_without_entry(registered: Iterable[str]) -> list[str]:
    """Return the model classes that neither an auto mapping nor one of the registered architectures names."""
    return sorted(model_classes() - {entry.architecture for entry in auto_entries()} - set(registered))


def stale_heads() -> list[str]:
    """Return what `heads.PROCESSED` says about pairs that the installed transformers does not have."""
    known = {(entry.head, entry.model_type) for entry in auto_entries()}
    return [f"{head or 'base model'} of {model_type}" for head, model_type in PROCESSED.keys() - known]


def pairs_without_checkpoint(rows: Path) -> dict[str, str]:
    """Return the pairs of which no tiny checkpoint was made, and why.

    Args:
        rows: What `benchmarks/tiny_checkpoints.py --rows` wrote.

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
            f"{rows} holds no rows of a sweep: {error}.",
            stage="resolve",
            hint="`python benchmarks/tiny_checkpoints.py --rows FILE` writes them.",
        ) from error


def _sources(pattern: str) -> Iterator[Path]:
    found = find_spec("transformers")
    for location in (found.submodule_search_locations or []) if found else []:
        yield from sorted(Path(location, "models").glob(f"*/{pattern}"))


def _public_models(file: Path) -> list[str]:
    source = file.read_text(encoding="utf-8")
    listed = _ALL.search(source)
    public = set(ast.literal_eval(f"[{listed[1]}]")) if listed else set()
    return [name for name in _MODEL.findall(source) if name in public and not name.endswith(_ABSTRACT)]
