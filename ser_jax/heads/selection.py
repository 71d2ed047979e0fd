"""Univariate selection of features by the F statistic, what papers call a Fisher score.

A head is given a selection as a function `(x, y) -> columns` and calls it on the rows of every single fit, so that
neither the tested rows nor those held out to choose a hyper-parameter have a say in it.
"""

import functools

import numpy as np

from ser_jax.errors import UsageError, suggestion

SELECTIONS = ("training", "all-data")


def f_scores(x, y):
    """F statistic of every column, as scikit-learn's f_regression (y of floats) and f_classif (y of labels).

    Args:
      x: float[N, D].
      y: length N; numbers or labels.

    Returns:
      float64[D]; 0 for a constant column (f_classif has NaN there), inf for one that explains all. Equal columns have
      equal scores to the last bit.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y)
    # Sums over rows go down all columns alike; a matrix product would round equal columns differently.
    constant, x = x.max(0) == x.min(0), x - x.mean(0)
    total = np.sum(x * x, axis=0)
    if y.dtype.kind == "f":
        centred = y - y.mean()
        explained = np.sum(x * centred[:, None], axis=0) ** 2 / np.sum(centred**2)
        groups = 2
    else:
        labels = sorted(set(y.tolist()))
        explained = sum(np.sum(x[y == label], axis=0) ** 2 / np.sum(y == label) for label in labels)
        groups = len(labels)
    rest, free = np.maximum(total - explained, 0), max(len(x) - groups, 1)
    score = np.divide(explained * free, rest * (groups - 1), out=np.full(len(total), np.inf), where=rest > 0)
    return np.where(constant, 0.0, score)


def strongest(x, y, count):
    """The `count` columns of x of the greatest F, rising int64[count]; of equals the first."""
    return np.sort(np.argsort(-f_scores(x, y), kind="stable")[:count])


def check_selection(count, rows):
    """Raises UsageError unless `count` features (or None, for all) can be selected on `rows` of SELECTIONS."""
    if rows not in SELECTIONS:
        known = ", ".join(SELECTIONS)
        raise UsageError(f"--selection {rows}: unknown{suggestion(rows, SELECTIONS)}; known: {known}")
    if count is not None and count < 1:
        raise UsageError(f"--select {count}: must be at least 1")
    if count is None and rows != "training":
        raise UsageError(f"--selection {rows}: nothing is selected without --select K")


def selection_inside(count):
    """The selection of the `count` strongest columns of the rows it is given."""
    return functools.partial(strongest, count=count)


def selection_beforehand(x, y, count):
    """The historical leak: the strongest columns over all rows, tested ones included, whatever rows it is given."""
    return functools.partial(_given, columns=strongest(x, y, count))


def _given(x, y, columns):
    return columns
