"""The plain data of a classification: what goes in, what comes out, as typed dictionaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

UNKNOWN = "unknown"
"""The family of a model about which nothing is known."""

HardwareProfile = Mapping[str, Mapping[str, Any]]
"""Device kind -> `{"compatible": bool, "memory_usage": {"peak": MB}}`; `memory_usage` may be absent."""


class Definition(TypedDict):
    """What makes a model belong to a family or a subfamily; every key may be absent.

    Attributes:
        description: One line for people.
        keywords: Words that occur in the names of its models.
        tasks: Task names, in any spelling (`fill-mask`, `fill_mask`, `Fill Mask`).
        methods: Names of methods its models offer.
    """

    description: NotRequired[str]
    keywords: NotRequired[Sequence[str]]
    tasks: NotRequired[Sequence[str]]
    methods: NotRequired[Sequence[str]]


Families = Mapping[str, Definition]
"""Family name -> definition."""

Subfamilies = Mapping[str, Mapping[str, Definition]]
"""Family name -> subfamily name -> definition."""


class Analysis(TypedDict):
    """What one kind of evidence says.

    Attributes:
        family: The family it points to; `None` when it points to none.
        subfamily: The subfamily within it, if it says so.
        confidence: How far this evidence alone is to be trusted, 0..1. Not calibrated; the combined one is.
        subfamily_confidence: The same for the subfamily.
        source: `name_analysis`, `class_analysis`, `task_analysis`, `method_analysis`, `hardware_analysis`,
            `config_analysis`.
        reason: What was seen.
    """

    family: str | None
    subfamily: str | None
    confidence: float
    subfamily_confidence: float
    source: str
    reason: str


class Classification(TypedDict):
    """The answer.

    Attributes:
        model_name: The name that was asked for.
        family: One of the classifier's families, or `UNKNOWN`.
        subfamily: One of the family's subfamilies, or `None`.
        confidence: Calibrated: of the answers given with 0.8 about 80 % are right.
        subfamily_confidence: The same for the subfamily.
        source: `combined_analysis`, or `model_database` when it was stored before.
        reason: The decisive evidence in words, or why there is none.
        analyses: What each kind of evidence said, strongest kind first.
    """

    model_name: str
    family: str
    subfamily: str | None
    confidence: float
    subfamily_confidence: float
    source: str
    reason: str
    analyses: list[Analysis]


def analysis(
    source: str,
    family: str | None,
    subfamily: str | None,
    confidence: float,
    subfamily_confidence: float,
    reason: str,
) -> Analysis:
    """Build an `Analysis`, with zero confidence in what it does not say."""
    return {
        "family": family,
        "subfamily": subfamily if family else None,
        "confidence": confidence if family else 0.0,
        "subfamily_confidence": subfamily_confidence if family and subfamily else 0.0,
        "source": source,
        "reason": reason,
    }


def nothing(source: str, reason: str) -> Analysis:
    """An `Analysis` that points to no family."""
    return analysis(source, None, None, 0.0, 0.0, reason)
