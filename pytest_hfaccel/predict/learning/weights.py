"""Weights that are never negative, fitted to relative errors and drawn to what is known. Imports scipy: import late."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Array = NDArray[np.float64]


_CLEAR_ERROR = 0.1
"""Relative error from which a row counts less: one that was disturbed while it was measured must not bend the rest."""
_ROUNDS = 8


def fit_weights(columns: Array, target: Array, prior: Array, pull: Array) -> Array:
    """Return weights w >= 0 that minimise `sum(huber((columns @ w - target) / target)) + sum((pull * (w - prior))^2)`.

    Relative errors, because a model of a millisecond counts as much as one of a second; Huber's loss (Huber 1964,
    "Robust estimation of a location parameter"), by iteratively reweighted least squares; the second sum (ridge
    regression about a prior) keeps a weight where it was unless the rows speak against it.

    Args:
        columns: Shape (rows, weights).
        target: Shape (rows,), positive.
        prior: Shape (weights,).
        pull: Shape (weights,): the larger, the closer to the prior.
    """
    relative = columns / target[:, None]
    trust = np.ones(len(target))
    for _ in range(_ROUNDS):
        system = np.vstack([relative * trust[:, None], np.diag(pull)])
        found, _ = nnls(system, np.concatenate([trust, pull * prior]))
        errors = np.maximum(np.abs(relative @ found - 1.0), 1e-9)
        trust = np.sqrt(np.minimum(1.0, _CLEAR_ERROR / errors))
    return np.asarray(found, dtype=np.float64)
