"""Which hardware to recommend for a model: candidates, their scores, and the answer in the guide's structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pytest_hfaccel.core.devices import HARDWARE_KINDS
from pytest_hfaccel.core.prediction import INTERVAL, Estimate, Prediction, Source
from pytest_hfaccel.predict.distributed import Split
from pytest_hfaccel.predict.measured_cells import RUNNING
from pytest_hfaccel.predict.platforms import Platform
from pytest_hfaccel.predict.text import MIB, memory_text, rate_text, time_text


@dataclass(frozen=True)
class Candidate:
    """A model on a piece of hardware.

    Attributes:
        platform: The hardware.
        prediction: What is predicted there, on one device.
        split: How the model is split over several devices of the kind; `None` on one device.
    """

    platform: Platform
    prediction: Prediction
    split: Split | None = None

    @property
    def name(self) -> str:
        """The name of the hardware, as the user wrote it."""
        return self.platform.name

    @property
    def whole(self) -> Prediction:
        """What is predicted on all devices together: time of the whole batch, peak memory and fit of each device."""
        if self.split is None:
            return self.prediction
        chosen = self.split.chosen
        # The interval of the memory is as wide as where no overhead was measured (`requirements.memory_of`).
        memory = Estimate.between(chosen.memory.total / MIB, 1, 2)
        return replace(self.prediction, latency_ms=chosen.step_ms, memory_mb=memory, fits=chosen.fits, advice="")

    @property
    def numbers_known(self) -> tuple[Estimate, Estimate, Estimate] | None:
        """Time in ms, throughput in samples/s and memory in MiB; `None` where one of them is not known."""
        found = self.whole
        if found.latency_ms is None or found.throughput is None or found.memory_mb is None:
            return None
        return found.latency_ms, found.throughput, found.memory_mb

    @property
    def has_number(self) -> bool:
        """Whether time and memory are predicted."""
        return self.numbers_known is not None

    @property
    def support(self) -> dict[str, Any]:
        """What is declared or was measured of the model on this kind of hardware."""
        return dict(self.prediction.details.get("support") or {})

    @property
    def against(self) -> str:
        """What speaks against it, without a full stop; empty where nothing does."""
        support = self.support
        if support.get("support", "real") not in RUNNING:
            return f"{support.get('basis', 'declared')} {support.get('support')}: {support.get('reason')}"
        if self.whole.fits is False:
            return self.split.explanation if self.split else self.prediction.advice
        return ""

    @property
    def is_usable(self) -> bool:
        """Whether it can be recommended."""
        return self.support.get("support", "real") in RUNNING and self.whole.fits is not False

    def numbers(self) -> dict[str, Any]:
        """Return the prediction in the guide's form, with its intervals; numbers in samples/s, ms and MiB."""
        found, platform = self.whole, self.platform
        numbers: dict[str, Any] = {"memory_usage": found.memory_mb.value if found.memory_mb else None}
        if self.numbers_known:
            latency, throughput, memory = self.numbers_known
            by_name = {"throughput": throughput, "latency": latency, "memory_usage": memory}
            numbers = {name: each.value for name, each in by_name.items()}
            ends = {name: [each.low, each.high] for name, each in by_name.items()}
            numbers["interval"] = {"level": INTERVAL, **ends}
        return {
            **numbers,
            "source": str(found.source),
            "basis": found.basis,
            "rows": found.rows,
            "fits": found.fits,
            "advice": found.advice,
            "device": platform.title,
            "device_memory": platform.memory_bytes / MIB if platform.memory_bytes else None,
            "is_present": platform.is_present,
            "passed_over": found.details.get("passed_over", {}),
            "support": self.support,
            **({"distributed": self.split.to_json()} if self.split else {}),
        }


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
    known = [each.numbers_known for each in candidates if each.is_usable]
    best_latency = min((each[0].value for each in known if each), default=1.0)
    best_throughput = max((each[1].value for each in known if each), default=1.0)
    total = sum(weights.values()) or 1.0
    found: dict[str, dict[str, Any]] = {}
    for each in candidates:
        support = _SUPPORT.get(str(each.support.get("support", "real")), 0.0)
        if not each.is_usable:
            found[each.name] = {"score": 0.0, "excluded": each.against}
        elif each.numbers_known is None:
            score = weights.get("compatibility", 0.0) / total * support
            found[each.name] = {"score": score, "compatibility_score": support}
        else:
            latency, throughput, memory = each.numbers_known
            have = each.platform.memory_bytes
            parts = {
                "latency": best_latency / latency.value,
                "throughput": throughput.value / best_throughput,
                "memory": max(0.0, 1.0 - memory.value * MIB / have) if have else _UNKNOWN_MEMORY,
                "compatibility": support,
                "convergence": _CONVERGENCE.get(each.prediction.question.dtype, 0.0),
            }
            score = sum(weight * parts[name] for name, weight in weights.items()) / total
            found[each.name] = {"score": score, **{f"{name}_score": parts[name] for name in weights}}
    return found


def ranked(candidates: Sequence[Candidate], found: Mapping[str, Mapping[str, Any]]) -> list[Candidate]:
    """Return the candidates that can be recommended, the best first: those with numbers, then those that are here.

    What is left equal is in the order in which a detection prefers kinds of hardware.
    """
    return sorted(
        (each for each in candidates if each.is_usable),
        key=lambda each: (
            not each.has_number,
            -found[each.name]["score"],
            not each.platform.is_present,
            HARDWARE_KINDS.index(each.platform.kind) if each.platform.kind in HARDWARE_KINDS else len(HARDWARE_KINDS),
        ),
    )


_FALLBACKS = 2


def recommend(candidates: Sequence[Candidate], weights: Mapping[str, float], considered: str) -> dict[str, Any]:
    """Return the recommendation.

    Returns:
        `primary_recommendation` (`None` where nothing can run it), `fallback_options` (at most two),
        `compatible_hardware`, `all_scores`, `explanation`, `prediction_source`, and what `numbers_of` returns.
    """
    found = scores(candidates, weights)
    order = ranked(candidates, found)
    best = order[0] if order else None
    return {
        "primary_recommendation": best.name if best else None,
        "fallback_options": [each.name for each in order[1 : 1 + _FALLBACKS]],
        "compatible_hardware": [each.name for each in order],
        "all_scores": found,
        "explanation": _explanation(best, order[1 : 1 + _FALLBACKS], candidates, considered),
        "prediction_source": str(best.prediction.source) if best else str(Source.DECLARED),
        **numbers_of(candidates),
    }


def numbers_of(candidates: Sequence[Candidate]) -> dict[str, dict[str, Any]]:
    """Return the numbers by name of hardware: `predictions`, and `not_predicted` where time or memory is not known."""
    return {
        "predictions": {each.name: each.numbers() for each in candidates if each.has_number},
        "not_predicted": {each.name: each.numbers() for each in candidates if not each.has_number},
    }


def _explanation(
    best: Candidate | None, next_best: Sequence[Candidate], candidates: Sequence[Candidate], considered: str
) -> str:
    against = [f"{each.platform.title}: {each.against}" for each in candidates if not each.is_usable]
    left_out = f" Left out: {' '.join(_sentence(why) for why in against)}" if against else ""
    if best is None:
        return f"No hardware considered can run it. {considered}{left_out}"
    if not best.has_number:
        first = f"{best.platform.title} is the first of those that are declared to run it"
        return f"{first}; {_sentence(best.prediction.basis)} {considered}{left_out}"
    others = f" Next: {'; '.join(map(_numbers, next_best))}." if next_best else ""
    reason = _reason(best, [each for each in candidates if each.is_usable])
    absent = "" if best.platform.is_present else " It is not in this machine."
    rests_on = f"Based on: {_sentence(best.prediction.basis)}"
    return f"{_numbers(best)}{reason}.{absent}{others} {considered}{left_out} {rests_on}"


def _numbers(candidate: Candidate) -> str:
    if candidate.numbers_known is None:
        return f"{candidate.platform.title} without a number"
    latency, throughput, memory = candidate.numbers_known
    how = ""
    if candidate.split is not None:
        layout = candidate.split.chosen.layout
        how = f" with {layout.strategy(training=candidate.split.training)} on {layout.devices} devices"
    have = candidate.platform.memory_bytes
    room = f" of {memory_text(have / MIB)}" if have else ""
    each = " each" if candidate.split else ""
    return (
        f"{candidate.platform.title}{how}: {time_text(latency.value)} ({time_text(latency.low)} to "
        f"{time_text(latency.high)}), {rate_text(throughput.value)}, {memory_text(memory.value)}{room}{each} "
        f"[{candidate.prediction.source}]"
    )


def _reason(best: Candidate, usable: Sequence[Candidate]) -> str:
    timed = {each.name: each.numbers_known[0].value for each in usable if each.numbers_known}
    if len(timed) < 2:
        return f", the only one of those considered {'whose time is known' if len(usable) > 1 else 'that can run it'}"
    fastest = min(timed, key=timed.__getitem__)
    if fastest == best.name:
        return ", the fastest of those considered"
    title = next(each.platform.title for each in usable if each.name == fastest)
    return f", the best in sum, although {title} is faster"


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith(".") else f"{text}."
