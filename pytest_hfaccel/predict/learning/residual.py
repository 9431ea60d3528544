"""What a formula misses, learned from its errors on other models. Imports scikit-learn: import this file late."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import HuberRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Array = NDArray[np.float64]

_LIMIT = 0.5
"""Most that a correction may say, as a logarithm: what it never saw must not make it say more than the formula."""

_RIDGE = 30.0
"""Weight of the squared coefficients (of standardised features) in the linear regression's loss."""


class Residual:
    """Corrects a prediction by a factor: the mean, on a logarithmic scale, of a linear regression and boosted trees.

    Both with Huber's loss: rows that were disturbed while they were measured must not bend the rest.

    Trees alone cannot extrapolate, a linear model alone breaks on models unlike those it saw; their mean does less of
    either.
    """

    def __init__(self) -> None:
        trees = GradientBoostingRegressor(
            n_estimators=120,
            learning_rate=0.05,
            max_depth=3,
            min_samples_leaf=4,
            subsample=0.7,
            random_state=0,
            loss="huber",
        )
        self._models = [make_pipeline(StandardScaler(), HuberRegressor(alpha=_RIDGE, max_iter=1000)), trees]

    def fit(self, features: Array, log_errors: Array) -> Residual:
        """Learn from the logarithms of measured / predicted: shapes (rows, features) and (rows,)."""
        for model in self._models:
            model.fit(features, log_errors)
        return self

    def factors(self, features: Array) -> Array:
        """Return the factor for each row of features."""
        said = np.mean([model.predict(features) for model in self._models], axis=0)
        return np.asarray(np.exp(np.clip(said, -_LIMIT, _LIMIT)), dtype=np.float64)
