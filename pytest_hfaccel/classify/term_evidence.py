"""Matching words against definitions: whole words, parts of words, and acronyms of tasks.

This is what makes custom families work; the built-in ones use it for tasks, methods, and as the last resort of names.

What tasks and methods say, by the definitions of the families.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

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


def normalised(text: str) -> str:
    """Spell a task or method name one way: `Fill_Mask` -> `fill mask`."""
    return " ".join(words(text))


def term_score(term: str, known: Iterable[str], general: frozenset[str] = frozenset()) -> float:
    """Compare a task or method with those of a definition.

    Returns:
        1 for the same name, `PARTIAL` for the same name in `general`, else `PARTIAL` times the share of words in
        common with the nearest name, or 0 when that is less than half.
    """
    mine = normalised(term)
    if not mine:
        return 0.0
    names = [normalised(name) for name in known]
    if mine in names:
        return PARTIAL if mine in general else 1.0
    best = max((_share(mine, name) for name in names), default=0.0)
    return PARTIAL * best if best >= PARTIAL else 0.0


def _share(one: str, other: str) -> float:
    """Return the share of words in common; 0 for opposite directions (`speech to text` and `text to speech`)."""
    if " to " in one and " to " in other and one.split(" to ")[0] == other.split(" to ")[-1]:
        return 0.0
    mine, theirs = _content_words(one), _content_words(other)
    return len(mine & theirs) / max(len(mine | theirs), 1)


def _content_words(name: str) -> set[str]:
    return {spelled for word in name.split() for spelled in _SPELLED_OUT.get(word, word).split()} - _STOP_WORDS


def name_score(tokens: Sequence[str], definition: Definition) -> float:
    """Compare the words of a model's name with a definition.

    Returns:
        1 when a keyword is a word of the name, `PARTIAL` when it is part of one (from four letters on) or when a word
        is the acronym of one of its tasks (`dpr` for dense-passage-retrieval), else 0.
    """
    keywords = ["".join(words(keyword)) for keyword in definition.get("keywords", ())]
    if set(keywords) & set(tokens):
        return 1.0
    inside = any(len(keyword) >= 4 and keyword in token for keyword in keywords for token in tokens)
    return PARTIAL if inside or acronyms(definition) & set(tokens) else 0.0


def acronyms(definition: Definition) -> set[str]:
    """The acronyms of a definition's tasks that have at least three words."""
    split = (words(task) for task in definition.get("tasks", ()))
    return {"".join(word[0] for word in task) for task in split if len(task) >= 3}


def best(scores: Mapping[str, float]) -> tuple[str, float, float] | None:
    """Pick the highest score.

    Returns:
        Its key, the score, and its share among all scores; `None` when all are 0. The first of equals wins.
    """
    total = sum(scores.values())
    if not total:
        return None
    winner = max(scores, key=lambda key: scores[key])
    return winner, scores[winner], scores[winner] / total


TASK_SOURCE = "task_analysis"
METHOD_SOURCE = "method_analysis"

_STRONGEST = 0.95
_FLOOR = 0.5


def analyze_tasks(tasks: Sequence[str], families: Families, subfamilies: Subfamilies) -> Analysis:
    """Say which family serves these tasks."""
    return _analyze("tasks", TASK_SOURCE, tasks, families, subfamilies)


def analyze_methods(methods: Sequence[str], families: Families, subfamilies: Subfamilies) -> Analysis:
    """Say which family has these methods."""
    return _analyze("methods", METHOD_SOURCE, methods, families, subfamilies)


def _analyze(key: str, source: str, terms: Sequence[str], families: Families, subfamilies: Subfamilies) -> Analysis:
    found = best(_scores(key, terms, families))
    if found is None:
        return nothing(source, f"no family has any of the {key} {', '.join(map(repr, terms))}")
    family, score, share = found
    confidence = _confidence(score, share)
    inner = best(_scores(key, terms, subfamilies.get(family, {})))
    subfamily, certainty = (inner[0], _confidence(inner[1], inner[2])) if inner else (None, 0.0)
    return analysis(source, family, subfamily, confidence, certainty, f"{key} of {family}: {', '.join(terms)}")


def _scores(key: str, terms: Sequence[str], definitions: Mapping[str, Definition]) -> dict[str, float]:
    """Sum up how far the terms match each definition; a name that one definition has is no partial match of others."""
    scores = dict.fromkeys(definitions, 0.0)
    for term in terms:
        of_term = {name: term_score(term, _listed(key, each), GENERAL_TASKS) for name, each in definitions.items()}
        least = 1.0 if 1.0 in of_term.values() else 0.0
        for name, score in of_term.items():
            scores[name] += score if score >= least else 0.0
    return scores


def _listed(key: str, definition: Definition) -> Sequence[str]:
    return definition.get("tasks", ()) if key == "tasks" else definition.get("methods", ())


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
    found = best({name: name_score(tokens, definition) for name, definition in families.items()})
    if found is None:
        return None
    family, score, share = found
    certainty = _FLOOR + (confidence - _FLOOR) * score**2 * share
    inner = best({name: name_score(tokens, each) for name, each in subfamilies.get(family, {}).items()})
    subfamily = inner[0] if inner else None
    reason = f"{'a keyword' if score == 1 else 'part of a keyword or an acronym'} of {family} is in the name"
    return analysis(source, family, subfamily, certainty, certainty, reason)
