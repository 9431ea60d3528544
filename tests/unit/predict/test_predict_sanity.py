"""Sanity of predictions of really traced models: more work never takes less, larger models neither."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from pytest_hfaccel.predict import HardwareModelPredictor
from pytest_hfaccel.predict.calibration import save_calibration
from tests.unit.predict.predict_samples import CHIP, REPORT, even_calibration

pytestmark = [pytest.mark.slow, pytest.mark.nightly]

MODELS = ("gpt2", "t5-small", "google/vit-base-patch16-224", "openai/clip-vit-base-patch32", "openai/whisper-tiny")
HARDWARE = ("cpu", "cuda", "mps")
LARGER = (
    ("bert-tiny", "bert-mini", "bert-small", "bert-medium", "bert-base-uncased", "bert-large-uncased"),
    ("distilgpt2", "gpt2", "gpt2-medium"),
    ("t5-small", "t5-base"),
    ("whisper-tiny", "whisper-base", "whisper-small"),
)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HardwareModelPredictor]:
    """A machine with a calibrated CPU whose speed depends on the size in an uneven way, as real ones do."""
    folder = tmp_path_factory.mktemp("sanity")
    even = even_calibration("cpu", threads=4)
    ripple = (1.0, 1.35, 0.8, 1.1)
    uneven = tuple(
        replace(one, seconds=one.seconds * ripple[number % len(ripple)]) for number, one in enumerate(even.operators)
    )
    save_calibration(replace(even, device_name=CHIP, operators=uneven), folder / "cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HFACCEL_CACHE", str(folder / "cache"))
        patch.delenv("BENCHMARK_DB_PATH", raising=False)
        patch.chdir(folder)
        yield HardwareModelPredictor(report=REPORT)


def numbers(
    predictor: HardwareModelPredictor, model: str, hardware: str, batch: int, length: int
) -> tuple[float, float]:
    found = predictor.predict_performance(model, hardware=hardware, batch_size=batch, sequence_length=length)
    each = found["predictions"][hardware]
    assert each["source"] == ("learned" if hardware == "cpu" else "datasheet")
    return each["latency"], each["memory_usage"]


def never_fall(series: list[tuple[float, float]]) -> bool:
    return all(one[number] <= two[number] * (1 + 1e-9) for one, two in pairwise(series) for number in (0, 1))


@pytest.mark.parametrize("hardware", HARDWARE)
@pytest.mark.parametrize("model", MODELS)
def test_more_samples_or_tokens_never_take_less(predictor: HardwareModelPredictor, model: str, hardware: str) -> None:
    assert never_fall([numbers(predictor, model, hardware, batch, 64) for batch in (1, 2, 3, 4, 8, 12, 16)])
    assert never_fall([numbers(predictor, model, hardware, 2, length) for length in (32, 48, 64, 128)])


@pytest.mark.parametrize("hardware", HARDWARE)
@pytest.mark.parametrize("models", LARGER, ids=lambda models: str(models[-1]))
def test_larger_models_never_take_less(
    predictor: HardwareModelPredictor, models: tuple[str, ...], hardware: str
) -> None:
    assert never_fall([numbers(predictor, model, hardware, 1, 64) for model in models])
