"""The recogniser's spelling: normalisation, labels, and how many frames CTC needs for them."""

import itertools
import re

import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_jax.tasks import alphabet
from ser_jax.tasks.alphabet import BLANK, SIZE, decode, encode, frames_needed, normalise


@pytest.mark.parametrize("text, spelt", [
    ("  Don’t   stop, Café!\tÀ LA   carte\n", "dont stop cafe a la carte"),
    ("Straße, ﬁne, ＦＵＬＬ width, Ångström", "strasse fine full width angstrom"),
    ("well-known half‑life", "wellknown halflife"),
    ("wait...what—really--yes…and/or", "wait what really yes and or"),
    ("in 1999 he paid £5 (five)", "in he paid five"),
    ("Привет мир 你好", ""),
    ("", ""),
])
def test_normalise(text, spelt):
    assert normalise(text) == spelt


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_any_text_is_spelt_with_words_of_letters_and_comes_back(text):
    spelt = normalise(text)
    assert re.fullmatch(r"([a-z]+( [a-z]+)*)?", spelt)
    assert normalise(spelt) == spelt and normalise(f" {text}\n") == spelt
    assert decode(encode(text)) == spelt
    assert encode(text).dtype == np.int32 and len(encode(text)) == len(spelt)


@given(st.text(st.characters(max_codepoint=127)))
@settings(max_examples=200, deadline=None)
def test_plain_letters_are_all_kept(text):
    assert normalise(text).replace(" ", "") == re.sub("[^a-z]", "", text.lower())


def test_labels():
    assert encode("az b").tolist() == [1, 26, 0, 2]
    assert (BLANK, SIZE, len(alphabet.CHARACTERS)) == (27, 28, 27)
    assert decode([]) == "" and decode(range(27)) == " abcdefghijklmnopqrstuvwxyz"
    for labels in ([BLANK], [1, -1]):
        with pytest.raises(ValueError, match="labels are 0 to 26"):
            decode(labels)


def test_frames_needed_is_where_the_loss_of_ctc_becomes_finite():
    texts = ("a", "aa", "hello", "aabb", "book keeper", "zzz")
    needed = [frames_needed(encode(text)) for text in texts]
    assert needed == [sum(2 * len(list(group)) - 1 for _, group in itertools.groupby(text)) for text in texts]
    assert frames_needed([]) == 0
    labels = np.stack([np.pad(encode(text), (0, 11 - len(text))) for text in texts])
    label_padding = np.arange(11) >= np.array([[len(text)] for text in texts])
    for fewer, finite in ((0, True), (1, False)):
        padding = np.arange(15) >= np.array(needed)[:, None] - fewer
        loss = optax.ctc_loss(np.zeros((6, 15, SIZE)), padding, labels, label_padding, blank_id=BLANK)
        assert ((np.asarray(loss) < 100) == finite).all()
