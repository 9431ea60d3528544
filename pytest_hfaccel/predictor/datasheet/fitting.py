"""How the shares in `shares.yaml` were fitted, and how to fit them anew to measured rows.

`python -m pytest_hfaccel.predictor.datasheet.fitting rows.json`, with a list of objects with `device` (a name of
`devices.yaml`), `architecture`, `dims`, `batch`, `length`, `dtype` and `seconds`, prints the shares and the interval.
Imports numpy and scipy: import this file late.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from pytest_hfaccel.predictor.datasheet.roofline import Reached, roofline_seconds
from pytest_hfaccel.predictor.datasheet.specification import DeviceSpecification
from pytest_hfaccel.predictor.datasheet.specifications import load_specifications
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

    def loss(logarithms: Any) -> float:
        return float(np.abs(_log_ratios(rows, Reached(*np.exp(logarithms)))).mean())

    start = np.log([_START.compute, _START.half, _START.memory, _START.launch_seconds])
    found = minimize(loss, start, method="Nelder-Mead", options={"maxiter": 1500, "xatol": 1e-4, "fatol": 1e-5})
    return Reached(*(float(value) for value in np.exp(found.x)))


def held_out_interval(rows: Sequence[TimedTrace], level: float = 0.8) -> tuple[float, float]:
    """Return the factors measured / predicted that hold a share of the rows, each device left out of its own fit."""
    ratios = []
    for slug in {row.device.slug for row in rows}:
        others = [row for row in rows if row.device.slug != slug]
        own = [row for row in rows if row.device.slug == slug]
        ratios.extend(_log_ratios(own, fit_shares(others or own)))
    outside = (1 - level) / 2
    low, high = np.exp(np.quantile(ratios, [outside, 1 - outside]))
    return float(low), float(high)


def _log_ratios(rows: Sequence[TimedTrace], reached: Reached) -> Any:
    predicted = [roofline_seconds(row.trace, row.device, reached) or float("nan") for row in rows]
    return np.log([row.seconds for row in rows]) - np.log(predicted)


def _main(file: Path) -> None:
    from pytest_hfaccel.config import RunConfig
    from pytest_hfaccel.tracing.traces import trace_of

    cache = RunConfig.from_values({}).cache_dir
    rows = []
    for row in json.loads(file.read_text(encoding="utf-8")):
        point = {name: row[name] for name in ("batch", "length", "dtype")}
        trace = trace_of(row["architecture"], row["dims"], cache_dir=cache, **point)
        rows.append(TimedTrace(trace, load_specifications().get(row["device"]), row["seconds"]))
    answer = {**vars(fit_shares(rows)), "interval": held_out_interval(rows), "rows": len(rows)}
    sys.stdout.write(json.dumps(answer, indent=2) + "\n")


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
