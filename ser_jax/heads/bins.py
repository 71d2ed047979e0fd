"""Ratings from 1 to 5 as three classes, the auxiliary targets of Neumann and Vu (2019)."""

import numpy as np

from ser_jax.errors import UserError

BINS = ("low", "medium", "high")  # [1, 2], (2, 4) and [4, 5]
UNKNOWN = -1
# Means of ratings of which one was entered a step off the scale: a few turns of IEMOCAP lie half a step outside [1, 5].
LOWEST, HIGHEST = 0.5, 5.5


def bins(ratings, ids, column):
    """The number of the bin of each rating, UNKNOWN where there is none: int32[N].

    Args:
      ratings: float[N], NaN where unknown.
      ids: of the rows, for the message.
      column: its name, for the message.

    Raises:
      UserError: a rating more than half a step outside [1, 5].
    """
    ratings = np.asarray(ratings, np.float64)
    known = ~np.isnan(ratings)
    outside = known & ~((ratings >= LOWEST) & (ratings <= HIGHEST))
    if outside.any():
        row = int(outside.argmax())
        raise UserError(
            f"{column} of {np.asarray(ids, object)[row]!r} is {ratings[row]:g}: low, medium and high are bins of "
            f"ratings from 1 to 5 ({int(outside.sum())} such rows); correct it in the corpus or leave these rows out "
            "with --where"
        )
    number = np.where(ratings <= 2, 0, np.where(ratings < 4, 1, 2))
    return np.where(known, number, UNKNOWN).astype(np.int32)
