"""Matching words against definitions: whole words, parts of words, and acronyms of tasks.

This is what makes custom families work; the built-in ones use it for tasks, methods, and as the last resort of names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pytest_hfaccel.classify.definitions import GENERAL_TASKS
from pytest_hfaccel.classify.records import Analysis, Definition, Families, Subfamilies, analysis, nothing

PARTIAL = 0.5
"""The worth of a partial match; a whole one counts 1. From the guide."""

_STOP_WORDS = frozenset({"to", "and", "of", "the", "for", "a", "based"})

_SPELLED_OUT = {
    "asr": "automatic speech recognition",
    "clm": "causal language modeling",
    "lm": "language modeling",
    "mlm": "masked language modeling",
    "modelling": "modeling",
    "ner": "named entity recognition token classification",
    "qa": "question answering",
    "stt": "speech to text",
    "tts": "text to speech",
    "vqa": "visual question answering",
}
"""Abbreviations that names of tasks are written with."""


def words(text: str) -> list[str]:
    """Split a name into lower-case words: `Text_to-Speech` -> `text`, `to`, `speech`."""
    return re.findall(r"[a-z0-9]+", text.lower())


_STRONGEST = 0.95
_FLOOR = 0.5


def analyze_terms(
    kind: Literal["tasks", "methods"], terms: Sequence[str], families: Families, subfamilies: Subfamilies
) -> Analysis:
    """Say which family serves these tasks, or has these methods."""
    source = {"tasks": "task_analysis", "methods": "method_analysis"}[kind]
    best = _best(_scores(kind, terms, families))
    if best is None:
        return nothing(source, f"no family has any of the {kind} {', '.join(map(repr, terms))}")
    family, score, share = best
    inner = _best(_scores(kind, terms, subfamilies.get(family, {})))
    subfamily, certainty = (inner[0], _confidence(*inner[1:])) if inner else (None, 0.0)
    reason = f"{kind} of {family}: {', '.join(terms)}"
    return analysis(source, family, subfamily, _confidence(score, share), certainty, reason)


def _best(scores: Mapping[str, float]) -> tuple[str, float, float] | None:
    """Return the key of the highest score, the first of equals, with the score and its share; `None` if all are 0."""
    total = sum(scores.values())
    if not total:
        return None
    winner = max(scores, key=lambda key: scores[key])
    return winner, scores[winner], scores[winner] / total


def _scores(
    kind: Literal["tasks", "methods"], terms: Sequence[str], definitions: Mapping[str, Definition]
) -> dict[str, float]:
    """Sum up how far the terms match each definition; a name that one definition has is no partial match of others."""
    scores = dict.fromkeys(definitions, 0.0)
    for term in terms:
        of_term = {name: _term_score(term, each.get(kind, ())) for name, each in definitions.items()}
        least = 1.0 if 1.0 in of_term.values() else 0.0
        for name, score in of_term.items():
            scores[name] += score if score >= least else 0.0
    return scores


def _term_score(term: str, known: Iterable[str]) -> float:
    """Compare a task or method with those of a definition.

    Returns:
        1 for the same name, `PARTIAL` where several families have it, else `PARTIAL` times the share of words in common
        with the nearest name, or 0 when that is less than half.
    """
    mine = " ".join(words(term))
    names = [" ".join(words(name)) for name in known]
    if mine and mine in names:
        return PARTIAL if mine in GENERAL_TASKS else 1.0
    best = max((_share(mine, name) for name in names), default=0.0)
    return PARTIAL * best if best >= PARTIAL else 0.0


def _share(one: str, other: str) -> float:
    """Return the share of words in common; 0 for opposite directions (`speech to text` and `text to speech`)."""
    if " to " in one and " to " in other and one.split(" to ")[0] == other.split(" to ")[-1]:
        return 0.0
    mine, theirs = (
        {spelled for word in name.split() for spelled in _SPELLED_OUT.get(word, word).split()} - _STOP_WORDS
        for name in (one, other)
    )
    return len(mine & theirs) / max(len(mine | theirs), 1)


def _confidence(score: float, share: float) -> float:
    """From half for a partial match to nearly 1 for a whole one, less where other families match, too."""
    return _FLOOR + (_STRONGEST - _FLOOR) * max(min(score, 1.0) * share - (1 - share), 0.0)


def analyze_keywords(
    source: str, tokens: Sequence[str], families: Families, subfamilies: Subfamilies, confidence: float
) -> Analysis | None:
    """Say which family's keywords (or acronyms of its tasks) are words of a name.

    Args:
        source: The source the analysis is to carry.
        tokens: The words of the name.
        families: Definitions of the families.
        subfamilies: Definitions of their subfamilies.
        confidence: How far a whole match is to be trusted; a partial one a quarter as far above chance.
    """
    best = _best({name: _name_score(tokens, definition) for name, definition in families.items()})
    if best is None:
        return None
    family, score, share = best
    certainty = _FLOOR + (confidence - _FLOOR) * score**2 * share
    inner = _best({name: _name_score(tokens, each) for name, each in subfamilies.get(family, {}).items()})
    reason = f"{'a keyword' if score == 1 else 'part of a keyword or an acronym'} of {family} is in the name"
    return analysis(source, family, inner[0] if inner else None, certainty, certainty, reason)


def _name_score(tokens: Sequence[str], definition: Definition) -> float:
    """Compare the words of a model's name with a definition.

    Returns:
        1 when a keyword is a word of the name, `PARTIAL` when it is part of one (from four letters on) or when a word
        is the acronym of one of its tasks of three words or more (`dpr` for dense-passage-retrieval), else 0.
    """
    keywords = ["".join(words(keyword)) for keyword in definition.get("keywords", ())]
    if set(keywords) & set(tokens):
        return 1.0
    tasks = [words(task) for task in definition.get("tasks", ())]
    acronyms = {"".join(word[0] for word in task) for task in tasks if len(task) >= 3}
    inside = any(len(keyword) >= 4 and keyword in token for keyword in keywords for token in tokens)
    return PARTIAL if inside or acronyms & set(tokens) else 0.0
