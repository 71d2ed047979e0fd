"""Three bins of ratings: the borders, unknown ratings, ratings that cannot be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_jax.errors import UserError
from ser_jax.heads.bins import BINS, UNKNOWN, bins

ABOVE, BELOW = np.nextafter(2, 3), np.nextafter(4, 3)


@pytest.mark.parametrize(
    ("rating", "name"),
    [(0.5, "low"), (1, "low"), (2, "low"), (ABOVE, "medium"), (3, "medium"), (BELOW, "medium"), (4, "high"), (5, "high"), (5.5, "high")],
)
def test_low_ends_at_2_and_high_begins_at_4(rating, name):
    assert BINS[bins([rating], ["a"], "arousal")[0]] == name


def test_an_unknown_rating_has_no_bin():
    assert bins([np.nan, 5.0, np.nan], ["a", "b", "c"], "valence").tolist() == [UNKNOWN, 2, UNKNOWN]
    assert UNKNOWN not in range(len(BINS))


@pytest.mark.parametrize("rating", [np.nextafter(0.5, 0), np.nextafter(5.5, 6), 0.0, -1.0, np.inf, -np.inf])
def test_a_rating_that_cannot_be_names_its_utterance(rating):
    with pytest.raises(UserError, match=r"arousal of 'second' is .*from 1 to 5 \(1 such rows\).*--where"):
        bins([np.nan, rating, 3.0], ["first", "second", "third"], "arousal")


@given(st.lists(st.floats(1, 5), min_size=2, max_size=8).map(sorted))
def test_a_higher_rating_never_has_a_lower_bin(ratings):
    found = bins(ratings, [""] * len(ratings), "arousal")
    assert (np.diff(found) >= 0).all() and set(found) <= {0, 1, 2}
