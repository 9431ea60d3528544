"""The selector: hardware for a model, a task, all families, or a training on many devices."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from math import log
from pathlib import Path
from typing import Any

from pytest_hfaccel.classify import MODEL_FAMILIES
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.files import replace_file
from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.predict.configuration import MODES
from pytest_hfaccel.predict.distributed import GIB, Plan, split
from pytest_hfaccel.predict.engine import Task
from pytest_hfaccel.predict.hardware_model_predictor import AnyPath, HardwareModelPredictor

MAP_BATCHES = (1, 4, 16, 32, 64)
"""The batch sizes of a selection map; the guide's."""

MAP_FAMILIES = ("embedding", "text_generation", "vision", "audio", "multimodal")
"""The families of a selection map; the guide's."""

MAP_SIZES = {"small": 3e7, "medium": 1.1e8, "large": 3.5e8}
"""Parameters by size: the registered model of a family that is nearest to it (in proportion) stands for the size."""

_TRAINING_TASKS = frozenset({"training", "fine-tuning", "fine_tuning", "finetuning", "pretraining"})

_STRATEGIES: dict[str, Callable[[Plan], bool]] = {
    "DDP": lambda plan: plan.layout.shards == 0 and plan.layout.data == plan.layout.devices,
    "FSDP": lambda plan: plan.layout.shards == 3 and plan.layout.data == plan.layout.devices,
    "DeepSpeed": lambda plan: plan.layout.shards > 0 and plan.layout.data == plan.layout.devices,
    "tensor": lambda plan: plan.layout.tensor == plan.layout.devices,
    "pipeline": lambda plan: plan.layout.pipeline == plan.layout.devices,
}


class HardwareSelector:
    """Selects hardware; the same predictions as `HardwareModelPredictor`, in the selector's form."""

    def __init__(
        self,
        database_path: AnyPath | None = None,
        config_path: AnyPath | None = None,
        *,
        predictor: HardwareModelPredictor | None = None,
    ) -> None:
        self.predictor = predictor or HardwareModelPredictor(database_path=database_path, config_path=config_path)

    def select_hardware(
        self,
        model_family: str | None,
        model_name: str,
        batch_size: int = 1,
        sequence_length: int = 128,
        mode: str = "inference",
        precision: str = "fp32",
        available_hardware: Sequence[str] | None = None,
        distributed: bool = False,
        gpu_count: int = 1,
    ) -> dict[str, Any]:
        """Select hardware for a model; see `HardwareModelPredictor.predict_optimal_hardware`."""
        return self.predictor.predict_optimal_hardware(
            model_name,
            model_family,
            batch_size,
            sequence_length,
            mode,
            precision,
            available_hardware,
            distributed,
            gpu_count,
        )

    def select_hardware_for_task(
        self,
        model_family: str | None,
        model_name: str,
        task_type: str,
        batch_size: int = 1,
        sequence_length: int = 128,
        available_hardware: Sequence[str] | None = None,
        distributed: bool = False,
        gpu_count: int = 1,
        training_config: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Select hardware for a model and a task.

        Args:
            model_family: Its family, or `None`; this and the others as for `select_hardware`.
            model_name: Its name.
            task_type: `training` or `fine-tuning` for training, any other task for inference.
            batch_size: Samples; of all devices together when distributed.
            sequence_length: Tokens per sample of texts.
            available_hardware: Hardware to choose among.
            distributed: Whether `gpu_count` devices of a kind work together.
            gpu_count: How many.
            training_config: `mixed_precision` (bf16 where true), or `precision`.

        Returns:
            As `select_hardware`, with `task_type`, and for distributed training `distributed_strategy`.

        Raises:
            ConfigError: An argument is not among the allowed ones.
        """
        mode = "training" if task_type.strip().lower() in _TRAINING_TASKS else "inference"
        config = training_config or {}
        precision = str(config.get("precision") or ("bf16" if config.get("mixed_precision") else "fp32"))
        answer = self.select_hardware(
            model_family,
            model_name,
            batch_size,
            sequence_length,
            mode,
            precision,
            available_hardware,
            distributed,
            gpu_count,
        )
        strategy = (answer.get("distributed") or {}).get("strategy")
        return {**answer, "task_type": task_type, **({"distributed_strategy": strategy} if distributed else {})}

    def create_hardware_selection_map(
        self,
        model_families: Sequence[str] | None = None,
        batch_sizes: Sequence[int] | None = None,
        hardware_platforms: Sequence[str] | None = None,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> dict[str, Any]:
        """Select hardware for models of all families and sizes, for inference and training.

        Args:
            model_families: Families; the guide's by default.
            batch_sizes: Batch sizes for the medium model; the guide's by default.
            hardware_platforms: Hardware to choose among; that of this machine by default.
            progress: Called with the steps done, their number, and the next one.

        Returns:
            Plain JSON: `timestamp`, `hardware_platforms`, `batch_sizes`, `model_families` -> `model_sizes` -> `small`,
            `medium`, `large` -> `model`, and for `inference` and `training` `primary` and `fallbacks`; and
            `inference` and `training` -> `batch_sizes` -> the same for the medium model.

        Raises:
            ConfigError: There is no such family.
        """
        families = list(model_families or MAP_FAMILIES)
        unknown = [family for family in families if family not in MODEL_FAMILIES]
        if unknown:
            raise ConfigError(f"family: {unknown[0]!r} is not a family. Allowed: {', '.join(MODEL_FAMILIES)}.")
        batches = list(batch_sizes or MAP_BATCHES)
        found = {}
        for number, family in enumerate(families):
            if progress:
                progress(number, len(families), family)
            found[family] = self._family(family, batches, hardware_platforms)
        return {
            "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "hardware_platforms": list(hardware_platforms or self.predictor.available_hardware),
            "batch_sizes": batches,
            "model_families": found,
        }

    def save_selection_map(self, output_file: str | os.PathLike[str] = "hardware_selection_map.json") -> str:
        """Make a selection map of all families, write it as JSON and return the file.

        Raises:
            ConfigError: The file cannot be written.
        """
        path = Path(output_file).expanduser()
        text = json.dumps(self.create_hardware_selection_map(), indent=2)
        try:
            replace_file(path, text)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}.") from error
        return str(path)

    def get_distributed_training_config(
        self,
        model_family: str | None,
        model_name: str,
        gpu_count: int = 8,
        batch_size: int = 8,
        strategy: str | None = None,
        use_mixed_precision: bool = True,
        max_memory_gb: float | None = None,
        *,
        hardware: str = "cuda",
        sequence_length: int = 128,
    ) -> dict[str, Any]:
        """Return how to train a model on several devices.

        Args:
            model_family: Its family, or `None`.
            model_name: Its name.
            gpu_count: Devices.
            batch_size: Samples per device.
            strategy: `DDP`, `FSDP`, `DeepSpeed`, `tensor` or `pipeline`; the fastest that fits by default.
            use_mixed_precision: Whether to train in bf16 (fp16 where the device has no bf16) with fp32 copies.
            max_memory_gb: GB (2**30 bytes) of each device to use at most.
            hardware: The kind of device, or a chip.
            sequence_length: Tokens per sample of texts.

        Returns:
            Plain JSON: `distributed_strategy`, `gpu_count`, `per_gpu_batch_size`, `global_batch_size`,
            `mixed_precision`, `gradient_accumulation_steps`, `estimated_memory` (`parameters_gb, gradients_gb,
            optimizer_gb, activations_gb, per_gpu_gb, total_gb, available_gb`), `memory_optimizations`, `fits`,
            `throughput`, `explanation` and what `Split.to_json` has besides.

        Raises:
            ConfigError: An argument is not allowed, or the model's dimensions or its time there are not known.
        """
        if strategy is not None and strategy not in _STRATEGIES:
            raise ConfigError(f"strategy: {strategy!r} is not a strategy. Allowed: {', '.join(_STRATEGIES)}.")
        if gpu_count < 1 or batch_size < 1:
            raise ConfigError("gpu_count and batch_size: whole numbers, 1 or more, are wanted.")
        engine = self.predictor.engine
        platform = engine.platforms.of(hardware)
        speeds = platform.chip.flops if platform.chip else {}
        half = "fp16" if "fp16" in speeds and "bf16" not in speeds else "bf16"
        dtype = half if use_mixed_precision else "fp32"
        model = engine.models.find(model_name, model_family)
        length = engine.length_of(model, sequence_length, training=True)
        task = Task(batch_size * gpu_count, length, dtype, training=True)
        limit = round(max_memory_gb * GIB) if max_memory_gb else None
        found = split(engine, model, platform, task, gpu_count, limit)
        if found is None:
            raise ConfigError(f"{model_name}: its time on {platform.title} cannot be predicted. {model.origin}")
        plans = [plan for plan in found.plans if strategy is None or _STRATEGIES[strategy](plan)]
        if not plans:
            raise ConfigError(f"strategy: {model_name} cannot be split by {strategy!r} over {gpu_count} devices.")
        answer = replace(found, plans=plans).to_json()
        memory = answer["memory_per_device_gb"]
        copies = next((plan for plan in found.plans if plan.fits and _STRATEGIES["DDP"](plan)), None)
        return {
            "model_family": model.family or "unknown",
            "model_name": model_name,
            "hardware": platform.title,
            "distributed_strategy": answer["strategy"],
            **answer,
            "per_gpu_batch_size": batch_size,
            "mixed_precision": use_mixed_precision,
            "precision": dtype,
            "estimated_memory": {**memory, "total_gb": gpu_count * memory["per_gpu_gb"]},
            "memory_optimizations": _optimizations(answer),
            "replicated_throughput": copies.samples_per_second if copies else None,
        }

    def _family(self, family: str, batches: Sequence[int], hardware: Sequence[str] | None) -> dict[str, Any]:
        """Return the choices for a family's models of three sizes, and by batch for the medium one."""
        engine = self.predictor.engine
        members = [each for each in engine.registry.specs if engine.models.find(each.name).family == family]
        by_size = {
            size: min((each for each in members if each.parameters), key=partial(_distance, wanted=wanted)).name
            for size, wanted in MAP_SIZES.items()
            if any(each.parameters for each in members)
        }

        def choice(model: str, batch: int, mode: str) -> dict[str, Any]:
            found = self.select_hardware(family, model, batch, mode=mode, available_hardware=hardware)
            return {
                "primary": found["primary_recommendation"],
                "fallbacks": found["fallback_options"],
                "source": found["prediction_source"],
            }

        def by_batch(mode: str) -> dict[str, Any]:
            if not by_size:
                return {"batch_sizes": {}}
            medium = by_size["medium"]
            return {"model": medium, "batch_sizes": {str(batch): choice(medium, batch, mode) for batch in batches}}

        sizes = {
            size: {"model": name, **{mode: choice(name, 1, mode) for mode in MODES}} for size, name in by_size.items()
        }
        return {"model_sizes": sizes, **{mode: by_batch(mode) for mode in MODES}}


def _distance(spec: ModelSpec, wanted: float) -> float:
    return abs(log((spec.parameters or 1) / wanted))


def _optimizations(answer: Mapping[str, Any]) -> list[str]:
    """Name what the chosen way does to save memory."""
    stage = answer["zero_stage"]
    sharded = ("", "optimizer state", "and gradients", "gradients and weights")[stage]
    counts = {
        "gradient accumulation": answer["gradient_accumulation_steps"],
        "tensor parallelism": answer["tensor_parallel"],
        "pipeline parallelism": answer["pipeline_parallel"],
    }
    return [
        *([f"ZeRO stage {stage}: {sharded} sharded"] if stage else []),
        *(["activation checkpointing"] if answer["gradient_checkpointing"] else []),
        *(f"{name} x{count}" for name, count in counts.items() if count > 1),
    ]
