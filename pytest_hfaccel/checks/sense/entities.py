"""Claims about models that label tokens."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_hfaccel.checks.base import CheckContext
from pytest_hfaccel.checks.claims import Claim

_TEXT = "My name is Anna and I live in Berlin."
_PLACE = "Berlin"


def finds_places(context: CheckContext) -> Iterator[Claim]:
    """A city is a place. Claimed only of models that have a label for places (`LOC` or `GPE`)."""
    labels = {str(name).rpartition("-")[2].upper() for name in context.pipe.model.config.id2label.values()}
    if not labels & {"LOC", "GPE"}:
        return
    start = _TEXT.index(_PLACE)
    found = [
        str(entity["entity"]).rpartition("-")[2].upper() for entity in context.pipe(_TEXT) if entity["start"] == start
    ]
    yield Claim(f"finds a place in {_TEXT!r}", bool(set(found) & {"LOC", "GPE"}), {"labels": found})
