"""What models made of a device: the points of a roofline plot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pytest_hfaccel.predictor.plots.problems import Problems
from pytest_hfaccel.predictor.plots.rows import read_rows

COLUMNS = ("model", "flops", "moved_bytes", "seconds")


@dataclass(frozen=True)
class RooflinePoint:
    """A run of a model.

    Attributes:
        model: Its name.
        intensity: Operations per byte moved.
        speed: Operations per second.
        family: Its family; empty where it was not given.
        source: `measured` or a layer of the predictor; empty where it was not given.
    """

    model: str
    intensity: float
    speed: float
    family: str = ""
    source: str = ""


@dataclass(frozen=True)
class Roof:
    """What a device can do at most.

    Attributes:
        device: Its name.
        peak: Operations per second.
        bandwidth: Bytes per second.
    """

    device: str
    peak: float
    bandwidth: float

    @property
    def ridge(self) -> float:
        """The operations per byte above which computing limits, not memory."""
        return self.peak / self.bandwidth

    def at(self, intensity: float) -> float:
        """Operations per second that can be reached.

        min(peak, bandwidth x intensity): S. Williams, A. Waterman, D. Patterson, "Roofline", CACM 52(4), 2009.
        """
        return min(self.peak, self.bandwidth * intensity)


def read_roof(device: str, peak_flops: Any, bandwidth: Any) -> Roof:
    """Check what a device can do.

    Raises:
        ConfigError: A number is missing or cannot be.
    """
    problems = Problems()
    read = {
        name: problems.number(value, name) for name, value in (("peak_flops", peak_flops), ("bandwidth", bandwidth))
    }
    for name, value in (("peak_flops", peak_flops), ("bandwidth", bandwidth)):
        if value is None:
            problems.add(name, "a number > 0 is needed.")
    problems.raise_if_any()
    return Roof(str(device), float(read["peak_flops"] or 0), float(read["bandwidth"] or 0))


def read_roofline_points(given: Any) -> list[RooflinePoint]:
    """Read rows with the columns of `COLUMNS` and, if they like, `family` and `source`.

    Rows in which a number is not known are left out.

    Raises:
        ConfigError: Columns are missing, numbers cannot be, or no row is complete.
    """
    problems = Problems()
    points = []
    for index, row in enumerate(read_rows(given, "points", COLUMNS)):
        flops, moved, seconds = (problems.number(row[name], f"points[{index}].{name}") for name in COLUMNS[1:])
        if flops and moved and seconds:
            extras = (str(row.get("family") or ""), str(row.get("source") or ""))
            points.append(RooflinePoint(str(row["model"]), flops / moved, flops / seconds, *extras))
    problems.raise_if_any()
    if not points:
        problems.add("points", "no row has flops, moved_bytes and seconds.")
    problems.raise_if_any()
    return points
