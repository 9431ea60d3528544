"""What tasks and methods say, by the definitions of the families."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_hfaccel.families.definitions import GENERAL_TASKS
from pytest_hfaccel.families.matching import best, name_score, term_score
from pytest_hfaccel.families.records import Analysis, Definition, Families, Subfamilies, analysis, nothing

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
