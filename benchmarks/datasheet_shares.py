"""How the shares in `shares.yaml` were fitted, and how to fit them anew to measured rows.

`python benchmarks/datasheet_shares.py epyc-9654 rows.jsonl cpu` prints the shares that the rows of a
file (a database, Parquet, reports) on `cpu` devices reach of that data sheet, and the interval; a file `*.rows.json`
holds other rows: objects with `device` (a name of `devices.yaml`), `architecture`, `dims`, `batch`, `length`, `dtype`,
`seconds`, and `cores` for a CPU of which only some ran.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from statistics import fmean
from typing import Any

from pytest_hfaccel.predict.layers.datasheet import Reached, roofline_seconds
from pytest_hfaccel.predict.platforms import DeviceSpecification, load_specifications
from pytest_hfaccel.tracing.trace import ModelTrace

_START = Reached(0.5, 0.4, 0.3, 1e-5)


@dataclass(frozen=True)
class TimedTrace:
    """A measured time of a model on a device whose data sheet is known."""

    trace: ModelTrace
    device: DeviceSpecification
    seconds: float


def fit_shares(rows: Sequence[TimedTrace]) -> Reached:
    """Return the shares with which the roofline deviates least from measured times, as a mean of |log ratio|."""
    from scipy.optimize import minimize

    def loss(logarithms: Sequence[float]) -> float:
        return fmean(map(abs, _log_ratios(rows, Reached(*map(exp, logarithms)))))

    start = [log(value) for value in (_START.compute, _START.half, _START.memory, _START.launch_seconds)]
    found = minimize(loss, start, method="Nelder-Mead", options={"maxiter": 1500, "xatol": 1e-4, "fatol": 1e-5})
    return Reached(*(exp(float(value)) for value in found.x))


def held_out_interval(
    rows: Sequence[TimedTrace],
    level: float = 0.8,
    group: Callable[[TimedTrace], str] = lambda row: row.device.slug,
) -> tuple[float, float]:
    """Return the factors measured / predicted that hold a share of the rows, each group left out of its own fit.

    Args:
        rows: The rows.
        level: The share.
        group: What is left out together: the devices, or the architectures where there is one device.
    """
    ratios = []
    for name in sorted({group(row) for row in rows}):
        own = [row for row in rows if group(row) == name]
        others = [row for row in rows if group(row) != name]
        ratios.extend(_log_ratios(own, fit_shares(others or own)))
    ratios.sort()
    outside = (1 - level) / 2
    return exp(_quantile(ratios, outside)), exp(_quantile(ratios, 1 - outside))


def _log_ratios(rows: Sequence[TimedTrace], reached: Reached) -> list[float]:
    found = []
    for row in rows:
        predicted = roofline_seconds(row.trace, row.device, reached)
        if predicted is None:
            raise ValueError(f"{row.device.slug}: no speed at {row.trace.dtype} is published")
        found.append(log(row.seconds / predicted))
    return found


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _timed(row: Mapping[str, Any], cache: Path) -> TimedTrace:
    from pytest_hfaccel.tracing.traces import trace_of

    trace = trace_of(
        row["architecture"],
        row["dims"],
        batch=row["batch"],
        length=row["length"],
        dtype=row["dtype"],
        cache_dir=cache,
    )
    device = load_specifications().get(row["device"])
    return TimedTrace(trace, device.with_cores(row["cores"]) if "cores" in row else device, row["seconds"])


def _rows(slug: str, file: Path, kind: str) -> list[dict[str, Any]]:
    """Read rows; those measured with this package carry the dimensions of their model."""
    if file.name.endswith(".rows.json"):
        return list(json.loads(file.read_text(encoding="utf-8")))
    from pytest_hfaccel.history.database import open_measurements

    return [
        {
            "device": slug,
            "architecture": row.architecture,
            "dims": row.details["dims"],
            "batch": row.batch,
            "length": max(1, row.length),
            "dtype": row.dtype,
            "seconds": row.latency.median_ms / 1e3,
            **({"cores": row.threads} if load_specifications().get(slug).cores else {}),
        }
        for row in open_measurements(file)
        if row.device_kind == kind and row.mode == "inference" and "dims" in row.details
    ]


def _main(slug: str, file: str, kind: str) -> None:
    from pytest_hfaccel.core.config import RunConfig

    cache = RunConfig.from_values({}).cache_dir
    rows = [_timed(row, cache) for row in _rows(slug, Path(file), kind)]
    several = len({row.device.slug for row in rows}) > 1
    interval = held_out_interval(rows) if several else held_out_interval(rows, group=lambda row: row.trace.architecture)
    answer = {**vars(fit_shares(rows)), "interval": interval, "rows": len(rows)}
    sys.stdout.write(json.dumps(answer, indent=2) + "\n")


if __name__ == "__main__":
    _main(*sys.argv[1:4])
