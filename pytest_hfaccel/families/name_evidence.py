"""What a model's name says: `org/bert-base-uncased-finetuned-ner`.

In order: the model types and well-known checkpoints in the repository's name, the registry, the purpose words
(`ner`, `captioning`), the publisher, and last the keywords of the family definitions. Purpose words also refine what
the first two found: `qwen` with `vl` sees, with `embedding` embeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from pytest_hfaccel.families.checkpoint_names import ORGANISATIONS
from pytest_hfaccel.families.markers import find_marker, find_markers
from pytest_hfaccel.families.matching import words
from pytest_hfaccel.families.model_types import SENTENCE, Kind
from pytest_hfaccel.families.purposes import purpose_without_family, refine
from pytest_hfaccel.families.records import Analysis, analysis, nothing
from pytest_hfaccel.families.registry_evidence import analyze_registered

SOURCE = "name_analysis"

TYPE = 0.92
"""Confidence in a model type or well-known checkpoint that stands in the name as a whole word."""
AFFIX = 0.88
"""Confidence in a word that begins or ends like a known one."""
STATED = 0.99
"""Confidence in a name that states its purpose: it outweighs the class, which cannot know the purpose."""
SPECIFIC = 0.96
"""Confidence in a well-known checkpoint of a modality whose models are often built on a language model."""
REFINED = 0.94
"""Confidence in a known name that a purpose word moved to another modality."""
PURPOSE = 0.75
"""Confidence in a purpose word alone."""
PUBLISHER = 0.7
"""Confidence in a publisher alone."""


def analyze_name(model_name: str) -> Analysis:
    """Say what a hub id, a directory or a bare name stands for, by built-in knowledge."""
    organisation, tokens = split_name(model_name)
    if not tokens:
        return nothing(SOURCE, "no name was given")
    return (
        _by_marker(organisation, tokens)
        or analyze_registered(model_name, SOURCE)
        or _by_publisher(organisation)
        or _by_purpose(tokens)
        or nothing(SOURCE, f"no word of {model_name!r} is a model type, a known checkpoint or a purpose")
    )


def split_name(model_name: str) -> tuple[list[str], list[str]]:
    """Split a name into the words of its namespace and those of the repository, directory or file."""
    path = PurePath(model_name.strip().replace("\\", "/").rstrip("/"))
    return words(path.parent.name), words(path.name)


def _by_marker(organisation: Sequence[str], tokens: Sequence[str]) -> Analysis | None:
    marker = find_marker(tokens)
    if marker is None:
        return None
    said = "model type" if marker.is_type else "checkpoint family"
    reason = f"{marker.text!r} is a {said}"
    later = [other.kind for other in find_markers(tokens) if other.start > marker.start]
    purpose = refine(marker.kind, tokens, later, ORGANISATIONS.get("".join(organisation)))
    if purpose is None:
        # A sentence encoder is named for its purpose, whatever it was made from (`gte-Qwen2-1.5B-instruct`).
        stated = marker.kind == SENTENCE
        specific = not marker.is_type and marker.kind[0] in ("audio", "time_series")
        confidence = STATED if stated else SPECIFIC if specific else TYPE if marker.exact else AFFIX
        return analysis(SOURCE, *marker.kind, confidence, _certainty(marker.kind), reason)
    same = purpose.kind[0] == marker.kind[0]
    confidence = STATED if purpose.stated else TYPE if same else REFINED
    return analysis(SOURCE, *purpose.kind, confidence, STATED if same else REFINED, f"{reason}, {purpose.why}")


def _certainty(kind: Kind) -> float:
    """How sure the subfamily is of a name that says no purpose: sentence encoders are named for it, others are not."""
    return STATED if kind[1] in ("sentence_transformer", "chat_model", "document_qa") else 0.7


def _by_publisher(organisation: Sequence[str]) -> Analysis | None:
    joined = "".join(organisation)
    marker = find_marker(organisation)
    kind = ORGANISATIONS.get(joined) or (marker.kind if marker and marker.is_type else None)
    return kind and analysis(SOURCE, *kind, PUBLISHER, PUBLISHER, f"{joined!r} publishes such models")


def _by_purpose(tokens: Sequence[str]) -> Analysis | None:
    purpose = purpose_without_family(tokens)
    if purpose is None:
        return None
    # A masked language model that encodes for retrieval is published under the class of its pretraining.
    certainty = STATED if purpose.kind == SENTENCE else PURPOSE
    return analysis(SOURCE, *purpose.kind, PURPOSE, certainty, purpose.why)
