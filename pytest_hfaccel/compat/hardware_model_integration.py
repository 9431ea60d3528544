"""The user's guide "hardware-model integration": what a model is, where it should run here, and what it needs there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.classify import MODEL_FAMILIES, UNKNOWN, ModelFamilyClassifier
from pytest_hfaccel.compat.model_placement import (
    LOW_MEMORY_BYTES,
    LOW_MEMORY_MINUTES,
    MAX_AGE_MINUTES,
    SCARCE_MINUTES,
    is_scarce,
)
from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.devices import TORCH_KINDS
from pytest_hfaccel.core.errors import ConfigError, HfAccelError
from pytest_hfaccel.core.presence import HardwareReport, Presence
from pytest_hfaccel.core.spec import Device
from pytest_hfaccel.core.tasks import TASKS
from pytest_hfaccel.hardware.cpu import Memory
from pytest_hfaccel.predict.configuration import WEIGHTS
from pytest_hfaccel.predict.engine import Engine, Task
from pytest_hfaccel.predict.measured_cells import Support
from pytest_hfaccel.predict.recommendation import Candidate, recommend
from pytest_hfaccel.predict.requirements import (
    DEFAULT_LENGTH,
    USABLE_SHARE,
    ArchitectureCost,
    Requirements,
    cost_of,
    requirements_on,
)
from pytest_hfaccel.predict.support import KINDS, CompatibilityMatrix
from pytest_hfaccel.predict.text import MIB
from pytest_hfaccel.tracing.trace import PRECISIONS

if TYPE_CHECKING:
    from pytest_hfaccel.core.prediction import Prediction
    from pytest_hfaccel.predict.naming import NamedModel
    from pytest_hfaccel.predict.platforms import Platform
    from pytest_hfaccel.registry import Registry

AnyPath = str | os.PathLike[str]

_DTYPES = {**dict.fromkeys(("cpu", "cuda", "rocm", "xpu"), ("fp32", "bf16")), "mps": ("fp32", "fp16")}
"""The dtypes tried on a kind of device until one fits; fp32 alone elsewhere, where a smaller one is not kept small."""

_REQUIREMENTS = ("min_memory_mb", "recommended_memory_mb", "cpu_cores", "disk_space_mb", "batch_size")
_NOT_KNOWN = "not known: neither the model's dimensions nor a class whose defaults could be assumed were found"

Override = Mapping[str, Mapping[str, Any]]
"""Kind of device -> what the caller says of it; believed over everything else."""


@dataclass(frozen=True)
class HardwareProfile:
    """What is known for and against a model on a kind of device.

    Attributes:
        device: What this machine has of that kind.
        support: Whether the model runs there.
        needs: What it needs there; `None` where its dimensions are not known.
        peak_mb: Peak memory with one sample, computed or given; `None` where neither.
        fits: Whether that fits the device; `None` where that is not known.
    """

    device: Presence
    support: Support
    needs: Requirements | None
    peak_mb: int | None
    fits: bool | None

    @property
    def kind(self) -> str:
        """The kind of device."""
        return self.device.device.kind

    @property
    def dtype(self) -> str:
        """The dtype the numbers are for."""
        return self.needs.dtype if self.needs else "fp32"

    def describe(self) -> str:
        """Say, without a full stop, what speaks for or against it."""
        parts = ["present" if self.device.present else f"not present ({self.device.reason})"]
        parts.append(f"{self.support.basis} {self.support.support}")
        if self.peak_mb is not None:
            verdict = {True: "fits", False: "does not fit", None: "its memory is not known"}[self.fits]
            dtype = f" at {self.needs.dtype}" if self.needs else ""
            parts.append(f"needs at least {self.peak_mb} MB{dtype}, {verdict}")
        return f"{self.kind}: {', '.join(parts)}"

    def to_json(self) -> dict[str, Any]:
        """Return the entry of `hardware_profile`, in the form overrides are given in."""
        return {
            "compatible": self.support.runs and self.fits is not False,
            "system_available": self.device.present,
            "fits": self.fits,
            "memory_usage": {"peak": self.peak_mb},
            **self.support.to_json(),
            "explanation": self.describe(),
        }

    def requirements(self) -> dict[str, Any]:
        """Return the resource requirements as plain JSON; what is not known is `None`."""
        if self.needs:
            return self.needs.to_json()
        given = {"min_memory_mb": self.peak_mb, "recommended_memory_mb": self.peak_mb} if self.peak_mb else {}
        source = "set by the caller's hardware profile" if given else _NOT_KNOWN
        sources = {name: source if name in given else _NOT_KNOWN for name in _REQUIREMENTS}
        return {**dict.fromkeys(_REQUIREMENTS), **given, "device": self.kind, "fits": None, "sources": sources}


class HardwareAwareModelClassifier:
    """Classifies models and says where they should run, what they need there, and why.

    Args:
        hardware_cache_path: File in which the detected hardware is kept; see `pytest_hfaccel.hardware`.
        model_db_path: JSON file in which classifications are kept; see `pytest_hfaccel.classify`.
        force_refresh: Detect the hardware anew, whatever the cache says.
        reports: Directory with the reports of earlier runs (default: `RunConfig`'s), for the compatibility matrix.
        registry: The models that are known (default: the shipped ones).
        machine: The devices to choose among (default: those of this machine). The details of its CPU have `cores`, and
            `available_bytes` of main memory.
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
        machine: HardwareReport | None = None,
        assume_default: bool = False,
    ) -> None:
        self._hardware_cache = hardware_cache_path
        self._families = ModelFamilyClassifier(model_db_path=model_db_path)
        self._force_refresh = force_refresh
        self._config = RunConfig.from_values({})
        self._reports = Path(reports) if reports is not None else self._config.reports_dir
        self._given_registry, self._given_machine = registry, machine
        self._assume_default = assume_default

    @cached_property
    def machine(self) -> HardwareReport:
        """The devices that the advice is about.

        Without a cache the cheap probes are believed (milliseconds). With one, each device counts only if its runtime
        confirmed it, and the confirmation is kept in that file (see `pytest_hfaccel.hardware.confirmed_report`).
        """
        from pytest_hfaccel.hardware import confirmed_report, probe_devices

        if self._given_machine is not None:
            return self._given_machine
        cache = self._hardware_cache
        return probe_devices() if cache is None else confirmed_report(cache, self._force_refresh)

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
        from pytest_hfaccel.predict.evidence import default_database

        return Engine(
            PredictorConfig(cache_dir=str(self._config.cache_dir), reports=str(self._reports)),
            default_database(None),
            report=self.machine,
            registry=self.registry,
            assume_default=self._assume_default,
        )

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
        cost = self._cost(model)
        profiles = {kind: self._profile(kind, model, cost, override.get(kind, {})) for kind in KINDS}
        return {
            **answer,
            "classification_source": answer["source"],
            **self._recommendation(model, profiles, asked, override),
            "recommended_template": self._families.get_template_for_family(answer["family"], answer["subfamily"]),
            "hardware_profile": {kind: profile.to_json() for kind, profile in profiles.items()},
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
        present = [kind for kind in KINDS if device_of_kind(self.machine, kind).present]
        kinds = _kinds(hardware, "hardware") or present
        return {kind: self._needs(kind, cost, dtype, model).to_json() for kind in kinds}

    def recommend_model_for_task(
        self, task: str, hardware_constraints: Sequence[str] | str | None = None, *, limit: int | None = None
    ) -> dict[str, Any]:
        """Recommend registered models for a task.

        Args:
            task: A task of `pytest_hfaccel.core.tasks.TASKS`, in any spelling.
            hardware_constraints: The kinds of device to choose among, present or not (default: those present).
            limit: How many to recommend at most.

        Returns:
            `task, hardware_constraints, recommendations, excluded, explanation, source`. The recommendations are
            classifications (see `classify_model`) of models that fit, those that were measured first, then in the
            order of the registry; `excluded` says of each other model why.

        Raises:
            ConfigError: There is no such task, or a kind of device is unknown.
        """
        asked = _kinds(hardware_constraints, "hardware_constraints")
        name = normalised_task(task)
        answers = {
            spec.name: {
                **self.classify_model(spec.name, spec.architecture, [spec.task], hardware=asked),
                "gated": spec.gated,
                "architecture": spec.architecture,
            }
            for spec in self.registry.specs
            if spec.task == name
        }
        fitting = [answer for answer in answers.values() if answer["recommended_hardware"]]
        fitting.sort(key=lambda each: each["hardware_profile"][each["recommended_hardware"]]["basis"] != "measured")
        chosen = fitting[:limit]
        where = ", ".join(asked) if asked else "the devices of this machine"
        return {
            "task": name,
            "hardware_constraints": asked,
            "recommendations": chosen,
            "excluded": {each: a["explanation"] for each, a in answers.items() if not a["recommended_hardware"]},
            "explanation": f"{len(chosen)} of {len(answers)} registered models for {name} are recommended for {where}.",
            "source": "the registry, filtered by support and by what fits",
        }

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
        """Return how to set up the pool for a set of models, as plain JSON.

        Returns:
            `models` (by name), `resource_pool_config` (`low_memory_mode`, `recommended_timeout_mins`, and as
            `pool_memory` the text for `HFACCEL_POOL_MEMORY`), `resource_requirements` (`max_memory_mb`,
            `total_memory_mb`, `disk_space_mb`, `unknown_models`; MB of 2**20 bytes), `hardware_recommendations`
            (`preferred_hardware`, `torch_device`, `by_model`), `explanation`, `source`.
        """
        names = [models] if isinstance(models, str) else models
        return _pool_config(self.machine, [self.classify_model(name) for name in names])

    def get_compatibility_matrix(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return family -> kind of device -> entry; each says whether it is declared or measured."""
        return self.matrix.by_family()

    def _cost(self, model: NamedModel) -> ArchitectureCost | None:
        if not model.architecture:
            return None
        try:
            return cost_of(model.architecture, model.dims, length=DEFAULT_LENGTH, cache_dir=self._engine.cache_dir)
        except HfAccelError:
            if model.requires_remote_code or model.is_assumed:
                return None  # its class is not transformers' own, or nothing but a guess
            raise

    def _needs(self, kind: str, cost: ArchitectureCost, dtype: str, model: NamedModel) -> Requirements:
        cores = device_of_kind(self.machine, "cpu").details.get("cores", 1)
        memory = device_of_kind(self.machine, kind).memory_bytes
        return requirements_on(kind, cost, dtype=dtype, memory_bytes=memory, cores=cores, origin=model.origin)

    def _predict(self, model: NamedModel, platform: Platform, dtype: str) -> Prediction:
        return self._engine.predict(model, platform, Task(dtype=dtype))

    def _profile(
        self, kind: str, model: NamedModel, cost: ArchitectureCost | None, said: Mapping[str, Any]
    ) -> HardwareProfile:
        """Return what is known at the first dtype that fits, else at the last one that runs there."""
        device, platform = device_of_kind(self.machine, kind), self._engine.platforms.of(kind)
        dtypes = [dtype for dtype in _DTYPES.get(kind, ("fp32",)) if platform.precision(dtype).runs]
        for dtype in dtypes:
            found = self._predict(model, platform, dtype)
            if not device.present or found.fits is not False:
                break
        needs = None
        if cost is not None:
            needs = self._needs(kind, cost, dtype, model)
            if device.present and found.fits is not None:
                needs = replace(needs, fits=found.fits)
        support = Support(**found.details["support"])
        if "compatible" in said:
            support = Support("real" if said["compatible"] else "unavailable", "override", "set by the caller")
        peak, fits = (needs.min_memory_mb, needs.fits) if needs else (None, None)
        given = (said.get("memory_usage") or {}).get("peak")
        if given is not None:
            peak = int(given)
            fits = None if device.memory_bytes is None else given * MIB <= USABLE_SHARE * device.memory_bytes
        return HardwareProfile(device, support, needs, peak, fits)

    def _candidate(
        self, model: NamedModel, name: str, profiles: Mapping[str, HardwareProfile], override: Override
    ) -> Candidate:
        """Return the predictor's candidate, in which the caller's word counts as it does in the profile."""
        platform = self._engine.platforms.of(name)
        profile = profiles[platform.kind]
        found = self._predict(model, platform, profile.dtype)
        if platform.kind in override:
            advice = found.advice or f"Needs {profile.peak_mb} MB by the caller's word, which does not fit."
            details = {**found.details, "support": profile.support.to_json()}
            found = replace(found, fits=profile.fits, advice=advice, details=details)
        return Candidate(platform, found)

    def _recommendation(
        self, model: NamedModel, profiles: Mapping[str, HardwareProfile], asked: Sequence[str], override: Override
    ) -> dict[str, Any]:
        """Return what the predictor recommends for one sample on the kinds asked for, else on the devices present."""
        names = list(asked) or [name for name in self._engine.platforms.present() if name.partition(":")[0] in KINDS]
        here = f"Considered: the devices of this machine ({', '.join(names)})."
        candidates = [self._candidate(model, name, profiles, override) for name in names]
        choice = recommend(candidates, WEIGHTS["inference"], "Considered: the hardware named." if asked else here)
        primary = choice["primary_recommendation"]
        kind = primary.partition(":")[0] if primary else None
        described = [
            each for each in profiles.values() if (each.kind in asked if asked else each.device.present)
        ] or list(profiles.values())
        shown = profiles.get(kind or "") or min(described, key=lambda each: (not each.support.runs, each.peak_mb or 0))
        return {
            "recommended_hardware": kind,
            "torch_device": _torch_device(kind),
            "recommended_dtype": shown.dtype,
            "resource_requirements": shown.requirements(),
            "dimensions": model.dimensions,
            "model": model.origin,
            "explanation": f"{choice['explanation']} {'; '.join(each.describe() for each in described)}.",
            "source": choice["prediction_source"] if kind else "no device considered can run it",
        }


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


def device_of_kind(machine: HardwareReport, kind: str) -> Presence:
    """Return what is known of a kind of device: of several present ones, of the GPU with the most memory."""

    def rank(presence: Presence) -> tuple[bool, bool, int]:
        return presence.present, presence.device.target.startswith("GPU"), presence.memory_bytes or 0

    absent = Presence(Device(kind), False, "not found on this machine")
    best = max((each for each in machine.presences if each.device.kind == kind), key=rank, default=absent)
    return best if best.present else replace(best, memory_bytes=None)


def _torch_device(kind: str | None) -> str | None:
    """Where the torch part of a model lies that runs on a kind of device."""
    return kind and (Device.parse(kind).torch_name if kind in TORCH_KINDS else "cpu")


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


_OTHER_NAMES = {
    "asr": "automatic-speech-recognition",
    "image-to-text": "image-text-to-text",
    "masked-lm": "fill-mask",
    "ner": "token-classification",
    "sentiment-analysis": "text-classification",
    "speech-recognition": "automatic-speech-recognition",
    "summarization": "text2text-generation",
    "translation": "text2text-generation",
    "visual-question-answering": "image-text-to-text",
}
"""Tasks that models registered under another one serve as well, and names the hub has dropped."""


def normalised_task(task: str) -> str:
    """Return the registry's name of a task.

    Raises:
        ConfigError: There is no such task; the message lists all.
    """
    if not isinstance(task, str):
        raise ConfigError(f"task: {task!r} is not a task.", hint=f"Allowed: {', '.join(TASKS)}.")
    spelled = "-".join(task.strip().lower().replace("_", " ").replace("-", " ").split())
    name = spelled if spelled in TASKS else _OTHER_NAMES.get(spelled, spelled)
    if name in TASKS:
        return name
    near = get_close_matches(name, TASKS, n=1)
    suggestion = f" Did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"{task!r} is not a task of the registry.{suggestion}", hint=f"Allowed: {', '.join(TASKS)}.")


_HOST = ("cpu", "openvino", "webnn", "webgpu", "mps")
"""Kinds of device whose models lie in main memory."""


def _pool_config(machine: HardwareReport, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    cpu = device_of_kind(machine, "cpu")
    memory = Memory(cpu.memory_bytes or 0, cpu.details.get("available_bytes", 0))
    needs = {answer["model_name"]: answer["resource_requirements"] for answer in answers}
    sizes = {name: each["recommended_memory_mb"] for name, each in needs.items() if each["recommended_memory_mb"]}
    by_model = {answer["model_name"]: answer["recommended_hardware"] for answer in answers}
    in_host = _together([needs[name] for name in sizes if by_model[name] in _HOST])
    available = memory.available_bytes // MIB
    is_low = memory.available_bytes < LOW_MEMORY_BYTES or in_host > USABLE_SHARE * available
    minutes = SCARCE_MINUTES if is_scarce(memory) else LOW_MEMORY_MINUTES if is_low else MAX_AGE_MINUTES
    # The kind that most models are recommended for; of equals the one that is preferred.
    counted = Counter(kind for kind in KINDS for recommended in by_model.values() if kind == recommended)
    preferred = next((kind for kind, _ in counted.most_common(1)), None)
    return {
        "models": {answer["model_name"]: _summary(answer) for answer in answers},
        "resource_pool_config": {
            "low_memory_mode": is_low,
            "recommended_timeout_mins": minutes,
            "pool_memory": f"{int(USABLE_SHARE * 100)}%",
        },
        "resource_requirements": {
            "max_memory_mb": max(sizes.values(), default=0),
            "total_memory_mb": _together([needs[name] for name in sizes]),
            "disk_space_mb": sum(each["disk_space_mb"] or 0 for each in needs.values()),
            "unknown_models": sorted(needs.keys() - sizes.keys()),
        },
        "hardware_recommendations": {
            "preferred_hardware": preferred,
            "torch_device": _torch_device(preferred),
            "by_model": by_model,
        },
        "explanation": _explanation(is_low, available, in_host),
        "source": "requirements computed per model; thresholds of the ResourcePool guide",
    }


def _together(needs: Sequence[dict[str, Any]]) -> int:
    """Megabytes of models in one process: all weights, and what the neediest takes besides while it runs."""
    weights = [each.get("weights_mb") or each["min_memory_mb"] for each in needs]
    besides = [each["recommended_memory_mb"] - held for each, held in zip(needs, weights, strict=True)]
    return int(sum(weights) + max(besides, default=0))


def _summary(answer: dict[str, Any]) -> dict[str, Any]:
    keys = ("family", "subfamily", "recommended_hardware", "recommended_dtype", "dimensions", "model", "explanation")
    sizes = ("min_memory_mb", "recommended_memory_mb", "batch_size")
    return {key: answer[key] for key in keys} | {key: answer["resource_requirements"][key] for key in sizes}


def _explanation(is_low: bool, available: int, in_host: int) -> str:
    have = f"{available} MB of main memory are available; the models in it need {in_host} MB together"
    if not is_low:
        return f"{have}, which fits: no low-memory mode."
    low = LOW_MEMORY_BYTES // MIB
    scarce, too_much = f"less than {low} MB are available", f"that is more than {USABLE_SHARE:.0%} of what is available"
    return f"{have}: low-memory mode, because {scarce if available < low else too_much}."
