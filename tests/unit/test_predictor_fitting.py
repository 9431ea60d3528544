"""Whether a model fits, and what would fit instead."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_hfaccel.core.prediction import Estimate, Prediction
from pytest_hfaccel.predict.platforms import Platform
from pytest_hfaccel.predict.requirements.memory import with_fit
from tests.unit.predictor_samples import GIB, prediction, question

GPU = Platform("cuda", "cuda", "cuda:x", memory_bytes=16 * GIB, memory_source="of its data sheet")


def asked(mib: float, **changed: object) -> Prediction:
    return prediction(question=question(device="cuda:x", **changed), memory_mb=Estimate(mib, 0.8 * mib, 1.2 * mib))


def memory_at(batch: int, dtype: str) -> float:
    """Half a gigabyte per sample in fp32, half of that in fewer bits, a quarter in int8."""
    return {"fp32": 512.0, "bf16": 256.0, "fp16": 256.0, "int8": 128.0}[dtype] * batch


def test_it_fits() -> None:
    found = with_fit(asked(8 * 1024), GPU, memory_at)
    assert found.fits is True
    assert found.advice == ""
    assert found.details["device_memory_mb"] == 16 * 1024
    assert found.details["device_memory_source"] == "of its data sheet"


def test_it_nearly_does_not_fit() -> None:
    found = with_fit(asked(15 * 1024), GPU, memory_at)
    assert found.fits is True
    assert found.advice == "It may just not fit: up to 18.0 GiB are possible, of 16.0 GiB."


def test_it_does_not_fit_and_what_would() -> None:
    found = with_fit(asked(32 * 1024, batch=64), GPU, memory_at)
    assert found.fits is False
    assert found.advice == (
        "Does not fit: needs 32.0 GiB at fp32 and batch 64, of 16.0 GiB. Would fit: bf16 (16.0 GiB); "
        "batch 32 (16.0 GiB); 3 such devices among which the model is split (10.7 GiB each)."
    )


@pytest.mark.parametrize(
    ("changed", "offered", "not_offered"),
    [
        ({"batch": 120}, "int8 (15.0 GiB, quantized weights)", "bf16 ("),
        ({"batch": 120, "training": True}, "batch 30 (15.0 GiB)", "int8"),
        ({"batch": 1}, "such devices", "batch "),
    ],
)
def test_only_what_fits_is_offered(changed: dict[str, object], offered: str, not_offered: str) -> None:
    advice = with_fit(asked(60 * 1024, **changed), GPU, memory_at).advice.partition("Would fit")[2]
    assert offered in advice
    assert not_offered not in advice


def test_a_cpu_is_not_split() -> None:
    cpu = replace(GPU, kind="cpu", device="cpu", name="cpu")
    found = with_fit(prediction(memory_mb=Estimate(2.0**20, 2.0**20, 2.0**20)), cpu, lambda *_: None)
    assert found.advice == "Does not fit: needs 1,024 GiB at fp32 and batch 1, of 16.0 GiB."


def test_what_is_not_known_is_not_judged() -> None:
    assert with_fit(asked(1.0), replace(GPU, memory_bytes=None), memory_at).fits is None
    assert with_fit(prediction(mib=None), GPU, memory_at).fits is None
