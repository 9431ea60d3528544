"""How to set up the pool for a set of models on a machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pytest_hfaccel.advisor.classifier import torch_device
from pytest_hfaccel.advisor.declared import KINDS
from pytest_hfaccel.advisor.machine import Machine
from pytest_hfaccel.advisor.requirements import MB, USABLE_SHARE

LOW_MEMORY_MB = 4096
"""Available memory below which the pool keeps to low-memory mode; from the ResourcePool guide."""
_SCARCE_SHARE = 0.2
_TIMEOUT, _LOW_MEMORY_TIMEOUT, _SCARCE_TIMEOUT = 30, 10, 5
"""Minutes after which unused models are dropped: usually, in low-memory mode, and when memory is scarce.

Scarce is less than the share above of all memory. All from the ResourcePool guide."""

_HOST = ("cpu", "openvino", "webnn", "webgpu", "mps")
"""Kinds of device whose models lie in main memory."""


def pool_config(machine: Machine, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return how to set up the pool.

    Args:
        machine: The machine the pool is on.
        answers: Classifications by `HardwareAwareModelClassifier.classify_model`.

    Returns:
        Plain JSON: `models` (by name), `resource_pool_config` (`low_memory_mode`, `recommended_timeout_mins`,
        `pool_memory`, the text for `HFACCEL_POOL_MEMORY`), `resource_requirements` (`max_memory_mb`, `total_memory_mb`,
        `disk_space_mb`, `unknown_models`; MB of 2**20 bytes), `hardware_recommendations` (`preferred_hardware`,
        `torch_device`, `by_model`), `explanation`, `source`.
    """
    needs = {answer["model_name"]: answer["resource_requirements"] for answer in answers}
    sizes = {name: each["recommended_memory_mb"] for name, each in needs.items() if each["recommended_memory_mb"]}
    by_model = {answer["model_name"]: answer["recommended_hardware"] for answer in answers}
    in_host = _together([needs[name] for name in sizes if by_model[name] in _HOST])
    available = machine.available_bytes // MB
    low = available < LOW_MEMORY_MB or in_host > USABLE_SHARE * available
    preferred = _preferred([kind for kind in by_model.values() if kind])
    return {
        "models": {answer["model_name"]: _summary(answer) for answer in answers},
        "resource_pool_config": {
            "low_memory_mode": low,
            "recommended_timeout_mins": _timeout(machine, low),
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
            "torch_device": torch_device(preferred) if preferred else None,
            "by_model": by_model,
        },
        "explanation": _explanation(low, available, in_host),
        "source": "requirements computed per model; thresholds of the ResourcePool guide",
    }


def _together(needs: Sequence[dict[str, Any]]) -> int:
    """Megabytes of models in one process: all weights, and what the neediest takes besides while it runs."""
    weights = [each.get("weights_mb") or each["min_memory_mb"] for each in needs]
    besides = [each["recommended_memory_mb"] - held for each, held in zip(needs, weights, strict=True)]
    return int(sum(weights) + max(besides, default=0))


def _preferred(kinds: Sequence[str]) -> str | None:
    """The kind that most models are recommended for; of equals the one that is preferred. `None` where none runs."""
    counted = Counter(kinds)
    return max(reversed(KINDS), key=lambda kind: (counted[kind], -KINDS.index(kind))) if kinds else None


def _timeout(machine: Machine, low: bool) -> int:
    if machine.total_bytes and machine.available_bytes < _SCARCE_SHARE * machine.total_bytes:
        return _SCARCE_TIMEOUT
    return _LOW_MEMORY_TIMEOUT if low else _TIMEOUT


def _summary(answer: dict[str, Any]) -> dict[str, Any]:
    keys = ("family", "subfamily", "recommended_hardware", "recommended_dtype", "dimensions", "model", "explanation")
    sizes = ("min_memory_mb", "recommended_memory_mb", "batch_size")
    return {key: answer[key] for key in keys} | {key: answer["resource_requirements"][key] for key in sizes}


def _explanation(low: bool, available: int, in_host: int) -> str:
    have = f"{available} MB of main memory are available; the models in it need {in_host} MB together"
    if not low:
        return f"{have}, which fits: no low-memory mode."
    scarce = f"less than {LOW_MEMORY_MB} MB are available"
    why = scarce if available < LOW_MEMORY_MB else f"that is more than {USABLE_SHARE:.0%} of what is available"
    return f"{have}: low-memory mode, because {why}."
