"""Finding what a name is made of: model types and checkpoint families, as whole words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from pytest_hfaccel.families.checkpoint_names import AFFIXES, CHECKPOINT_NAMES
from pytest_hfaccel.families.matching import words
from pytest_hfaccel.families.model_types import Kind, families_of
from pytest_hfaccel.families.transformers_tables import auto_tables

_LONGEST = 6
"""Words of the longest model types (`higgs_audio_v2_tokenizer` has four)."""

# Model types that are also everyday words, so that a name may hold them by accident.
_EVERYDAY = frozenset({"beam", "bit", "doge", "flint", "mvp", "radio"})


@dataclass(frozen=True)
class Marker:
    """A known word or run of words in a name.

    Attributes:
        text: The words, joined.
        kind: What it stands for.
        start: Position of its first word.
        is_type: Whether it is a model type of the installed transformers.
        exact: Whether the words are known as they are, not by a prefix or suffix.
    """

    text: str
    kind: Kind
    start: int
    is_type: bool
    exact: bool


def find_marker(tokens: Sequence[str]) -> Marker | None:
    """Return the first known run of words, the longest of those that start at the same word.

    First, because names put what a model is before what it is built from: `detr-resnet-50`, `blip2-opt-2.7b`,
    `llava-v1.6-mistral-7b`.
    """
    weak: Marker | None = None
    for start in range(len(tokens)):
        found = _exact(tokens, start) or _by_affix(tokens, start)
        if found and found.text not in _EVERYDAY:
            return found
        weak = weak or found
    return weak


def find_markers(tokens: Sequence[str]) -> list[Marker]:
    """Return every known run of words that does not overlap an earlier one."""
    found = []
    start = 0
    while start < len(tokens):
        marker = _exact(tokens, start) or _by_affix(tokens, start)
        if marker:
            found.append(marker)
        start += _length(tokens, start, marker.text) if marker else 1
    return found


def _length(tokens: Sequence[str], start: int, text: str) -> int:
    length, joined = 1, tokens[start]
    while len(joined) < len(text) and start + length < len(tokens):
        joined += tokens[start + length]
        length += 1
    return length


def _exact(tokens: Sequence[str], start: int) -> Marker | None:
    types, names = _types(), CHECKPOINT_NAMES
    for length in range(min(_LONGEST, len(tokens) - start), 0, -1):
        joined = "".join(tokens[start : start + length])
        # Checkpoints first: Blenderbot's type is one of sequence to sequence, and its purpose is to chat.
        kind = names.get(joined) or types.get(joined)
        if kind:
            return Marker(joined, kind, start, joined in types, exact=True)
    return None


def _by_affix(tokens: Sequence[str], start: int) -> Marker | None:
    """Know `resnet50`, `paligemma2`, `distilroberta`, `scibert` by what they begin or end with."""
    kind, is_type = _affix_kind(tokens[start])
    return Marker(tokens[start], kind, start, is_type, exact=False) if kind else None


@lru_cache(maxsize=4096)
def _affix_kind(token: str) -> tuple[Kind | None, bool]:
    for stem in (re.sub(r"v?\d+[a-z]?$", "", token), token.removeprefix("distil"), token.removeprefix("tiny")):
        kind = CHECKPOINT_NAMES.get(stem) or _types().get(stem)
        if kind and stem != token and len(stem) > 3:
            return kind, stem in _types()
    return next((kind for pattern, kind in _affixes() if pattern.fullmatch(token)), None), False


@cache
def _types() -> Mapping[str, Kind]:
    """Joined words of every model type -> its kind."""
    return {"".join(words(model_type)): kind for model_type, kind in families_of(auto_tables()).items()}


@cache
def _affixes() -> list[tuple[re.Pattern[str], Kind]]:
    return [(re.compile(pattern), kind) for pattern, kind in AFFIXES]
