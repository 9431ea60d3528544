"""Which hardware to recommend for a model, in the guide's structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_hfaccel.predict.candidate import Candidate
from pytest_hfaccel.predict.prediction import Source
from pytest_hfaccel.predict.scoring import ranked, scores
from pytest_hfaccel.predict.words import MIB, memory_text, rate_text, time_text

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
    rests_on = f"Rests on: {_sentence(best.prediction.basis)}"
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
