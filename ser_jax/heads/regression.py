"""Linear regressions on frozen features: ordinary least squares, and ridge with nested choice of its penalty.

Scaling, selection of features and the choice of the penalty see the training side of a fold only; train and dev are
one.
"""

import numpy as np

from ser_jax.heads.inner import inner_parts
from ser_jax.heads.linear import LinearModel
from ser_jax.heads.rotation import rotate


class OlsHead:
    """Ordinary least squares with an intercept, on the features as they are (as scikit-learn's LinearRegression).

    With more features than rows, or features that depend on each other, the weights of the least norm are taken.
    """

    name = "ols"
    predicts = "numbers"
    needs_dev = False
    selection = "least squares on train+dev, no hyper-parameter"

    def fit(self, x, y, groups, dev, select=None):
        """See `Head.fit`; `groups` and `dev` are not used."""
        columns = np.arange(x.shape[1]) if select is None else select(x, y)
        rows = x[:, columns].astype(np.float64)
        shift, middle = rows.mean(0), y.mean()
        weights, _, rank, _ = np.linalg.lstsq(rows - shift, y - middle, rcond=None)
        model = _model(shift, np.ones(len(columns)), weights, middle).spread(columns, x.shape[1])
        model.chosen = {"rank": int(rank)} if rank < len(columns) else {}
        return model


class RidgeHead:
    """Ridge regression on standardised features, its penalty chosen by inner folds of whole training speakers.

    The penalty is that on the sum of squared weights beside the sum (not the mean) of squared errors, as in
    scikit-learn's Ridge. The mean squared error that chooses it is that of the pooled inner predictions, over chunks,
    whatever metric is reported. With one training speaker the inner folds are over rows, which is said in `chosen`.
    """

    name = "ridge"
    predicts = "numbers"
    needs_dev = False
    grid = tuple(10.0**e for e in range(7, -1, -1))
    selection = (
        "alpha in 1..1e7 by MSE over chunks of inner folds of whole training speakers (tie: greatest alpha), "
        "refit on train+dev"
    )

    def fit(self, x, y, groups, dev, select=None):
        """See `Head.fit`; `dev` is not used."""
        parts, inner = inner_parts(groups, np.zeros(len(y)))
        predictions = np.empty((len(self.grid), len(y)))
        for held in parts:
            models = self._path(x[~held], y[~held], self.grid, select)
            predictions[:, held] = [model.predict(x[held]) for model in models]
        errors = np.mean((predictions - y) ** 2, axis=1)
        best = int(np.argmin(errors))  # the first of equals, thus the greatest
        [model] = self._path(x, y, self.grid[best : best + 1], select)
        model.chosen = {
            "alpha": self.grid[best],
            "inner": inner,
            "inner_MSE": {f"{alpha:g}": float(error) for alpha, error in zip(self.grid, errors)},
        }
        return model

    def _path(self, x, y, grid, select):
        """Fitted models, one for each penalty."""
        from sklearn.preprocessing import StandardScaler

        columns = np.arange(x.shape[1]) if select is None else select(x, y)
        rows = x[:, columns].astype(np.float64)
        scaler = StandardScaler().fit(rows)
        rotated, middle = rotate((rows - scaler.mean_) / scaler.scale_), y.mean()
        moments = rotated.z.T @ (y - middle)
        weights = rotated.back(np.stack([moments / (rotated.power + alpha) for alpha in grid], axis=1))
        return [
            _model(scaler.mean_, 1 / scaler.scale_, column, middle).spread(columns, x.shape[1])
            for column in weights.T
        ]


def _model(shift, scale, weights, middle):
    return LinearModel(shift, scale, weights[None], np.array([middle]), [])
