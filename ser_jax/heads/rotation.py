"""An exact change of coordinates that makes linear fits on wide features small.

A fit that penalises the sum of squares of its weights has its optimum in the span of the rows, and neither penalty nor
scores change under a rotation. So N rows of D features are rotated into min(N, D) coordinates that are orthogonal over
the rows, the fit is done there, and its weights are rotated back: the same optimum, at the cost of one
eigendecomposition of the smaller Gram matrix for all penalties and all classes.
"""

import dataclasses

import numpy as np

_RANK = 1e-13  # eigenvalues below this share of the largest are rounding errors


@dataclasses.dataclass(frozen=True)
class Rotation:
    """Rows in their own coordinates.

    Attributes:
      z: float64[N, R], the rows; zᵀz is diagonal.
      power: float64[R], that diagonal, rising.
    """

    z: np.ndarray
    power: np.ndarray
    _x: np.ndarray
    _of_features: np.ndarray | None
    _of_rows: np.ndarray | None

    def back(self, weights):
        """float64[D, K] for weights float64[R, K] in the coordinates of `z`: x @ back(w) = z @ w."""
        if self._of_rows is None:
            return self._of_features @ weights
        return self._x.T @ (self._of_rows @ (weights / np.sqrt(self.power)[:, None]))


def rotate(x):
    """The `Rotation` of rows float64[N, D]."""
    from scipy.linalg import eigh

    wide = x.shape[1] >= len(x)
    power, basis = eigh(x @ x.T if wide else x.T @ x, overwrite_a=True, check_finite=False, driver="evd")
    kept = power > max(power[-1] * _RANK, np.finfo(np.float64).tiny)
    power, basis = power[kept], basis[:, kept]
    if wide:
        return Rotation(basis * np.sqrt(power), power, x, None, basis)
    return Rotation(x @ basis, power, x, basis, None)
