"""The classifier: gathers what each kind of evidence says, and answers with one family."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pytest_hfaccel.classify.calibration import FAMILY, SUBFAMILY, choose_family, choose_subfamily, probability
from pytest_hfaccel.classify.class_evidence import (
    CLASS_SOURCE,
    HARDWARE_SOURCE,
    analyze_class,
    analyze_config,
    analyze_hardware,
)
from pytest_hfaccel.classify.database import ClassificationDatabase
from pytest_hfaccel.classify.definitions import MODEL_FAMILIES, MODEL_SUBFAMILIES
from pytest_hfaccel.classify.name_evidence import NAME_SOURCE, analyze_name, split_name
from pytest_hfaccel.classify.records import (
    UNKNOWN,
    Analysis,
    Classification,
    Families,
    HardwareProfile,
    Subfamilies,
    analysis,
    nothing,
)
from pytest_hfaccel.classify.term_evidence import analyze_keywords, analyze_terms
from pytest_hfaccel.core.errors import ConfigError

GENERAL_TEMPLATE = "hf_template.py"
"""For models of unknown family, and for families of the user's own."""

TEMPLATE_FOLDER = Path(__file__).parents[1] / "generator" / "templates"
"""Where the templates lie; a `jinja2.FileSystemLoader` over it finds every name given here."""

_TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "embedding": ("sentence_transformer", "token_classifier"),
    "text_generation": ("seq2seq", "chat_model"),
    "vision": ("object_detector", "segmentation", "depth_estimation"),
    "audio": ("audio_classifier", "text_to_speech"),
    "multimodal": ("image_text_encoder", "document_qa"),
    "video": ("video_text_encoder",),
    "time_series": (),
}
"""Families that have a template, made for their usual subfamily, and the subfamilies that have one of their own."""

_UNKNOWN_CONFIDENCE = 0.1
_OWN_KEYWORD = 0.97
"""Confidence in a whole keyword of a family the user defined: they said so."""
_LAST_RESORT = 0.65
"""Confidence in a keyword of a built-in family."""


class ModelFamilyClassifier:
    """Classifies models into families and subfamilies.

    Args:
        model_family_defs: The families to choose from, instead of `MODEL_FAMILIES`. Extend those with
            `{**MODEL_FAMILIES, "retrieval": {...}}`. Built-in knowledge of names and classes counts for the families
            that keep their built-in names.
        model_subfamily_defs: Subfamilies by family, instead of `MODEL_SUBFAMILIES`.
        model_db_path: JSON file in which classifications are kept; none are when it is not given.
    """

    def __init__(
        self,
        model_family_defs: Families | None = None,
        model_subfamily_defs: Subfamilies | None = None,
        model_db_path: str | os.PathLike[str] | None = None,
    ) -> None:
        self.model_families: Families = model_family_defs or MODEL_FAMILIES
        self.model_subfamilies: Subfamilies = model_subfamily_defs or MODEL_SUBFAMILIES
        self._database = ClassificationDatabase(model_db_path) if model_db_path else None
        self._own = {name: each for name, each in self.model_families.items() if each is not MODEL_FAMILIES.get(name)}

    def classify_model(
        self,
        model_name: str | os.PathLike[str],
        model_class: str | type | None = None,
        tasks: str | Sequence[str] | None = None,
        methods: str | Sequence[str] | None = None,
        hw_compatibility: HardwareProfile | None = None,
    ) -> Classification:
        """Classify a model by all that is known of it.

        With a database, a model given by name alone is answered from there when it is stored; an answer given more
        evidence is computed again and stored, and one of unknown family is not stored.

        Args:
            model_name: Hub id, local directory or any other name; may be empty.
            model_class: Architecture class, or its name, e.g. `GPT2LMHeadModel`.
            tasks: Task names, in any spelling; a single one may be given as it is.
            methods: Names of methods the model offers; likewise.
            hw_compatibility: Device kind -> `compatible` and `memory_usage.peak` in MB.

        Raises:
            ConfigError: An argument is of a type that says nothing, or the database cannot be written.
        """
        model_name = _name_of(model_name)
        model_class = model_class.__name__ if isinstance(model_class, type) else model_class
        if model_class is not None and not isinstance(model_class, str):
            raise ConfigError(f"model_class must be a class or the name of one, not {model_class!r}.")
        if hw_compatibility is not None and not isinstance(hw_compatibility, Mapping):
            raise ConfigError(
                f"hw_compatibility must be a dictionary by device kind, not {hw_compatibility!r}.",
                hint="For example {'cuda': {'compatible': True, 'memory_usage': {'peak': 1500}}}.",
            )
        by_name_alone = not (model_class or tasks or methods or hw_compatibility)
        stored = self._database.get(model_name) if self._database and by_name_alone else None
        if stored and stored["family"] in self.model_families:
            return {**stored, "source": "model_database"}
        # Strongest kind first. A class the caller names overrides the checkpoint's own: another head may be meant.
        config = None if model_class else analyze_config(model_name)
        analyses = [self._restrict(config)] if config else []
        if tasks:
            analyses.append(self.analyze_tasks(tasks))
        if model_class:
            analyses.append(self.analyze_model_class(model_class))
        if methods:
            analyses.append(self.analyze_methods(methods))
        analyses.append(self.analyze_model_name(model_name))
        if hw_compatibility:
            analyses.append(self.analyze_hardware_compatibility(hw_compatibility))
        answer = self._combine(model_name, analyses)
        if answer["family"] != UNKNOWN:
            self.update_model_db(model_name, answer)
        return answer

    def analyze_model_name(self, model_name: str) -> Analysis:
        """Say what the name stands for: own families first, then built-in knowledge, then keywords."""
        _, tokens = split_name(model_name)
        own = analyze_keywords(NAME_SOURCE, tokens, self._own, self.model_subfamilies, _OWN_KEYWORD)
        known = self._restrict(analyze_name(model_name))
        if own and own["confidence"] >= known["confidence"]:
            return own
        if known["family"]:
            return known
        last = analyze_keywords(NAME_SOURCE, tokens, self.model_families, self.model_subfamilies, _LAST_RESORT)
        return own or last or known

    def analyze_model_class(self, model_class: str) -> Analysis:
        """Say what an architecture class is for."""
        known = self._restrict(analyze_class(model_class))
        if known["family"] or not self._own:
            return known
        _, tokens = split_name(model_class)
        return analyze_keywords(CLASS_SOURCE, tokens, self._own, self.model_subfamilies, _OWN_KEYWORD) or known

    def analyze_tasks(self, tasks: str | Sequence[str]) -> Analysis:
        """Say which family serves these tasks."""
        return analyze_terms("tasks", _names_of("tasks", tasks), self.model_families, self.model_subfamilies)

    def analyze_methods(self, methods: str | Sequence[str]) -> Analysis:
        """Say which family has these methods."""
        return analyze_terms("methods", _names_of("methods", methods), self.model_families, self.model_subfamilies)

    def analyze_hardware_compatibility(self, hw_compatibility: HardwareProfile) -> Analysis:
        """Guess from where the model runs; the weakest evidence."""
        return self._restrict(analyze_hardware(hw_compatibility))

    def get_template_for_family(self, family: str | None, subfamily: str | None = None) -> str:
        """Return the file name of the template for a family; every one exists in `TEMPLATE_FOLDER`."""
        if family is None or family not in _TEMPLATES:
            return GENERAL_TEMPLATE
        return f"hf_{subfamily if subfamily in _TEMPLATES[family] else family}_template.py"

    def update_model_db(self, model_name: str, classification: Classification) -> None:
        """Store a classification; without a database nothing happens.

        Raises:
            ConfigError: The database cannot be written.
        """
        if self._database:
            self._database.put(model_name, classification)

    def _restrict(self, said: Analysis) -> Analysis:
        """Drop a family, or a subfamily, that is not among this classifier's."""
        family, subfamily = said["family"], said["subfamily"]
        if family is None:
            return said
        if family not in self.model_families:
            return nothing(said["source"], f"{said['reason']}: {family}, which is not one of the families")
        if subfamily is None or subfamily in self.model_subfamilies.get(family, {}):
            return said
        return analysis(said["source"], family, None, said["confidence"], 0.0, said["reason"])

    def _combine(self, model_name: str, analyses: list[Analysis]) -> Classification:
        chosen = choose_family(analyses)
        answer: Classification = {
            "model_name": model_name,
            "family": UNKNOWN,
            "subfamily": None,
            "confidence": _UNKNOWN_CONFIDENCE,
            "subfamily_confidence": 0.0,
            "source": "combined_analysis",
            "reason": "; ".join(each["reason"] for each in analyses),
            "analyses": analyses,
        }
        if chosen is None:
            return answer
        subfamily = choose_subfamily(analyses, chosen.name)
        confidence = min(probability(chosen.margin, FAMILY), _ceiling(analyses))
        certainty = probability(subfamily.margin, SUBFAMILY) if subfamily else 0.0
        return {
            **answer,
            "family": chosen.name,
            "subfamily": subfamily.name if subfamily else None,
            "confidence": round(confidence, 3),
            "subfamily_confidence": round(min(certainty, confidence), 3),
            "reason": next(each["reason"] for each in analyses if each["family"] == chosen.name),
        }


def _name_of(model_name: Any) -> str:
    if isinstance(model_name, str | os.PathLike):
        return os.fspath(model_name)
    raise ConfigError(
        f"model_name must be a hub id, a directory or any other name, not {model_name!r}.",
        hint="A model without a name is classified by model_name='' and its class, tasks or methods.",
    )


def _names_of(argument: str, given: Any) -> list[str]:
    """Take one name or several; a text is one name, not a sequence of letters."""
    names = [given] if isinstance(given, str) else given
    if isinstance(names, Sequence | set | frozenset) and all(isinstance(name, str) for name in names):
        return list(names)
    raise ConfigError(f"{argument} must be a name or a list of names, not {given!r}.")


def _ceiling(analyses: list[Analysis]) -> float:
    """A guess from the hardware alone stays one; the labels calibration was fitted on hold no such answers."""
    speaking = [each for each in analyses if each["family"]]
    if any(each["source"] != HARDWARE_SOURCE for each in speaking):
        return 1.0
    return max(each["confidence"] for each in speaking)


def classify_model(
    model_name: str | os.PathLike[str],
    model_class: str | type | None = None,
    tasks: str | Sequence[str] | None = None,
    methods: str | Sequence[str] | None = None,
    hw_compatibility: HardwareProfile | None = None,
    model_db_path: str | os.PathLike[str] | None = None,
) -> Classification:
    """Classify a model with the built-in families; see `ModelFamilyClassifier.classify_model`."""
    return _classifier(os.fspath(model_db_path) if model_db_path else None).classify_model(
        model_name, model_class, tasks, methods, hw_compatibility
    )


@cache
def _classifier(model_db_path: str | None) -> ModelFamilyClassifier:
    return ModelFamilyClassifier(model_db_path=model_db_path)
