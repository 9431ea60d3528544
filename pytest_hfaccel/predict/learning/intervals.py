"""How far predictions err, learned from rows that were held out. Imports numpy: import this file late."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pytest_hfaccel.predict.learning.rows import Row
from pytest_hfaccel.predict.prediction import INTERVAL

Array = NDArray[np.float64]
Fold = tuple[list[Row], list[Row]]

_MOST_FOLDS = 8


def folds(rows: Sequence[Row], most: int = _MOST_FOLDS) -> list[Fold]:
    """Split rows into (training, held out) pairs; relatives are held out together.

    Args:
        rows: At least two groups of relatives.
        most: Most pairs; groups are dealt to them by size, the largest first.
    """
    sizes: dict[str, int] = {}
    for row in rows:
        sizes[row.relatives] = sizes.get(row.relatives, 0) + 1
    bins: list[tuple[int, set[str]]] = [(0, set()) for _ in range(min(most, len(sizes)))]
    for group in sorted(sizes, key=lambda name: (-sizes[name], name)):
        index = min(range(len(bins)), key=lambda number: bins[number][0])
        bins[index] = (bins[index][0] + sizes[group], bins[index][1] | {group})
    return [
        ([row for row in rows if row.relatives not in held], [row for row in rows if row.relatives in held])
        for _, held in bins
    ]


def held_out_log_errors(
    rows: Sequence[Row], predict: Callable[[list[Row], list[Row]], Array], measured: Callable[[Row], float]
) -> Array:
    """Return the logarithms of measured / predicted of rows that were predicted from their non-relatives.

    Args:
        rows: All rows.
        predict: Trains on the first rows and predicts the second.
        measured: The measured value of a row.
    """
    errors = [
        np.log(np.array([measured(row) for row in held]) / predict(training, held)) for training, held in folds(rows)
    ]
    return np.concatenate(errors)


def interval_factors(log_errors: Array, share: float = INTERVAL) -> tuple[float, float]:
    """Return the factors below and above a prediction between which a share of the measured values lies.

    The quantiles of held-out errors, as in cross-conformal prediction (Vovk 2015, "Cross-conformal predictors").
    """
    tail = (1.0 - share) / 2.0
    low, high = np.quantile(log_errors, [tail, 1.0 - tail])
    return float(np.exp(min(low, 0.0))), float(np.exp(max(high, 0.0)))
