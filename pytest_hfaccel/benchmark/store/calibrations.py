"""Calibrations of devices as rows, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pytest_hfaccel.benchmark.store.records import Calibration, utc
from pytest_hfaccel.benchmark.store.rows import as_json


def calibration_row(calibration: Calibration) -> dict[str, Any]:
    """Return the row of `device_calibrations`, without the number of its run."""
    data = calibration if isinstance(calibration, Mapping) else calibration.to_json()
    return {
        "device": data["device"],
        "device_name": data["device_name"],
        "dtype": data["dtype"],
        "threads": data["threads"],
        "taken_at": utc(data["taken"]),
        "payload": as_json(data),
    }


def read_calibrations(connection: Any, filters: Mapping[str, str | int | None]) -> list[dict[str, Any]]:
    """Return the plain-JSON forms of the calibrations that fit, the newest first."""
    asked = {column: value for column, value in filters.items() if value is not None}
    where = " AND ".join(["true", *(f"{column} = ?" for column in asked)])
    query = f"SELECT payload FROM device_calibrations WHERE {where} ORDER BY taken_at DESC, calibration_id DESC"  # noqa: S608
    return [json.loads(payload) for (payload,) in connection.execute(query, list(asked.values())).fetchall()]
