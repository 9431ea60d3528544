"""What models reach of a data sheet, by kind of device: fitted to measured rows, with the spread they left."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from pytest_hfaccel.predict.datasheet.roofline import Reached
from pytest_hfaccel.predict.prediction import Estimate


@dataclass(frozen=True)
class Shares:
    """What models reach of a data sheet on one kind of device.

    Attributes:
        reached: The fitted shares.
        low: Lower end of the interval, as a factor on the predicted time.
        high: Upper end.
        source: The rows behind it, in a few words.
        origin: Where these rows can be found.
    """

    reached: Reached
    low: float
    high: float
    source: str
    origin: str

    def around(self, seconds: float) -> Estimate:
        """Return a time in milliseconds with its interval."""
        milliseconds = 1e3 * seconds
        return Estimate(milliseconds, self.low * milliseconds, self.high * milliseconds)


def shares_of(kind: str) -> Shares:
    """Return the shares of a kind of device.

    Where nothing was measured of a kind, those of another one stand in, with an interval twice as wide on the
    logarithmic scale; `source` says so.
    """
    table = _table()
    row = table[kind] if kind in table else table["other"]
    stands_in = row.get("like")
    if stands_in is None:
        return _shares(row)
    like = _shares(table[stands_in])
    why = f"of {stands_in}, {like.source}, because nothing measured on {kind} was at hand"
    return Shares(like.reached, like.low**2, like.high**2, why, like.origin)


def _shares(row: dict[str, Any]) -> Shares:
    reached = Reached(row["compute"], row["half"], row["memory"], 1e-6 * row["launch_us"])
    low, high = row["interval"]
    return Shares(reached, low, high, row["source"], " ".join(row["origin"].split()))


@cache
def _table() -> dict[str, dict[str, Any]]:
    import yaml

    text = files(__package__).joinpath("shares.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text)["kinds"])
