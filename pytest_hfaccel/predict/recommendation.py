"""Which hardware to recommend for a model: candidates, their scores, and the answer in the guide's structure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_hfaccel.core.devices import BROWSER_KINDS, HARDWARE_KINDS
from pytest_hfaccel.core.prediction import INTERVAL, Estimate, Prediction, Source
from pytest_hfaccel.predict.distributed import Split
from pytest_hfaccel.predict.platforms import Platform
from pytest_hfaccel.predict.support import RUNNING
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
    def latency_ms(self) -> Estimate | None:
        """Time of the whole batch."""
        return self.split.chosen.step_ms if self.split else self.prediction.latency_ms

    @property
    def throughput(self) -> Estimate | None:
        """Samples per second."""
        latency = self.latency_ms
        if latency is None:
            return None
        samples = 1e3 * self.prediction.question.batch
        return Estimate(samples / latency.value, samples / latency.high, samples / latency.low)

    @property
    def memory_mb(self) -> Estimate | None:
        """Peak on each device, in MiB."""
        if self.split is None:
            return self.prediction.memory_mb
        mib = self.split.chosen.memory.total / MIB
        return Estimate(mib, mib, 2 * mib)  # as `learning.memory` does where no overhead was measured

    @property
    def fits(self) -> bool | None:
        """Whether it fits; `None` where that is not known."""
        return self.split.chosen.fits if self.split else self.prediction.fits

    @property
    def support(self) -> dict[str, Any]:
        """What is declared or was measured of the model on this kind of hardware."""
        return dict(self.prediction.details.get("support") or {})

    @property
    def is_supported(self) -> bool:
        """Whether nothing known says that it does not run there."""
        return self.support.get("support", "real") in RUNNING

    @property
    def is_usable(self) -> bool:
        """Whether it can be recommended."""
        return self.is_supported and self.fits is not False

    @property
    def has_number(self) -> bool:
        """Whether time and memory are predicted."""
        return self.latency_ms is not None and self.memory_mb is not None

    @property
    def against(self) -> str:
        """What speaks against it, without a full stop; empty where nothing does."""
        if not self.is_supported:
            return (
                f"{self.support.get('basis', 'declared')} {self.support.get('support')}: {self.support.get('reason')}"
            )
        if self.fits is False:
            return self.split.to_json()["explanation"] if self.split else self.prediction.advice
        return ""

    def numbers(self) -> dict[str, Any]:
        """Return the prediction in the guide's form, with its intervals; numbers in samples/s, ms and MiB."""
        latency, throughput, memory = self.latency_ms, self.throughput, self.memory_mb
        if latency is None or throughput is None or memory is None:
            return {"memory_usage": memory.value if memory else None, **self._about()}
        return {
            "throughput": throughput.value,
            "latency": latency.value,
            "memory_usage": memory.value,
            "interval": {
                "level": INTERVAL,
                "throughput": _ends(throughput),
                "latency": _ends(latency),
                "memory_usage": _ends(memory),
            },
            **self._about(),
        }

    def _about(self) -> dict[str, Any]:
        found = self.prediction
        about = {
            "source": str(found.source),
            "basis": found.basis,
            "rows": found.rows,
            "fits": self.fits,
            "advice": found.advice if self.split is None else "",
            "device": self.platform.title,
            "device_memory": self.platform.memory_bytes / MIB if self.platform.memory_bytes else None,
            "is_present": self.platform.is_present,
            "passed_over": found.details.get("passed_over", {}),
            "support": self.support,
        }
        if self.split is not None:
            about["distributed"] = self.split.to_json()
        if self.platform.kind in BROWSER_KINDS and self.latency_ms is None:
            about["advice"] = "Runs in a browser: no number is predicted without a measured row of it."
        return about


def _ends(estimate: Estimate) -> list[float]:
    return [estimate.low, estimate.high]


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


_FALLBACKS = 2


def recommend(candidates: Sequence[Candidate], weights: Mapping[str, float], considered: str) -> dict[str, Any]:
    """Return the recommendation.

    Args:
        candidates: The hardware to choose among.
        weights: What counts how much.
        considered: Which hardware that is and why, a sentence.

    Returns:
        `primary_recommendation` (`None` where nothing can run it), `fallback_options` (at most two),
        `compatible_hardware`, `all_scores`, `explanation`, `prediction_source`, `predictions` and `not_predicted` by
        name of hardware.
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
    usable = [each for each in candidates if each.is_usable]
    reason = _reason(best, [each for each in usable if each.has_number], len(usable))
    absent = "" if best.platform.is_present else " It is not in this machine."
    rests_on = f"Based on: {_sentence(best.prediction.basis)}"
    return f"{_numbers(best)}{reason}.{absent}{others} {considered}{left_out} {rests_on}"


def _numbers(candidate: Candidate) -> str:
    latency, throughput, memory = candidate.latency_ms, candidate.throughput, candidate.memory_mb
    if latency is None or throughput is None or memory is None:
        return f"{candidate.platform.title} without a number"
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


def _reason(best: Candidate, others: Sequence[Candidate], usable: int) -> str:
    if len(others) < 2:
        return f", the only one of those considered {'whose time is known' if usable > 1 else 'that can run it'}"
    fastest = min(others, key=lambda each: each.latency_ms.value if each.latency_ms else float("inf"))
    if fastest is best:
        return ", the fastest of those considered"
    return f", the best in sum, although {fastest.platform.title} is faster"


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith(".") else f"{text}."
