"""Predictions and trained prediction models as rows, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.benchmark.store.records import StoredModel, utc
from pytest_hfaccel.benchmark.store.rows import as_json

if TYPE_CHECKING:
    from pytest_hfaccel.predictor.prediction import Estimate, Prediction


def prediction_rows(
    predictions: Sequence[Prediction],
    *,
    created_at: datetime | str,
    git_commit: str,
    device_name: str,
    threads: int | None,
) -> list[dict[str, Any]]:
    """Return the rows of `predictions`.

    What a prediction's `details` say under `device_name` and `threads` goes before what is said of all of them.
    """
    said = {"created_at": utc(created_at), "git_commit": git_commit}
    return [
        {
            **said,
            "device_name": str(each.details.get("device_name", device_name)),
            "threads": each.details.get("threads", threads),
            **_question(each),
            **_answer(each),
        }
        for each in predictions
    ]


def _question(prediction: Prediction) -> dict[str, Any]:
    question = prediction.question
    return {
        "model": question.model,
        "architecture": question.architecture,
        "family": question.family,
        "device": question.device,
        "batch_size": question.batch,
        "sequence_length": question.length,
        "precision": question.dtype,
        "mode": "training" if question.training else "inference",
    }


def _answer(prediction: Prediction) -> dict[str, Any]:
    return {
        "source": str(prediction.source),
        "basis": prediction.basis,
        "measured_rows": prediction.rows,
        **_interval("latency", "ms", prediction.latency_ms),
        **_interval("memory", "mb", prediction.memory_mb),
        "fits": prediction.fits,
        "advice": prediction.advice,
        "details": as_json(prediction.details),
    }


def _interval(what: str, unit: str, estimate: Estimate | None) -> dict[str, float | None]:
    names = (f"{what}_{unit}", f"{what}_low_{unit}", f"{what}_high_{unit}")
    values = (estimate.value, estimate.low, estimate.high) if estimate else (None, None, None)
    return dict(zip(names, values, strict=True))


def model_row(
    name: str,
    payload: bytes,
    *,
    rows: int,
    metrics: Mapping[str, Any],
    versions: Mapping[str, Any],
    trained_at: datetime | str,
) -> dict[str, Any]:
    """Return the row of `prediction_models`."""
    return {
        "name": name,
        "trained_at": utc(trained_at),
        "rows": rows,
        "metrics": as_json(metrics),
        "versions": as_json(versions),
        "payload": payload,
    }


def read_model(connection: Any, name: str) -> StoredModel | None:
    """Return the newest prediction model of a name."""
    found = connection.execute(
        "SELECT name, trained_at, rows, metrics, payload, versions FROM prediction_models WHERE name = ? "
        "ORDER BY trained_at DESC, prediction_model_id DESC LIMIT 1",
        [name],
    ).fetchone()
    if found is None:
        return None
    name, trained_at, rows, metrics, payload, versions = found
    return StoredModel(name, trained_at, rows, json.loads(metrics), bytes(payload), json.loads(versions))
