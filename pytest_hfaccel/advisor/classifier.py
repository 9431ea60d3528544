"""What a model is, where it should run here, and what it needs there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.advisor.candidate import Candidate
from pytest_hfaccel.advisor.candidates import Candidates
from pytest_hfaccel.advisor.compatibility import CompatibilityMatrix
from pytest_hfaccel.advisor.costs import DEFAULT_LENGTH, cost_of
from pytest_hfaccel.advisor.declared import KINDS
from pytest_hfaccel.advisor.machine import Machine
from pytest_hfaccel.advisor.naming import NamedModel
from pytest_hfaccel.advisor.requirements import requirements_on
from pytest_hfaccel.classify import MODEL_FAMILIES, UNKNOWN
from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.tracing.trace import PRECISIONS

if TYPE_CHECKING:
    from pytest_hfaccel.classify import ModelFamilyClassifier
    from pytest_hfaccel.predict.engine import Engine
    from pytest_hfaccel.registry import Registry

AnyPath = str | os.PathLike[str]


class HardwareAwareModelClassifier:
    """Classifies models and says where they should run, what they need there, and why.

    Args:
        hardware_cache_path: File in which the detected hardware is kept; see `pytest_hfaccel.hardware`.
        model_db_path: JSON file in which classifications are kept; see `pytest_hfaccel.classify`.
        force_refresh: Detect the hardware anew, whatever the cache says.
        reports: Directory with the reports of earlier runs (default: `RunConfig`'s), for the compatibility matrix.
        registry: The models that are known (default: the shipped ones).
        machine: The machine to advise for (default: this one).
        assume_default: Whether a class's default config may stand in for a model whose dimensions are not known;
            without, such a model gets no numbers. Answers say which it was: `dimensions` is `known`, `assumed` or
            `unknown`.
    """

    def __init__(
        self,
        hardware_cache_path: AnyPath | None = None,
        model_db_path: AnyPath | None = None,
        force_refresh: bool = False,
        *,
        reports: AnyPath | None = None,
        registry: Registry | None = None,
        machine: Machine | None = None,
        assume_default: bool = False,
    ) -> None:
        self._hardware_cache = hardware_cache_path
        self._database = model_db_path
        self._force_refresh = force_refresh
        self._config = RunConfig.from_values({})
        self._reports = Path(reports) if reports is not None else self._config.reports_dir
        self._given_registry, self._given_machine = registry, machine
        self._assume_default = assume_default

    @cached_property
    def machine(self) -> Machine:
        """The machine the advice is for."""
        if self._given_machine is not None:
            return self._given_machine
        from pytest_hfaccel.advisor.detection import detect_machine

        return detect_machine(self._hardware_cache, force_refresh=self._force_refresh)

    @cached_property
    def registry(self) -> Registry:
        """The models that are known."""
        from pytest_hfaccel.registry import load_registry

        files = [Path(file) for file in self._config.registries]
        return self._given_registry or load_registry(files, cache_dir=self._config.cache_dir)

    @cached_property
    def matrix(self) -> CompatibilityMatrix:
        """Declared support, overwritten by the rows of the benchmark database and by the cells of earlier runs."""
        return self._engine.matrix

    @cached_property
    def _engine(self) -> Engine:
        from pytest_hfaccel.predict.configuration import PredictorConfig
        from pytest_hfaccel.predict.engine import Engine
        from pytest_hfaccel.predict.evidence import default_database

        return Engine(
            PredictorConfig(cache_dir=str(self._config.cache_dir), reports=str(self._reports)),
            default_database(None),
            report=self.machine.hardware,
            registry=self.registry,
            assume_default=self._assume_default,
        )

    @cached_property
    def _families(self) -> ModelFamilyClassifier:
        from pytest_hfaccel.classify import ModelFamilyClassifier

        return ModelFamilyClassifier(model_db_path=self._database)

    @cached_property
    def _candidates(self) -> Candidates:
        return Candidates(self.machine, self._engine)

    def classify_model(
        self,
        model_name: str,
        model_class: str | None = None,
        tasks: Sequence[str] | None = None,
        methods: Sequence[str] | None = None,
        hw_compat_override: Mapping[str, Mapping[str, Any] | bool] | None = None,
        hardware: Sequence[str] | str | None = None,
    ) -> dict[str, Any]:
        """Classify a model and recommend where to run it.

        Args:
            model_name: Registered name, local directory, hub id, or any name.
            model_class: Architecture class, e.g. `GPT2LMHeadModel`.
            tasks: Task names.
            methods: Names of methods the model offers.
            hw_compat_override: Kind of device -> `{"compatible": bool, "memory_usage": {"peak": MB}}`, or the bool
                alone; believed over what is declared or measured.
            hardware: The kinds of device to choose among, present or not (default: those present).

        Returns:
            The classification (`model_name, family, subfamily, confidence, analyses, ...`, see
            `pytest_hfaccel.classify.Classification`) with `recommended_hardware`, `torch_device`,
            `recommended_dtype`, `recommended_template`, `resource_requirements` (MB of 2**20 bytes, on the recommended
            hardware), `hardware_profile` (by kind of device), `dimensions` (`known`, `assumed` or `unknown`), `model`
            (where these are from), `explanation` and `source`. Where nothing considered can run it,
            `recommended_hardware` and `torch_device` are `None`, and the requirements are those of the device that
            lacks the least.

        Raises:
            ConfigError: `hardware` or the override names an unknown kind of device.
        """
        if not isinstance(model_name, str) or not model_name.strip():
            raise ConfigError(f"model_name: {model_name!r} is not the name of a model.")
        if isinstance(model_class, type):
            model_class = model_class.__name__
        asked = _kinds(hardware, "hardware")
        override = _override(hw_compat_override)
        answer = self._families.classify_model(model_name, model_class, tasks, methods, override or None)
        family = answer["family"] if answer["family"] in MODEL_FAMILIES else None
        model = self._engine.models.find(model_name, family, model_class)
        found = self._candidates.of(model, override)
        choice = self._candidates.recommend(model, found, asked, override)
        return {
            **answer,
            "classification_source": answer["source"],
            **_recommendation(choice, found, model, asked),
            "recommended_template": self._families.get_template_for_family(answer["family"], answer["subfamily"]),
            "hardware_profile": {each.kind: each.profile() for each in found},
        }

    def get_requirements(
        self,
        model_name: str,
        model_class: str | None = None,
        hardware: Sequence[str] | str | None = None,
        *,
        dtype: str = "fp32",
        length: int = DEFAULT_LENGTH,
    ) -> dict[str, dict[str, Any]]:
        """Return what a model needs, by kind of device.

        Args:
            model_name: Registered name, local directory or hub id.
            model_class: Architecture class to use instead of the checkpoint's own.
            hardware: Kinds of device, present or not (default: those present).
            dtype: dtype of weights and activations.
            length: Tokens per sample of texts.

        Raises:
            ConfigError: A kind of device or the dtype is unknown, nothing is known of the model's dimensions, or it
                takes fewer tokens.
            LoadError: transformers cannot build the model.
        """
        if dtype not in PRECISIONS:
            raise ConfigError(f"dtype: {dtype!r} is not a dtype. Allowed: {', '.join(PRECISIONS)}.")
        model = self._engine.models.find(model_name, model_class=model_class)
        if not model.architecture:
            raise ConfigError(
                f"{model_name}: {model.origin}.", hint="Name a registered model or a directory with a config.json."
            )
        cost = cost_of(model.architecture, model.dims, length=length, cache_dir=self._config.cache_dir)
        if cost.length < length and length > DEFAULT_LENGTH:
            raise ConfigError(f"length: {model_name} takes {cost.length} tokens at most, not {length}.")
        kinds = _kinds(hardware, "hardware") or self.machine.present
        return {
            kind: requirements_on(
                kind,
                cost,
                dtype=dtype,
                memory_bytes=self.machine.facts(kind).memory_bytes,
                cores=self.machine.cores,
                origin=model.origin,
            ).to_json()
            for kind in kinds
        }

    def recommend_model_for_task(
        self, task: str, hardware_constraints: Sequence[str] | str | None = None, **options: Any
    ) -> dict[str, Any]:
        """Recommend registered models for a task; see `advisor.recommendation.recommend`."""
        from pytest_hfaccel.advisor.recommendation import recommend

        return recommend(self, task, _kinds(hardware_constraints, "hardware_constraints"), **options)

    def get_compatible_models_for_hardware(self, models: Sequence[str] | str, hardware: str | None = None) -> list[str]:
        """Return the models that run on a kind of device and, where its memory is known, fit it.

        A model of which neither family nor dimensions are known is not among them.

        Args:
            models: Names of models. `get_compatible_models_for_hardware("cuda")` asks about all registered ones.
            hardware: Kind of device, present or not.

        Raises:
            ConfigError: The kind of device is unknown.
        """
        if hardware is None:
            if not isinstance(models, str):
                raise ConfigError("get_compatible_models_for_hardware: 'hardware' is missing.")
            hardware = models
            models = [spec.name for spec in self.registry.specs]
        names = [models] if isinstance(models, str) else models
        kind = _kinds([hardware], "hardware")[0]
        answers = {name: self.classify_model(name) for name in names}
        return [
            name
            for name, answer in answers.items()
            if answer["hardware_profile"][kind]["compatible"]
            and (answer["family"] != UNKNOWN or answer["dimensions"] != "unknown")
        ]

    def get_optimal_resource_pool_config(self, models: Sequence[str] | str) -> dict[str, Any]:
        """Return how to set up the pool for a set of models; see `advisor.pool_config.pool_config`."""
        from pytest_hfaccel.advisor.pool_config import pool_config

        names = [models] if isinstance(models, str) else models
        return pool_config(self.machine, [self.classify_model(name) for name in names])

    def get_compatibility_matrix(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return family -> kind of device -> entry; each says whether it is declared or measured."""
        return self.matrix.by_family(
            lambda architecture: str(self._families.analyze_model_class(architecture)["family"])
        )


def get_hardware_aware_model_classification(
    model_name: str,
    model_class: str | None = None,
    tasks: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    hw_compat_override: Mapping[str, Mapping[str, Any] | bool] | None = None,
    *,
    hardware_cache_path: AnyPath | None = None,
    model_db_path: AnyPath | None = None,
    force_refresh: bool = False,
) -> dict[str, Any]:
    """Classify a model and recommend where to run it; see `HardwareAwareModelClassifier.classify_model`."""
    classifier = HardwareAwareModelClassifier(hardware_cache_path, model_db_path, force_refresh)
    return classifier.classify_model(model_name, model_class, tasks, methods, hw_compat_override)


def torch_device(kind: str) -> str:
    """Return the torch device of a kind: where the torch part of a model on it lies."""
    return {"cuda": "cuda:0", "rocm": "cuda:0", "xpu": "xpu:0", "mps": "mps"}.get(kind, "cpu")


def _recommendation(
    choice: Mapping[str, Any], found: Sequence[Candidate], model: NamedModel, asked: Sequence[str]
) -> dict[str, Any]:
    primary = choice["primary_recommendation"]
    kind = primary.partition(":")[0] if primary else None
    described = [each for each in found if (each.kind in asked if asked else each.is_present)] or list(found)
    nearest = min(described, key=lambda each: (not each.support.runs, each.peak_mb or 0))
    shown = next((each for each in found if each.kind == kind), nearest)
    return {
        "recommended_hardware": kind,
        "torch_device": torch_device(kind) if kind else None,
        "recommended_dtype": shown.needs.dtype if shown.needs else "fp32",
        "resource_requirements": shown.requirements(),
        "dimensions": model.dimensions,
        "model": model.origin,
        "explanation": f"{choice['explanation']} {'; '.join(each.describe() for each in described)}.",
        "source": choice["prediction_source"] if kind else "no device considered can run it",
    }


def _override(said: Mapping[str, Mapping[str, Any] | bool] | None) -> dict[str, Mapping[str, Any]]:
    """Return what the caller says of kinds of device, a bool as the profile it stands for.

    Raises:
        ConfigError: A kind is unknown, or its value is neither a bool nor a profile.
    """
    said = said or {}
    for kind, value in said.items():
        if not isinstance(value, bool | Mapping):
            raise ConfigError(
                f"hw_compat_override: {kind}: {value!r} is not allowed. Wanted: true, false, or a profile as in "
                '{"compatible": true, "memory_usage": {"peak": 2000}}.'
            )
    profiles = [{"compatible": value} if isinstance(value, bool) else value for value in said.values()]
    return dict(zip(_kinds(list(said), "hw_compat_override"), profiles, strict=True))


def _kinds(kinds: Sequence[str] | str | None, option: str) -> list[str]:
    """Return kinds of device in lower case, without an index; one name alone means itself.

    Raises:
        ConfigError: One of them is not a name, or no kind of device.
    """
    names = [kinds] if isinstance(kinds, str) else list(kinds or ())
    for name in names:
        kind = name.lower().partition(":")[0] if isinstance(name, str) else ""
        if kind not in KINDS:
            raise ConfigError(f"{option}: {name!r} is not a kind of device. Allowed: {', '.join(KINDS)}.")
    return [name.lower().partition(":")[0] for name in names]
