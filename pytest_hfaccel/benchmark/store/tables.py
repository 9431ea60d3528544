"""The tables of the database: how their rows are numbered, what they refer to, what makes two rows the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        number: The column that numbers its rows; numbers mean nothing outside their database.
        key: Columns that are the same for the same thing in every database; empty where a row belongs to its parent.
        refers: Column -> the table it refers to.
        shared: Whether rows of several runs refer to one row of it.
    """

    number: str
    key: tuple[str, ...] = ()
    refers: Mapping[str, str] = field(default_factory=dict)
    shared: bool = False


HARDWARE_KEY = (
    "hardware_type",
    "device",
    "device_name",
    "platform",
    "platform_version",
    "driver_version",
    "memory_gb",
    "compute_units",
)
"""A new driver or system makes another device, because it measures otherwise."""

_SUBJECTS = {"model_id": "models", "hardware_id": "hardware_platforms"}
_RUN = {"run_id": "test_runs"}

TABLES: Mapping[str, Table] = {
    "hardware_platforms": Table("hardware_id", HARDWARE_KEY, shared=True),
    "models": Table("model_id", ("model_name", "architecture"), shared=True),
    "test_runs": Table("run_id", ("run_key",)),
    "performance_results": Table("result_id", refers={**_RUN, **_SUBJECTS}),
    "performance_batch_results": Table("batch_result_id", refers={"result_id": "performance_results"}),
    "hardware_compatibility": Table("compatibility_id", refers={**_RUN, **_SUBJECTS}),
    "integration_test_results": Table("test_result_id", refers={**_RUN, **_SUBJECTS}),
    "integration_test_assertions": Table("assertion_id", refers={"test_result_id": "integration_test_results"}),
    "device_calibrations": Table("calibration_id", ("device", "device_name", "dtype", "threads", "taken_at"), _RUN),
    "predictions": Table("prediction_id", ("prediction_key",)),
    "prediction_models": Table("prediction_model_id", ("name", "trained_at")),
}
"""All tables but `schema_version`, parents before their children."""

VIEWS: Mapping[str, str] = {
    "measured_rows": "run_id, result_id",
    "latest_performance_metrics": "result_id",
    "model_hardware_compatibility": "model_id, hardware_id, precision, weights",
    "integration_test_status": "test_result_id",
    "prediction_accuracy": "result_id, metric, prediction_id",
}
"""All views, and the order in which their rows are shown."""
