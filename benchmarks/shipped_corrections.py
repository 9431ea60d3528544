"""Learns the corrections of the roofline that come with the package, and says what they bring.

    python benchmarks/shipped_corrections.py --cache DIR

The rows of `docs/results/prediction_rows.jsonl.gz` say how long models took; the calibrations in the cache directory,
of a machine of the same kind, what the roofline predicts for them. For each kind of device, the weight of each group of
operators is fitted (`learning.models.LatencyModel`, without the residual, which does not carry over to other machines)
and written to `pytest_hfaccel/predict/layers/corrections.json`. The table in `docs/prediction_accuracy.md` is of errors
on groups of related architectures that were left out of the fit.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from prediction_accuracy import calibration_of, read_rows
from prediction_tables import PAGE, SHIPPED

from pytest_hfaccel.predict.calibration import DeviceCalibration
from pytest_hfaccel.predict.calibration.roofline import GROUPS, OperatorRoofline
from pytest_hfaccel.predict.learning.models import LatencyModel, Row
from pytest_hfaccel.predict.learning.training import interval_factors, rows_of

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "docs/results/prediction_rows.jsonl.gz"
TARGET = ROOT / "pytest_hfaccel/predict/layers/corrections.json"


HEAD = """\
Without rows of its own machine, `hfaccel predict` corrects a calibration's roofline by ratios that were learned from
the rows above: a weight for each group of operators, held near 1 (`pytest_hfaccel/predict/layers/corrections.json`).
Errors are of groups of related architectures that were left out of the fit. The rows are of 2026-11-21; the
calibrations of 2026-11-28, of a machine of the same kind (AMD EPYC, 1 thread), whose disturbance was not recorded.
**What the ratios bring on another kind of machine has not been measured.** Rows of one's own (`hfaccel predict
--train`) bring more: see above.

| device | rows | MAPE of the roofline | with the ratios | median | inside the 80 % interval |
|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="with calibrations at fp32 and one thread")
    cache = parser.parse_args().cache
    lines = [HEAD]
    found = {}
    for device in ("cpu", "openvino:CPU"):
        calibration = calibration_of(device, 1, cache)
        measured = [one for one in read_rows(ROWS) if (one.device, one.threads) == (device, 1)]
        rows = rows_of(measured, calibration, cache, lambda one: one.details["dims"])
        seconds = np.array([row.seconds for row in rows])
        plain = np.array([OperatorRoofline(calibration).seconds(row.point.trace) for row in rows])
        held_out = predicted_without_relatives(rows, calibration)
        low, high = interval_factors(np.log(seconds / held_out))
        error = np.abs(held_out / seconds - 1)
        inside = np.mean((low * held_out <= seconds) & (seconds <= high * held_out))
        lines.append(
            f"| {device} | {len(rows)} | {np.abs(plain / seconds - 1).mean():.1%} | {error.mean():.1%} | "
            f"{np.median(error):.1%} | {inside:.0%} |"
        )
        weights = LatencyModel(calibration).fit_weights(rows, only_ratios=True)
        found[device] = {
            "weights": {
                name: round(float(value), 4) for name, value in zip((*GROUPS, "launches", "call"), weights, strict=True)
            },
            "interval": [round(low, 4), round(high, 4)],
            "error": round(float(error.mean()), 4),
            "rows": len(rows),
            "relatives": len({row.relatives for row in rows}),
            "machine": f"{calibration.device_name}, 1 thread, 2026-11-21",
        }
    about = "written by benchmarks/shipped_corrections.py from docs/results/prediction_rows.jsonl.gz"
    written = datetime.now(UTC).date().isoformat()
    page = PAGE.read_text(encoding="utf-8").partition(SHIPPED)[0]
    PAGE.write_text(page + SHIPPED + "\n\n" + "\n".join(lines) + "\n", encoding="utf-8")
    TARGET.write_text(json.dumps({"about": about, "written": written, "devices": found}, indent=2) + "\n")


def predicted_without_relatives(rows: list[Row], calibration: DeviceCalibration) -> Any:
    """Return the seconds of each row, predicted with weights fitted to the rows of other groups."""
    predicted = np.empty(len(rows))
    for group in sorted({row.relatives for row in rows}):
        is_held = np.array([row.relatives == group for row in rows])
        fitted = LatencyModel(calibration)
        fitted.fit_weights([row for row, held in zip(rows, is_held, strict=True) if not held], only_ratios=True)
        predicted[is_held] = fitted.weighted([row.point for row, held in zip(rows, is_held, strict=True) if held])
    return predicted


if __name__ == "__main__":
    main()
