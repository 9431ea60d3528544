"""Predicted against measured latency and memory, on models the predictor has never seen.

    python benchmarks/prediction_accuracy.py --rows rows.jsonl

Every model of `prediction_zoo.py` is measured on the CPU with torch and with OpenVINO, in processes of their own, at
several batch sizes and lengths. Then each group of related architectures is predicted by a predictor that was trained
on the other groups only, and the tables of `docs/prediction_accuracy.md` are written. `--rows` keeps what was measured,
so that an interrupted run goes on where it stopped. With `--no-measuring` it is read only; the rows behind the page are
in `docs/results/prediction_rows.jsonl.gz`.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from prediction_tables import write_tables
from prediction_zoo import ZooModel, zoo

from pytest_hfaccel.benchmark.measurement import Measurement
from pytest_hfaccel.benchmark.timing import TimingBudget
from pytest_hfaccel.campaign.processes import measure_isolated
from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.predict.calibration import (
    DeviceCalibration,
    calibrate,
    load_calibrations,
    save_calibration,
)
from pytest_hfaccel.predict.calibration.roofline import OperatorRoofline
from pytest_hfaccel.predict.learning.models import Row
from pytest_hfaccel.predict.learning.training import fit, rows_of
from pytest_hfaccel.predict.requirements import memory_of

DEVICES = ("cpu", "openvino:CPU")
MIB = 2.0**20
TIMEOUT = 300


@dataclass(frozen=True)
class Prediction:
    """One measured row and what was predicted for it, by models that saw none of its relatives."""

    model: str
    architecture: str
    relatives: str
    device: str
    batch: int
    length: int
    measured_ms: float
    plain_ms: float
    roofline_ms: float
    learned_ms: float
    low_ms: float
    high_ms: float
    measured_mb: float
    computed_mb: float
    learned_mb: float
    low_mb: float
    high_mb: float
    weights_mb: float
    held_weights_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help="file in which the measured rows are kept")
    parser.add_argument("--devices", nargs="+", default=DEVICES, choices=DEVICES)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; one is least disturbed by others")
    parser.add_argument("--cache", type=Path, default=RunConfig().cache_dir, help="for checkpoints and traces")
    parser.add_argument("--no-measuring", action="store_true", help="only predict what has been measured")
    given = parser.parse_args()
    calibrations = [calibration_of(device, given.threads, given.cache) for device in given.devices]
    if not given.no_measuring:
        measure_all(given.rows, given.devices, given.threads, given.cache)
    measurements = [one for one in read_rows(given.rows) if one.threads == given.threads]
    predictions = [
        prediction
        for calibration in calibrations
        for prediction in predict_held_out(of_device(measurements, calibration), calibration, given.cache)
    ]
    write_tables(predictions, calibrations)


def calibration_of(device: str, threads: int, cache: Path) -> DeviceCalibration:
    """Return the machine's calibration of a device; take one where there is none."""
    for known in load_calibrations(cache):
        if (known.device, known.dtype, known.threads) == (device, "fp32", threads):
            return known
    found = calibrate(device, threads=threads)
    save_calibration(found, cache)
    return found


def measure_all(rows: Path, devices: Iterable[str], threads: int, cache: Path) -> None:
    """Measure what the file does not have yet, and append it."""
    done = {(one.model, one.device, one.batch, one.length) for one in read_rows(rows)}
    for model in zoo():
        for device in devices:
            points = [point for point in model.points if (model.spec.name, device, *point) not in done]
            for one in measured(model, device, points, threads, cache) if points else ():
                with rows.open("a") as file:
                    file.write(json.dumps(one.to_json()) + "\n")


def measured(
    model: ZooModel, device: str, points: list[tuple[int, int]], threads: int, cache: Path
) -> Iterator[Measurement]:
    """Measure a model at some points; what fails is told and left out."""
    results = measure_isolated(
        model.spec,
        "random",
        device,
        "fp32",
        points,
        threads=threads,
        cache_dir=cache,
        timeout=TIMEOUT,
        budget=TimingBudget(max_seconds=3.0),
        generation=False,
    )
    for point, one in zip(points, results, strict=True):
        if isinstance(one, Measurement):
            facts = {**one.details, "dims": dict(model.spec.dims), "relatives": model.relatives}
            print(f"{model.spec.name} {device} {point}: {one.latency.median_ms:.2f} ms", flush=True)
            yield replace(one, details=facts)
        else:
            print(f"{model.spec.name} {device} {point}: {one.status}: {one.reason}", file=sys.stderr, flush=True)


def read_rows(file: Path) -> list[Measurement]:
    """Read the measured rows."""
    if not file.exists():
        return []
    text = gzip.decompress(file.read_bytes()).decode() if file.suffix == ".gz" else file.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    return [Measurement.from_json(line) for line in lines if "latency" in line]


def of_device(measurements: Iterable[Measurement], calibration: DeviceCalibration) -> list[Measurement]:
    """Return the rows of a calibration's device."""
    return [one for one in measurements if one.device == calibration.device]


def predict_held_out(
    measurements: list[Measurement], calibration: DeviceCalibration, cache: Path
) -> Iterator[Prediction]:
    """Predict each row with models trained on the rows of other groups of relatives."""
    rows = rows_of(measurements, calibration, cache, lambda one: one.details["dims"])
    if len(rows) != len(measurements):
        raise SystemExit(f"{len(measurements) - len(rows)} measured rows cannot be traced")
    for group in sorted({row.relatives for row in rows}):
        training = [row for row in rows if row.relatives != group]
        model = fit(training, calibration)
        held = [(row, one) for row, one in zip(rows, measurements, strict=True) if row.relatives == group]
        points = [row.point for row, _ in held]
        seconds, memory = model.latency.predict(points), model.memory.predict(points)  # type: ignore[union-attr]
        for (row, one), latency, mib in zip(held, seconds, memory, strict=True):
            yield compared(row, one, calibration, model, float(latency), float(mib))


def compared(
    row: Row, one: Measurement, calibration: DeviceCalibration, model: Any, seconds: float, mib: float
) -> Prediction:
    """Put what was measured and what was predicted side by side."""
    trace, latency, memory = row.point.trace, model.latency_interval, model.memory_interval
    plain = max(trace.flops / calibration.peak_flops, trace.moved_bytes / calibration.bandwidth)
    return Prediction(
        model=one.model,
        architecture=one.architecture,
        relatives=row.relatives,
        device=one.device,
        batch=one.batch,
        length=one.length,
        measured_ms=one.latency.median_ms,
        plain_ms=1e3 * plain,
        roofline_ms=1e3 * OperatorRoofline(calibration).seconds(trace),
        learned_ms=1e3 * seconds,
        low_ms=1e3 * seconds * latency[0],
        high_ms=1e3 * seconds * latency[1],
        measured_mb=(one.memory_bytes or np.nan) / MIB,
        computed_mb=memory_of(trace, one.device_kind).value,
        learned_mb=mib,
        low_mb=mib * memory[0],
        high_mb=mib * memory[1],
        weights_mb=trace.weight_bytes / MIB,
        held_weights_mb=one.weight_bytes / MIB,
    )


if __name__ == "__main__":
    main()
