"""Decoding against all paths and against the plain textbook search; the language model against its textbook formula."""

import collections
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_jax.errors import UserError
from ser_jax.tasks import language_model
from ser_jax.tasks.alphabet import BLANK, CHARACTERS, SIZE, decode, normalise
from ser_jax.tasks.decoding import beam, beam_search, collapse, greedy
from ser_jax.tasks.language_model import CharacterModel, read_texts

SENTENCES = ["the cat sat on the mat", "a cat and a rat", "that rat sat", "the hat of the cat", "tea at ten"]
LITTLE = (0, 1, 2, BLANK)  # space, a, b and the blank: few enough symbols to go through all paths
words = st.lists(st.text("ab ", max_size=8), max_size=8).map(lambda texts: [*texts, "ab"])


def frames(seed, length, symbols=range(SIZE), sharpness=2.0):
    """Random log-probabilities f32[length, 28]; −inf for all symbols but these."""
    logits = np.full((length, SIZE), -np.inf)
    logits[:, list(symbols)] = sharpness * np.random.default_rng(seed).normal(size=(length, len(symbols)))
    return (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)


def over_all_paths(log_probs, symbols):
    """{text: log P}, by the sum over every path."""
    found = collections.defaultdict(float)
    for path in itertools.product(symbols, repeat=len(log_probs)):
        text = "".join(CHARACTERS[symbol] for symbol, _ in itertools.groupby(path) if symbol != BLANK)
        found[text] += math.exp(sum(float(frame[symbol]) for frame, symbol in zip(log_probs, path)))
    return {text: math.log(probability) for text, probability in found.items() if probability > 0}


def textbook_beam(log_probs, width, model=None, lm_weight=0.0, length_bonus=0.0):
    """Prefix beam search with dictionaries and probabilities, as it is written down: [(text, score)]."""

    def score(prefix, ends):
        total = math.log(sum(ends)) if sum(ends) else -math.inf
        return total + (lm_score(model, prefix, lm_weight, length_bonus) if model else 0.0)

    kept = {"": (1.0, 0.0)}
    for frame in np.exp(log_probs.astype(np.float64)).tolist():
        found = collections.defaultdict(lambda: [0.0, 0.0])
        for prefix, (blank, letter) in kept.items():
            found[prefix][0] += (blank + letter) * frame[BLANK]
            for label, character in enumerate(CHARACTERS):
                if prefix[-1:] == character:
                    found[prefix][1] += letter * frame[label]
                    found[prefix + character][1] += blank * frame[label]
                else:
                    found[prefix + character][1] += (blank + letter) * frame[label]
        kept = dict(sorted(found.items(), key=lambda item: -score(*item))[:width])
    ended = [(text, score(text, ends) + (lm_weight * model.log_probability(text, "") if model else 0.0))
             for text, ends in kept.items()]
    return sorted((item for item in ended if item[1] > -math.inf), key=lambda item: -item[1])


def lm_score(model, text, lm_weight, length_bonus, end=False):
    steps = [model.log_probability(text[:i], text[i]) for i in range(len(text))]
    return lm_weight * (sum(steps) + (model.log_probability(text, "") if end else 0.0)) + length_bonus * len(text)


def assert_same_ranking(found, expected):
    """The same texts with the same scores; texts of equal score in any order."""
    assert dict(found) == pytest.approx(dict(expected), rel=1e-6, abs=1e-6)
    assert len(found) == len(expected)
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


@given(st.lists(st.integers(0, BLANK), max_size=30))
@settings(max_examples=100, deadline=None)
def test_collapse_merges_repeats_and_drops_blanks(path):
    expected = decode([symbol for symbol, _ in itertools.groupby(path) if symbol != BLANK])
    assert collapse(path) == expected
    certain = np.full((len(path), SIZE), -np.inf)
    certain[np.arange(len(path)), path] = 0
    assert greedy(certain) == expected
    assert beam(certain, 3) == [(expected, 0.0)]


def test_beam_search_finds_the_most_probable_text_where_greedy_does_not():
    # Two frames, P(blank) = 0.6, P(a) = 0.4: the best path is empty (0.36), but the paths of "a" together have 0.64.
    log_probs = np.log(np.full((2, SIZE), 1e-30))
    log_probs[:, BLANK], log_probs[:, 1] = np.log(0.6), np.log(0.4)
    assert greedy(log_probs) == ""
    (text, score), (other, other_score) = beam(log_probs, 2)
    assert (text, other) == ("a", "") and np.exp([score, other_score]) == pytest.approx([0.64, 0.36])


@given(st.integers(0, 10**6), st.integers(0, 5), st.floats(0.1, 8))
@settings(max_examples=150, deadline=None)
def test_a_beam_that_drops_nothing_has_the_probability_of_every_text(seed, length, sharpness):
    log_probs = frames(seed, length, LITTLE, sharpness)
    truth = over_all_paths(log_probs, LITTLE)
    assert sum(map(math.exp, truth.values())) == pytest.approx(1, abs=1e-5)
    found = beam(log_probs, 1000)
    assert_same_ranking(found, list(truth.items()))
    assert truth[beam_search(log_probs, 1000)] == pytest.approx(max(truth.values()), abs=1e-6)


@given(st.integers(0, 10**6), st.integers(1, 14), st.sampled_from([1, 2, 3, 7, 30]), st.floats(0.3, 4))
@settings(max_examples=150, deadline=None)
def test_a_narrow_beam_agrees_with_the_textbook(seed, length, width, sharpness):
    log_probs = frames(seed, length, sharpness=sharpness)
    found, expected = beam(log_probs, width), textbook_beam(log_probs, width)
    assert_same_ranking(found, expected)
    assert found[0][0] == beam_search(log_probs, width) == expected[0][0]


def test_prefixes_that_leave_the_beam_and_come_back_are_the_same_prefix():
    log_probs = frames(1, 60, LITTLE, 0.3)  # many paths for few texts: prefixes leave and return all the time
    for width in (1, 2, 4, 9):
        assert_same_ranking(beam(log_probs, width), textbook_beam(log_probs, width))


@given(st.integers(0, 10**6), st.floats(0, 2), st.floats(-1, 2), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_language_model_and_length_enter_the_score(seed, lm_weight, length_bonus, order):
    model = CharacterModel(["ab ba", "abba a", "b"], order)
    options = {"language_model": model, "lm_weight": lm_weight, "length_bonus": length_bonus}
    log_probs = frames(seed, 5, LITTLE)
    truth = {text: score + lm_score(model, text, lm_weight, length_bonus, end=True)
             for text, score in over_all_paths(log_probs, LITTLE).items()}
    assert_same_ranking(beam(log_probs, 1000, **options), list(truth.items()))
    log_probs = frames(seed, 9)
    assert_same_ranking(beam(log_probs, 8, **options), textbook_beam(log_probs, 8, model, lm_weight, length_bonus))


def test_a_language_model_mends_a_misheard_word():
    heard = "-".join("the cat set on the mat").replace(" ", "  ")  # one e for a
    log_probs = np.full((len(heard), SIZE), np.log(1e-6))
    for frame, character in zip(log_probs, heard):
        frame[BLANK if character == "-" else CHARACTERS.index(character)] = np.log(0.9)
    unsure = heard.index("s-e") + 2
    log_probs[unsure, CHARACTERS.index("e")], log_probs[unsure, CHARACTERS.index("a")] = np.log(0.5), np.log(0.4)
    assert beam_search(log_probs, 20) == greedy(log_probs) == "the cat set on the mat"
    model = CharacterModel(SENTENCES)
    assert beam_search(log_probs, 20, model, length_bonus=0) == "the cat sat on the mat"
    assert beam_search(log_probs, 20, model, lm_weight=0, length_bonus=0) == "the cat set on the mat"


def test_what_cannot_be_decoded_is_refused():
    assert beam_search(np.zeros((0, SIZE))) == greedy(np.zeros((0, SIZE))) == ""
    for wrong in (np.zeros((3, 27)), np.zeros(SIZE), np.full((2, SIZE), np.nan)):
        with pytest.raises(ValueError, match="log_probs of shape"):
            beam_search(wrong)
    with pytest.raises(ValueError, match="width 0"):
        beam_search(np.zeros((1, SIZE)), 0)
    with pytest.raises(ValueError, match="no path"):
        beam_search(np.full((2, SIZE), -np.inf))


def witten_bell(texts, order, context, character):
    """P(character | context) as it is written down; "^" starts a text, "$" ends it."""
    if len(context) > order - 1:
        context = context[-(order - 1):] if order > 1 else ""
    below = 1 / SIZE if not context else witten_bell(texts, order, context[1:], character)
    after = collections.Counter()
    for text in texts:
        padded = f"^{text}$"
        for i in range(1, len(padded)):
            if padded[:i].endswith(context):
                after[padded[i]] += 1
    if not after:
        return below if context else 1 / SIZE
    return (after[character] + len(after) * below) / (after.total() + len(after))


@given(words, st.integers(1, 5), st.text("ab c", max_size=7), st.integers(1, 40))
@settings(max_examples=200, deadline=None)
def test_character_model_is_witten_bell_and_sums_to_one(texts, order, prefix, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(language_model, "_CHUNK", chunk)  # counted in pieces or at once: the same
        model = CharacterModel(texts, order)
    assert np.exp(model.table.astype(np.float64)).sum(1) == pytest.approx(1, abs=1e-5)
    clean = [text for text in map(normalise, texts) if text]
    assert (model.texts, model.characters) == (len(clean), sum(map(len, clean)))
    for character in ("a", "b", " ", "z", ""):
        expected = witten_bell(clean, order, f"^{prefix}", character or "$")
        assert math.exp(model.log_probability(prefix, character)) == pytest.approx(expected, rel=1e-4)
    total = sum(math.exp(model.log_probability(prefix, character)) for character in [*CHARACTERS, ""])
    assert total == pytest.approx(1, abs=1e-5)
    contexts = {f"^{text}"[end - length:end]
                for text in clean for end in range(1, len(text) + 2) for length in range(min(order, end + 1))}
    assert len(model.table) == len(model.next) == len(contexts)


def test_perplexity_falls_on_training_text_and_is_that_of_the_probabilities():
    values = [CharacterModel(SENTENCES, order).perplexity(SENTENCES) for order in range(1, 7)]
    assert all(longer < shorter for shorter, longer in zip(values, values[1:])) and values[0] < SIZE and values[-1] < 2
    model = CharacterModel(SENTENCES)
    text = "The cat sat!"
    total = sum(model.log_probability("the cat sat"[:i], character) for i, character in enumerate([*"the cat sat", ""]))
    assert model.perplexity([text]) == pytest.approx(math.exp(-total / 12))
    assert model.perplexity(["the cat sat on the mat"]) < model.perplexity(["tam eht no tas tac eht"])


def test_what_no_language_model_can_be_made_of(tmp_path):
    with pytest.raises(ValueError, match="no text"):
        CharacterModel(["", "123"])
    for order in (0, 13):
        with pytest.raises(ValueError, match="must be 1 to 12"):
            CharacterModel(["a"], order)
    with pytest.raises(ValueError, match="'É' is not one of"):
        CharacterModel(["a"]).log_probability("É", "a")
    with pytest.raises(UserError, match="absent.txt: cannot be read"):
        read_texts(tmp_path / "absent.txt")
    (tmp_path / "empty.txt").write_text("\n12\n")
    with pytest.raises(UserError, match="no text with a character"):
        read_texts(tmp_path / "empty.txt")
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(UserError, match="cannot be read as text"):
        read_texts(tmp_path / "latin.txt")


def test_texts_of_a_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes("\ufeffThe cat.\r\n\r\nSat, down\n77\n".encode())
    assert read_texts(path) == ["The cat.", "Sat, down"]
