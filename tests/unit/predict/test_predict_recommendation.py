"""Scores, the order of candidates, what is never recommended; splitting a model over devices."""

from __future__ import annotations

import random
from typing import Any

import pytest

from pytest_hfaccel.predict.configuration import WEIGHTS
from pytest_hfaccel.predict.platforms import Platform
from pytest_hfaccel.predict.recommendation import Candidate, ranked, recommend, scores
from tests.unit.predict.predict_samples import GIB, prediction

REAL: dict[str, Any] = {"support": "real", "basis": "declared", "reason": "it does"}
INFERENCE = WEIGHTS["inference"]


def candidate(
    name: str,
    milliseconds: float | None = 10.0,
    mib: float | None = 1024.0,
    *,
    support: str = "real",
    fits: bool | None = True,
    present: bool = False,
    dtype: str = "fp32",
) -> Candidate:
    from dataclasses import replace

    platform = Platform(name, name.partition(":")[0], name, is_present=present, memory_bytes=16 * GIB)
    made = prediction(
        milliseconds, mib, fits=fits, details={"support": {**REAL, "support": support}}, advice="Too big."
    )
    return Candidate(platform, replace(made, question=replace(made.question, batch=4, dtype=dtype)))


def test_the_weights_of_the_guide() -> None:
    found = scores([candidate("a", 10.0, 4096.0), candidate("b", 20.0, 8192.0)], INFERENCE)
    assert found["a"]["score"] == pytest.approx(0.4 + 0.3 + 0.2 * 0.75 + 0.1)
    assert found["b"] == {
        "score": pytest.approx(0.4 * 0.5 + 0.3 * 0.5 + 0.2 * 0.5 + 0.1),
        "latency_score": pytest.approx(0.5),
        "throughput_score": pytest.approx(0.5),
        "memory_score": pytest.approx(0.5),
        "compatibility_score": 1.0,
    }
    training = scores([candidate("a", dtype="fp16"), candidate("b", 20.0, dtype="fp16")], WEIGHTS["training"])
    assert training["a"]["convergence_score"] == 0.5
    assert training["b"]["score"] == pytest.approx(0.4 * 0.5 + 0.3 * 0.5 + 0.2 * 15 / 16 + 0.1)


def test_other_weights_are_normalised() -> None:
    found = scores([candidate("a"), candidate("b", 20.0)], {"latency": 5.0})
    assert (found["a"]["score"], found["b"]["score"]) == (1.0, pytest.approx(0.5))


def test_the_faster_one_is_recommended() -> None:
    found = recommend([candidate("cpu", 20.0), candidate("cuda", 2.0), candidate("mps", 9.0)], INFERENCE, "Considered.")
    assert found["primary_recommendation"] == "cuda"
    assert found["fallback_options"] == ["mps", "cpu"]
    assert found["compatible_hardware"] == ["cuda", "mps", "cpu"]
    assert found["prediction_source"] == "calibrated"
    assert found["explanation"].startswith("cuda: 2.00 ms (1.80 ms to 2.20 ms), 2,000 samples/s, 1.00 GiB of 16.0 GiB")
    assert "the fastest of those considered" in found["explanation"]
    assert set(found["predictions"]) == {"cpu", "cuda", "mps"}
    numbers = found["predictions"]["cuda"]
    assert (numbers["throughput"], numbers["latency"], numbers["memory_usage"]) == (2000.0, 2.0, 1024.0)
    assert numbers["interval"]["throughput"] == [pytest.approx(4000 / 2.2), pytest.approx(4000 / 1.8)]


@pytest.mark.parametrize(
    ("changed", "why"), [({"fits": False}, "Too big."), ({"support": "failing"}, "declared failing: it does")]
)
def test_what_does_not_fit_or_run_is_left_out(changed: dict[str, Any], why: str) -> None:
    found = recommend([candidate("cuda", 1.0, **changed), candidate("cpu", 500.0)], INFERENCE, "")
    assert found["primary_recommendation"] == "cpu"
    assert found["fallback_options"] == []
    assert found["all_scores"]["cuda"] == {"score": 0.0, "excluded": why}
    assert why in found["explanation"]
    assert "the only one of those considered" in found["explanation"]


def test_nothing_can_run_it() -> None:
    found = recommend(
        [candidate("cuda", fits=False), candidate("cpu", support="unavailable")], INFERENCE, "Considered."
    )
    assert found["primary_recommendation"] is None
    assert found["compatible_hardware"] == []
    assert found["explanation"].startswith("No hardware considered can run it. Considered.")


def test_a_declaration_comes_after_every_number() -> None:
    found = recommend([candidate("webnn", None, None, fits=None), candidate("cpu", 1e6)], INFERENCE, "")
    assert found["compatible_hardware"] == ["cpu", "webnn"]
    assert set(found["not_predicted"]) == {"webnn"}
    assert "latency" not in found["not_predicted"]["webnn"]


def test_among_declarations_what_is_here_comes_first() -> None:
    candidates = [candidate("cuda", None, None, fits=None), candidate("cpu", None, None, fits=None, present=True)]
    assert recommend(candidates, INFERENCE, "")["primary_recommendation"] == "cpu"


def test_an_emulated_device_counts_less() -> None:
    found = scores([candidate("webgpu", support="emulated"), candidate("cpu")], INFERENCE)
    assert found["webgpu"]["compatibility_score"] == 0.5
    assert found["webgpu"]["score"] < found["cpu"]["score"]


@pytest.mark.parametrize("seed", range(50))
def test_whatever_is_offered_the_choice_can_run_it(seed: int) -> None:
    drawn = random.Random(seed)  # noqa: S311 - no secret
    candidates = [
        candidate(
            f"cuda:{number}",
            drawn.choice([None, drawn.uniform(0.1, 1e4)]),
            drawn.choice([None, drawn.uniform(1, 1e6)]),
            support=drawn.choice(["real", "real", "emulated", "failing", "unavailable"]),
            fits=drawn.choice([True, True, False, None]),
        )
        for number in range(drawn.randint(1, 6))
    ]
    found = recommend(candidates, INFERENCE, "")
    usable = {each.name for each in candidates if each.is_usable}
    assert set(found["compatible_hardware"]) == usable
    primary = found["primary_recommendation"]
    assert primary in usable if usable else primary is None
    assert len(found["fallback_options"]) == min(2, max(0, len(usable) - 1))
    assert set(found["all_scores"]) == {each.name for each in candidates}
    assert all(0.0 <= each["score"] <= 1.0 for each in found["all_scores"].values())
    order = ranked(candidates, found["all_scores"])
    numbered = [each.has_number for each in order]
    assert numbered == sorted(numbered, reverse=True)
