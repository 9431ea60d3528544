"""Predictions are kept, and held against what is measured later; calibrations and trained models are found again."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.core.prediction import Source
from pytest_hfaccel.history import BenchmarkDatabase, StoredModel
from tests.unit.history.store_samples import CALIBRATION, FULL, MEASURED, TINY, prediction, record

BEFORE, AFTER = "2026-01-31T11:00:00", "2026-01-31T13:00:00"
"""The samples' run goes from 12:00:00 to 12:00:30, UTC."""


@pytest.fixture
def database(tmp_path: Path) -> BenchmarkDatabase:
    return BenchmarkDatabase(tmp_path / "a.duckdb")


def test_a_prediction_is_held_against_what_was_measured_later(database: BenchmarkDatabase) -> None:
    database.save_predictions([prediction()], created_at=BEFORE, git_commit="abc")
    assert database.accuracy().empty
    database.write_run(record())
    latency, memory = database.accuracy().to_dict("records")
    assert (latency["metric"], latency["predicted"], latency["measured"]) == ("latency_ms", 5.0, 4.0)
    assert latency["relative_error"] == pytest.approx(0.25)
    assert latency["inside_interval"]
    assert (latency["device"], latency["device_name"], latency["family"]) == ("cpu", "AMD EPYC", "embedding")
    assert (latency["model"], latency["source"]) == ("bert-base-uncased", "calibrated")
    assert (memory["metric"], memory["predicted"]) == ("memory_mb", 512.0)
    assert memory["measured"] == pytest.approx(512.0, abs=1e-5)
    assert not memory["inside_interval"]


def test_what_was_known_already_is_no_prediction(database: BenchmarkDatabase) -> None:
    database.write_run(record())
    database.save_predictions([prediction()], created_at=AFTER)
    assert database.accuracy().empty


@pytest.mark.parametrize(
    "change",
    [
        {"model": "bert-large-uncased"},
        {"model": ""},
        {"architecture": "BertModel"},
        {"device": "cuda"},
        {"batch": 4},
        {"length": 64},
        {"dtype": "bf16"},
        {"training": True},
    ],
)
def test_the_answer_to_another_question_is_not_compared(database: BenchmarkDatabase, change: dict[str, Any]) -> None:
    other = prediction(question=replace(prediction().question, **change))
    database.save_predictions([other], created_at=BEFORE)
    database.write_run(record())
    assert database.accuracy().empty


@pytest.mark.parametrize("change", [{"weights": "tiny"}, {"implementation": "emulated"}])
def test_what_says_nothing_about_the_model_is_not_compared(database: BenchmarkDatabase, change: dict[str, Any]) -> None:
    database.save_predictions([prediction()], created_at=BEFORE)
    database.write_run(record(measurements=[replace(MEASURED, **change)]))
    assert database.accuracy().empty


@pytest.mark.parametrize(
    ("said", "compared"),
    [
        ({"device_name": "AMD EPYC"}, True),
        ({"device_name": "Intel Xeon"}, False),
        ({"threads": 2}, True),
        ({"threads": 1}, False),
    ],
)
def test_another_chip_or_number_of_threads_is_not_compared(
    database: BenchmarkDatabase, said: dict[str, Any], compared: bool
) -> None:
    database.save_predictions([prediction()], created_at=BEFORE, **said)
    database.save_predictions([prediction(source=Source.LEARNED, details=said)], created_at=BEFORE, device_name="x")
    database.write_run(record())
    sources = set(database.accuracy().source)
    assert ("calibrated" in sources) == compared
    assert ("learned" in sources) == (compared and "device_name" in said)


def test_a_device_is_predicted_by_its_kind_or_by_its_id(database: BenchmarkDatabase) -> None:
    question = replace(prediction().question, model=FULL.model, architecture=FULL.architecture, dtype="fp16")
    real = replace(FULL, implementation="real", mode="inference")
    for device in ("cuda", "cuda:0", "cuda:1"):
        database.save_predictions([prediction(question=replace(question, device=device))], created_at=BEFORE)
    database.write_run(record(measurements=[real], cells=[]))
    # Of several predictions of one source the last one before the measurement counts.
    assert set(database.accuracy().prediction_id) == {2}
    assert set(database.accuracy().device) == {"cuda:0"}


def test_the_last_prediction_of_each_source_counts(database: BenchmarkDatabase) -> None:
    for hour, source in ((1, Source.DATASHEET), (2, Source.CALIBRATED), (3, Source.CALIBRATED)):
        database.save_predictions([prediction(source=source)], created_at=f"2026-01-31T0{hour}:00:00")
    database.write_run(record())
    found = database.accuracy()
    assert sorted(set(found.prediction_id)) == [1, 3]


def test_a_prediction_without_numbers_is_kept_but_not_compared(database: BenchmarkDatabase) -> None:
    none = prediction(latency_ms=None, memory_mb=None, source=Source.DECLARED, fits=False, advice="Use bf16.")
    database.save_predictions([none], created_at=BEFORE)
    database.write_run(record())
    assert database.accuracy().empty
    row = database.frame("predictions").iloc[0]
    assert (row.source, row.advice, bool(row.fits)) == ("declared", "Use bf16.", False)


def test_a_prediction_is_kept_with_what_it_rests_on(database: BenchmarkDatabase) -> None:
    [number] = database.save_predictions([prediction(rows=7, details={"matmul": 0.5})], git_commit="abc")
    row = database.frame("predictions").iloc[0]
    assert (row.prediction_id, row.basis, row.measured_rows) == (number, "a calibration of 2026-01-31", 7)
    assert (row.latency_low_ms, row.latency_high_ms, row.git_commit) == (3.0, 6.0, "abc")
    assert json.loads(row.details) == {"matmul": 0.5}


def test_the_newest_calibration_comes_first(database: BenchmarkDatabase) -> None:
    for day in (2, 3, 1):
        database.save_calibration({**CALIBRATION, "taken": f"2026-02-0{day}T00:00:00+00:00"})
    found = database.calibrations(device="cpu", device_name="AMD EPYC", dtype="fp32", threads=2)
    assert [each["taken"][:10] for each in found] == ["2026-02-03", "2026-02-02", "2026-02-01"]
    assert found[0] == {**CALIBRATION, "taken": "2026-02-03T00:00:00+00:00"}


@pytest.mark.parametrize("other", [{"device": "cuda:0"}, {"device_name": "x"}, {"dtype": "bf16"}, {"threads": 1}])
def test_calibrations_are_filtered(database: BenchmarkDatabase, other: dict[str, Any]) -> None:
    database.save_calibration(CALIBRATION)
    assert database.calibrations(**other) == []


def test_an_object_with_a_json_form_is_a_calibration(database: BenchmarkDatabase) -> None:
    class Taken:
        def to_json(self) -> dict[str, Any]:
            return CALIBRATION

    database.save_calibration(Taken())
    assert database.calibrations() == [CALIBRATION]


def test_the_newest_prediction_model_of_a_name_is_loaded(database: BenchmarkDatabase) -> None:
    payload = bytes(range(256))
    for day in (2, 1):
        database.save_prediction_model(
            "latency",
            payload + bytes([day]),
            rows=day,
            metrics={"mape": 0.09, "bad": float("nan")},
            versions={"scikit-learn": "1.9"},
            trained_at=f"2026-02-0{day}T00:00:00Z",
        )
    expected = StoredModel(
        "latency",
        datetime(2026, 2, 2),
        2,
        {"mape": 0.09, "bad": "nan"},
        payload + bytes([2]),
        {"scikit-learn": "1.9"},
    )
    assert database.load_prediction_model("latency") == expected
    assert database.load_prediction_model("memory") is None


def test_tiny_measurements_do_not_count_as_the_model(database: BenchmarkDatabase) -> None:
    database.write_run(record(measurements=[TINY, MEASURED]))
    assert database.measurements(only_real_dimensions=True) == [MEASURED]
