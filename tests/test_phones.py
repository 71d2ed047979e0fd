"""TIMIT's phone sets against the groups of Lee and Hon (1989), table I."""

import pytest

from ser_jax.corpora import phones
from ser_jax.corpora.phones import fold, is_silence, to_48

# Labels that share a model; the first names it (but for the closures and silences).
SHARED = [("ng", "eng"), ("m", "em"), ("n", "nx"), ("hh", "hv"), ("uw", "ux"), ("ax", "ax-h"), ("er", "axr"),
          ("cl", "pcl", "tcl", "kcl"), ("vcl", "bcl", "dcl", "gcl"), ("sil", "h#", "pau")]
# Models that are not told apart in the score; the first names them.
CONFUSED = [("sil", "cl", "vcl", "epi"), ("l", "el"), ("n", "en"), ("sh", "zh"), ("aa", "ao"),
            ("ih", "ix"), ("ah", "ax")]


def test_61_labels_become_48_and_39():
    assert (len(phones.TRANSCRIBED), len(phones.MODELLED), len(phones.SCORED)) == (61, 48, 39)
    assert "q" in phones.TRANSCRIBED and to_48("q") is None
    model = {label: group[0] for group in SHARED for label in group[1:]}
    assert set(model) <= set(phones.TRANSCRIBED)
    for label in set(phones.TRANSCRIBED) - {"q"}:
        assert to_48(label) == model.get(label, label), label
    assert phones.MODELLED == tuple(sorted(phones.MODELLED))


def test_folding_is_that_of_the_groups_from_any_set():
    score = {label: group[0] for group in CONFUSED for label in group[1:]}
    for label in phones.MODELLED:
        assert fold(label, "timit") == score.get(label, label), label
    for label in set(phones.TRANSCRIBED) - {"q"}:
        assert fold(label, "timit") == fold(to_48(label), "timit") in phones.SCORED
    assert all(fold(label, "timit") == label for label in phones.SCORED)
    assert {fold(label, "timit") for label in phones.MODELLED} == set(phones.SCORED)
    assert fold("zh", "own") == "zh" and fold("anything", "own") == "anything"


def test_silence():
    silent = {label for label in phones.MODELLED if is_silence(label, "timit")}
    assert silent == {"sil", "cl", "vcl", "epi"}
    assert {label for label in phones.TRANSCRIBED if is_silence(label, "timit")} == {
        "h#", "pau", "epi", "pcl", "tcl", "kcl", "bcl", "dcl", "gcl"}
    assert is_silence("sil", "own") and not is_silence("cl", "own")


@pytest.mark.parametrize("call, word", [
    (lambda: to_48("cl"), "'cl'"), (lambda: fold("xx", "timit"), "'xx'"), (lambda: fold("q", "timit"), "'q'"),
    (lambda: fold("aa", "arpabet"), "'arpabet'"), (lambda: is_silence("xx", "timit"), "'xx'")])
def test_unknown_labels_are_named(call, word):
    with pytest.raises(ValueError, match=word):
        call()
