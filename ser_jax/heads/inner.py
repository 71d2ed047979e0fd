"""Inner folds: whole training speakers held out in turn, to choose a hyper-parameter."""

import numpy as np

from ser_jax.protocols.folds import assign_groups

INNER_FOLDS = 5


def inner_parts(groups, labels):
    """Up to INNER_FOLDS parts of whole speakers, with about the same share of every label.

    Args:
      groups: speaker of each row, length N.
      labels: to stratify over, length N.

    Returns:
      (parts, what): bool[N] for each part, the rows that it holds out; "speakers", or, when there is one speaker only
      and the parts are of rows, a text that says so.
    """
    groups, what = np.asarray(groups, dtype=object), "speakers"
    if len(set(groups)) < 2:
        groups, what = np.arange(len(groups)).astype(str), "rows (one training speaker)"
    folds = min(INNER_FOLDS, len(set(groups)))
    part = assign_groups(groups, labels, folds, "inner")
    return [part == fold for fold in range(folds)], what
