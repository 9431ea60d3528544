"""Scores of candidates: how much better one piece of hardware is than another for a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pytest_hfaccel.core.devices import HARDWARE_KINDS
from pytest_hfaccel.predict.candidate import Candidate
from pytest_hfaccel.predict.words import MIB

_SUPPORT = {"real": 1.0, "untested": 0.75, "emulated": 0.5}

_UNKNOWN_MEMORY = 0.5
"""Score of a device whose memory is not known: neither for nor against it."""

_CONVERGENCE = {"fp32": 1.0, "bf16": 1.0, "fp16": 0.5}
"""How readily a training at a dtype converges: bf16 has the range of fp32; fp16 needs its loss scaled, or gradients
vanish (Micikevicius et al. 2018, arXiv 1710.03740). A property of the precision, so it is the same on all hardware."""


def scores(candidates: Sequence[Candidate], weights: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Return the score of each candidate by name, with its parts; those that cannot be recommended have 0 and a reason.

    Latency and throughput are relative to the best candidate, memory is the share of the device that stays free. A
    candidate without a predicted time has a score for what is known of support alone, so it comes after all others.

    Args:
        candidates: The candidates.
        weights: What counts how much, as in `configuration.WEIGHTS`; normalised to a sum of 1.
    """
    timed = [each for each in candidates if each.is_usable and each.has_number]
    best_latency = min((each.latency_ms.value for each in timed if each.latency_ms), default=1.0)
    best_throughput = max((each.throughput.value for each in timed if each.throughput), default=1.0)
    parts: dict[str, Callable[[Candidate], float]] = {
        "latency": lambda each: best_latency / each.latency_ms.value if each.latency_ms else 0.0,
        "throughput": lambda each: each.throughput.value / best_throughput if each.throughput else 0.0,
        "memory": _free_share,
        "compatibility": lambda each: _SUPPORT.get(str(each.support.get("support", "real")), 0.0),
        "convergence": lambda each: _CONVERGENCE.get(each.prediction.question.dtype, 0.0),
    }
    total = sum(weights.values()) or 1.0
    return {each.name: _score(each, parts, weights, total) for each in candidates}


def _score(
    candidate: Candidate,
    parts: Mapping[str, Callable[[Candidate], float]],
    weights: Mapping[str, float],
    total: float,
) -> dict[str, Any]:
    if not candidate.is_usable:
        return {"score": 0.0, "excluded": candidate.against}
    if not candidate.has_number:
        support = parts["compatibility"](candidate)
        return {"score": weights.get("compatibility", 0.0) / total * support, "compatibility_score": support}
    found = {name: parts[name](candidate) for name in weights}
    score = sum(weight * found[name] for name, weight in weights.items()) / total
    return {"score": score, **{f"{name}_score": value for name, value in found.items()}}


def _free_share(candidate: Candidate) -> float:
    memory, have = candidate.memory_mb, candidate.platform.memory_bytes
    if memory is None or have is None:
        return _UNKNOWN_MEMORY
    return max(0.0, 1.0 - memory.value * MIB / have)


def ranked(candidates: Sequence[Candidate], found: Mapping[str, Mapping[str, Any]]) -> list[Candidate]:
    """Return the candidates that can be recommended, the best first: those with numbers, then those that are here.

    What is left equal is in the order in which a detection prefers kinds of hardware.
    """
    usable = [each for each in candidates if each.is_usable]
    return sorted(
        usable,
        key=lambda each: (
            not each.has_number,
            -found[each.name]["score"],
            not each.platform.is_present,
            HARDWARE_KINDS.index(each.platform.kind) if each.platform.kind in HARDWARE_KINDS else len(HARDWARE_KINDS),
        ),
    )
