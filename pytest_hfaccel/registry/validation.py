"""Checks documents against the schema, and remembers which contents passed."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any

from pytest_hfaccel.registry.document import Document
from pytest_hfaccel.registry.problem import Loc, not_allowed

_WANTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a mapping",
    "string_type": "text; put it in quotes",
}


def validate(document: Document, extra_kinds: Sequence[str] = (), cache_dir: Path | None = None) -> None:
    """Add to `document.problems` whatever the schema says against it.

    Args:
        document: A document that was read.
        extra_kinds: Device kinds of third-party backends, allowed in `expect` besides the known ones.
        cache_dir: Where contents that passed are remembered. Such a content is not checked again, which saves
            importing pydantic: most of the time that loading a registry takes.
    """
    if document.data is None:
        return
    stamp = (
        cache_dir / "registry" / _fingerprint(document, extra_kinds) if cache_dir and not document.problems else None
    )
    if stamp and stamp.exists():
        return
    _check(document, extra_kinds)
    if stamp and not document.problems:
        _leave(stamp)


def _fingerprint(document: Document, extra_kinds: Sequence[str]) -> str:
    """Hash what the verdict depends on: the content, and everything the schema takes its allowed values from."""
    from pytest_hfaccel.core import results, spec, tasks

    sources = [
        Path(__file__).with_name("schema.py"),
        *(Path(str(module.__file__)) for module in (results, spec, tasks)),
    ]
    digest = sha256("\0".join((document.text, *extra_kinds)).encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _leave(stamp: Path) -> None:
    try:
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.touch()
    except OSError:
        # A cache that cannot be written costs the next start a tenth of a second, and is no reason to fail.
        return


def _check(document: Document, extra_kinds: Sequence[str]) -> None:
    from pydantic import ValidationError

    from pytest_hfaccel.registry.schema import RegistryFile

    try:
        RegistryFile.model_validate(document.data, context={"extra_kinds": tuple(extra_kinds)})
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            loc = tuple(step for step in detail["loc"] if step != "[key]")
            document.add_problem(loc, _text(loc, detail))


def _text(loc: Loc, detail: Any) -> str:
    from pytest_hfaccel.registry.schema import entry_at

    kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return not_allowed(loc[-1], "a key here", entry_at(loc[:-1]).model_fields)
    if kind == "not_allowed":
        return not_allowed(given, context["noun"], context["allowed"])
    if kind == "malformed":
        return f"{short_repr(given)} is not {context['noun']}."
    if kind == "missing":
        return "is missing."
    if kind in _WANTED:
        return f"{short_repr(given)} is not {_WANTED[kind]}."
    return f"{detail['msg']}: {short_repr(given)}."
