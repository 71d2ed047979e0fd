"""Heads: what is trained on frozen features. To add one, write a class with the interface of `Head` and enter it in
`HEADS`."""

import importlib
from typing import Protocol

from ser_jax.errors import UsageError, suggestion

HEADS = {
    "compare": "ser_jax.heads.svm:CompareHead",
    "linear": "ser_jax.heads.svm:LinearHead",
    "logistic": "ser_jax.heads.svm:LogisticHead",
    "ols": "ser_jax.heads.regression:OlsHead",
    "ridge": "ser_jax.heads.regression:RidgeHead",
}
DEFAULTS = {"labels": "linear", "numbers": "ridge"}


class Head(Protocol):
    """A classifier or regression with its own scaling and its own choice of hyper-parameters, made from the rows it is
    given and no others.

    Attributes:
      name: its name in HEADS.
      predicts: "labels" or "numbers".
      needs_dev: `fit` needs rows with `dev` set.
      selection: one line on how hyper-parameters are chosen.
    """

    name: str
    predicts: str
    needs_dev: bool
    selection: str

    def fit(self, x, y, groups, dev, select=None):
        """Fits on the training side of a fold.

        Args:
          x: float32[N, D].
          y: labels, text, length N; or float64[N].
          groups: speaker of each row, length N, for inner folds.
          dev: bool[N], the rows of the dev part.
          select: None, or `(x, y) -> columns`, to be called on the rows of every single fit, inner ones included.

        Returns:
          a fitted model: `.classes` (sorted list, empty for numbers), `.scores(x) -> float64[M, K]` (greater = more of
          that class; the prediction itself, K = 1, for numbers), `.coef` (float64[K, D], 0 for what was not selected),
          `.chosen` (JSON-able hyper-parameters), `.unconverged` (number of fits that stopped at the limit of
          iterations).
        """


def make_head(name):
    """The head called `name`.

    Raises:
      UsageError: no such head.
    """
    if name not in HEADS:
        raise UsageError(f"--head {name}: unknown{suggestion(name, HEADS)}; known: {', '.join(HEADS)}")
    module, attribute = HEADS[name].split(":")
    return getattr(importlib.import_module(module), attribute)()
