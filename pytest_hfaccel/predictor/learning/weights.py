"""Weights that are never negative, fitted to relative errors and drawn to what is known. Imports scipy: import late."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Array = NDArray[np.float64]


def fit_weights(columns: Array, target: Array, prior: Array, pull: Array) -> Array:
    """Return weights w >= 0 that minimise `sum(((columns @ w - target) / target)^2) + sum((pull * (w - prior))^2)`.

    Relative errors, because a model of a millisecond counts as much as one of a second; the second sum (ridge
    regression about a prior) keeps a weight where it was unless the rows speak against it.

    Args:
        columns: Shape (rows, weights).
        target: Shape (rows,), positive.
        prior: Shape (weights,).
        pull: Shape (weights,): the larger, the closer to the prior.
    """
    rows = columns / target[:, None]
    system = np.vstack([rows, np.diag(pull)])
    right = np.concatenate([np.ones(len(target)), pull * prior])
    found, _ = nnls(system, right)
    return np.asarray(found, dtype=np.float64)
