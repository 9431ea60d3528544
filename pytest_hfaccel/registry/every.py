"""Every (model type, architecture class) pair of the installed transformers as a testable model, listed nowhere.

A pair is called `opt/OPTForCausalLM`: `opt/*` means all classes of a model type, `*/*ForCTC` all of a head.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import cache

from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.registry.auto_tables import AutoEntry, auto_entries
from pytest_hfaccel.registry.heads import MAIN_HEADS, PROCESSED, TASK_OF_HEAD, UNKNOWN_HEAD

SOURCE = "transformers' auto mappings"


@cache
def every_pair() -> tuple[ModelSpec, ...]:
    """Return a model for each pair, sorted by name.

    A class that several mappings name has the task of the first of them in `TASK_OF_HEAD`.
    """
    heads: dict[tuple[str, str], list[str]] = {}
    for head, model_type, architecture in auto_entries():
        heads.setdefault((model_type, architecture), []).append(head)
    return tuple(_spec(*pair, heads[pair]) for pair in sorted(heads))


@cache
def main_pairs() -> tuple[ModelSpec, ...]:
    """Return the base class and the main head of each model type: what a sweep of all architectures runs."""
    chosen: set[str] = set()
    for entries in _by_type().values():
        base = next((entry for entry in entries if not entry.head), None)
        chosen |= {pair_name(entry) for entry in (base, _main_head(entries, base)) if entry is not None}
    return tuple(spec for spec in every_pair() if spec.name in chosen)


@cache
def other_pairs() -> tuple[ModelSpec, ...]:
    """Return the pairs that are not among `main_pairs`: what else can be put on top of a base class."""
    main = {spec.name for spec in main_pairs()}
    return tuple(spec for spec in every_pair() if spec.name not in main)


def match_pairs(pattern: str) -> list[ModelSpec]:
    """Return the pairs whose name, or class, matches a wildcard; case does not count."""
    wanted = pattern.lower()
    return [
        spec
        for spec in every_pair()
        if fnmatchcase(spec.name.lower(), wanted) or fnmatchcase(spec.architecture.lower(), wanted)
    ]


def pair_name(entry: AutoEntry) -> str:
    """Return what users call the pair of an entry."""
    return f"{entry.model_type}/{entry.architecture}"


def _spec(model_type: str, architecture: str, heads: list[str]) -> ModelSpec:
    head = min(heads, key=lambda head: MAIN_HEADS.index(head) if head in TASK_OF_HEAD else len(MAIN_HEADS))
    task = TASK_OF_HEAD.get(head, UNKNOWN_HEAD)
    if (head, model_type) in PROCESSED:
        task = PROCESSED[head, model_type]
    return ModelSpec(
        name=f"{model_type}/{architecture}",
        architecture=architecture,
        task=task,
        # One class can serve several model types: the type says which config it gets.
        dims={"model_type": model_type},
        source=SOURCE,
    )


def _by_type() -> dict[str, list[AutoEntry]]:
    entries: dict[str, list[AutoEntry]] = {}
    for entry in auto_entries():
        entries.setdefault(entry.model_type, []).append(entry)
    return entries


def _main_head(entries: list[AutoEntry], base: AutoEntry | None) -> AutoEntry | None:
    base_class = base.architecture if base else ""
    with_head = [entry for entry in entries if entry.head in TASK_OF_HEAD and entry.architecture != base_class]
    with_head = [entry for entry in with_head if entry.head]
    return min(with_head, key=lambda entry: MAIN_HEADS.index(entry.head), default=None)
