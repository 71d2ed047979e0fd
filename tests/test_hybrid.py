"""From posteriors to phones: bigram, priors, decoding, tuning, forced alignment and error rates."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_jax import intervals, metrics
from ser_jax.tasks import hybrid
from ser_jax.tasks.hybrid import FER, PER, PER_WITHOUT_SILENCE, Bigram, Decoder, folded, phones_of, realign, scaled

PHONES = ("a", "b", "sil")
TRANSCRIPTS = [("sil", "a", "b", "sil"), ("sil", "b", "a", "b", "sil"), ("a", "a", "sil")]
BIGRAM = Bigram(TRANSCRIPTS, PHONES)
FLAT = np.zeros(9, np.float32)


def posteriors(states, sure=0.9):
    """f32[T, 9] that favour these states."""
    values = np.full((len(states), 9), (1 - sure) / 8)
    values[np.arange(len(states)), states] = sure
    return np.log(values).astype(np.float32)


def random_posteriors(seed, length):
    logits = np.random.default_rng(seed).normal(size=(length, 9))
    return (logits - np.logaddexp.reduce(logits, 1, keepdims=True)).astype(np.float32)


def states_of(phones, each=1):
    return np.repeat([3 * PHONES.index(phone) + third for phone in phones for third in range(3)], each)


# ---------------------------------------------------------------------------------------------- bigram and priors


def test_bigram_is_witten_bell():
    words = [("<", *transcript, ">") for transcript in TRANSCRIPTS]
    pairs = [pair for word in words for pair in zip(word[:-1], word[1:])]
    singles = [second for _, second in pairs]

    def single(b):
        return (singles.count(b) + len(set(singles)) / 4) / (len(singles) + len(set(singles)))

    def after(a, b):
        following = [second for first, second in pairs if first == a]
        return (following.count(b) + len(set(following)) * single(b)) / (len(following) + len(set(following)))

    for i, a in enumerate(PHONES):
        assert BIGRAM.follow[i] == pytest.approx([math.log(after(a, b)) for b in PHONES], rel=1e-5)
        assert BIGRAM.end[i] == pytest.approx(math.log(after(a, ">")), rel=1e-5)
    assert BIGRAM.start == pytest.approx([math.log(after("<", b) / (1 - after("<", ">"))) for b in PHONES], rel=1e-5)


@given(st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6), min_size=1, max_size=6))
@settings(max_examples=50, deadline=None)
def test_bigram_probabilities_sum_to_one(transcripts):
    bigram = Bigram([*transcripts, []], "abcde")  # e never occurs
    assert np.exp(bigram.start.astype(float)).sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(np.exp(bigram.follow.astype(float)).sum(1) + np.exp(bigram.end), 1, atol=1e-5)
    assert np.isfinite(bigram.follow).all() and np.isfinite(bigram.start).all() and np.isfinite(bigram.end).all()


def test_bigram_refuses_nothing_and_the_unknown():
    with pytest.raises(ValueError, match="no transcript"):
        Bigram([(), ()], PHONES)
    with pytest.raises(ValueError, match="'x'"):
        Bigram([("a", "x")], PHONES)


def test_priors_are_shares_with_a_floor():
    labels = [np.array([0, 0, 1, -1]), np.array([-1, 1], np.int16), np.array([2] * 1996)]
    np.testing.assert_allclose(np.exp(hybrid.priors(labels, 4, floor=0.01)), [0.0025, 0.0025, 0.998, 0.0025], rtol=1e-5)
    np.testing.assert_allclose(np.exp(hybrid.priors([[0, 1, 1, 1]], 2)), [0.25, 0.75], rtol=1e-6)
    with pytest.raises(ValueError, match="no frame"):
        hybrid.priors([np.array([-1, -1])], 4)


def test_phones_of_a_path():
    assert phones_of([0, 0, 1, 2, 2, 0, 1, 2, 3, 4, 5, -1, -1]) == [0, 0, 1]
    assert phones_of([0, 0, 0]) == [0] and phones_of([]) == [] and phones_of([-1]) == []
    assert phones_of([2, 4, 4, 3]) == [0, 1, 1]  # any path: one that goes back to a first state begins a phone


# ---------------------------------------------------------------------------------------------- decoding


def test_recognises_what_the_posteriors_say_whatever_the_order_and_lengths():
    spoken = [("sil", "a", "b", "sil"), ("a",), ("sil", "a", "a", "b") * 7, ("b", "b", "b")]
    each = [2, 1, 1, 4]
    found = Decoder(BIGRAM, FLAT).decode([posteriors(states_of(phones, n)) for phones, n in zip(spoken, each)])
    assert found == [list(phones) for phones in spoken]
    two = Decoder(BIGRAM, FLAT).decode([random_posteriors(0, 2), random_posteriors(1, 3)])
    assert two[0] == [] and len(two[1]) == 1


def textbook_score(decoder, log_posteriors, path):
    """Score of a path by the definition."""
    phones = phones_of(path)
    acoustic = sum(log_posteriors[t, state] - decoder.log_priors[state] for t, state in enumerate(path))
    pairs = sum(BIGRAM.follow[a, b] for a, b in zip(phones[:-1], phones[1:]))
    return (decoder.acoustic_scale * acoustic + BIGRAM.start[phones[0]] + pairs + BIGRAM.end[phones[-1]]
            - decoder.insertion_penalty * len(phones))


def test_scale_priors_bigram_and_penalty_enter_as_defined():
    """The answer of seven frames: one or two phones, of all 3 · 15 + 9 · 6 ways."""
    priors = np.log(np.random.default_rng(0).dirichlet(np.full(9, 5))).astype(np.float32)
    paths = [np.repeat(np.arange(3 * n) % 9, np.diff([0, *cuts, 7])) for n in (1, 2)
             for cuts in itertools.combinations(range(1, 7), 3 * n - 1)]
    numbers = []
    for seed in range(6):
        frames = random_posteriors(seed, 7)
        for scale, penalty in ((1.0, 0.0), (0.3, 1.0), (2.0, -6.0)):
            decoder = Decoder(BIGRAM, priors, scale, penalty)
            ways = [(path % 3 + 3 * np.where(path < 3, a, b)) for path in paths for a in range(3) for b in range(3)]
            best = max(ways, key=lambda way: textbook_score(decoder, frames, way))
            assert decoder.decode([frames])[0] == [PHONES[number] for number in phones_of(best)]
            numbers.append(len(phones_of(best)))
    assert set(numbers) == {1, 2}


def test_more_penalty_never_gives_more_phones():
    frames = [random_posteriors(seed, 60) for seed in range(4)]
    counts = [[len(phones) for phones in Decoder(BIGRAM, FLAT, 1.0, penalty).decode(frames)]
              for penalty in (-20, 0, 2, 50)]
    assert (np.diff(counts, axis=0) <= 0).all()
    assert counts[0] == [20] * 4 and counts[-1] == [1] * 4  # three frames per phone; a single phone


def test_decoder_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="6 priors for 3 phones"):
        Decoder(BIGRAM, np.zeros(6))
    with pytest.raises(ValueError, match="acoustic scale 0"):
        Decoder(BIGRAM, FLAT, acoustic_scale=0)


def test_tune_takes_the_first_of_the_best():
    frames, references = [random_posteriors(seed, 60) for seed in range(4)], [("sil", "a", "sil")] * 4
    grid = [(1.0, 0.0), (1.0, 60.0), (1.0, 50.0)]
    best, tried = hybrid.tune(lambda *setting: Decoder(BIGRAM, FLAT, *setting), frames, references, "own", grid)
    assert [(row["acoustic_scale"], row["insertion_penalty"]) for row in tried] == grid
    answers = Decoder(BIGRAM, FLAT, 1.0, 0.0).decode(frames)
    expected = metrics.evaluate(PER, [folded(phones, "own") for phones in references],
                                [folded(phones, "own") for phones in answers])
    assert tried[0]["PER"] == expected > tried[1]["PER"] == tried[2]["PER"]
    assert best == (1.0, 60.0)


def test_realign_follows_the_transcript():
    spoken, each = [("sil", "a", "b", "sil"), ("a", "a"), ("b",)], [2, 3, 1]
    paths = [states_of(phones, n) for phones, n in zip(spoken, each)]
    frames = [posteriors(path) for path in paths]
    found = realign([*frames, frames[2][:2], frames[2]], [*spoken, ("b",), ()], FLAT, PHONES)
    for path, states in zip(paths, found):
        assert states.dtype == np.int16
        np.testing.assert_array_equal(states, path)
    assert found[3:] == [None, None]
    by_number = realign(frames, [[PHONES.index(phone) for phone in phones] for phones in spoken], FLAT)
    np.testing.assert_array_equal(np.concatenate(by_number), np.concatenate(paths))
    with pytest.raises(ValueError, match="'x'"):
        realign(frames[:1], [("x",)], FLAT, PHONES)


def test_realign_weighs_by_the_priors():
    frames = np.log(np.full((7, 9), 1 / 9, np.float32))
    priors = np.array([-1, -5, -1, 0, 0, 0, 0, 0, 0], np.float32)
    assert realign([frames], [("a",)], priors, PHONES)[0].tolist() == [0, 1, 1, 1, 1, 1, 2]
    np.testing.assert_array_equal(scaled(frames, priors), frames - priors)


# ---------------------------------------------------------------------------------------------- error rates


def distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (x != y)))
    return row[-1]


@given(st.lists(st.tuples(*[st.lists(st.sampled_from(["aa", "b", "k"]), max_size=6)] * 2), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_phone_error_rate_is_levenshtein(pairs):
    truth, answers = ([" ".join(phones) for phones in side] for side in zip(*pairs))
    total = sum(len(a) for a, _ in pairs)
    expected = sum(distance(a, b) for a, b in pairs) / total if total else math.nan
    assert metrics.evaluate(PER, truth, answers) == pytest.approx(expected, nan_ok=True)
    assert metrics.evaluate(PER_WITHOUT_SILENCE, truth, answers) == pytest.approx(expected, nan_ok=True)


def test_silences_merge_or_go_and_other_labels_are_kept():
    text = folded(["sil", "cl", "k", "ix", "ih", "vcl", "epi", "b", "zh", "sil"], "timit")
    assert text == "sil k ih ih sil b sh sil"
    assert folded(["sil", "sil", "cl", "cl"], "own") == "sil cl cl"
    answer = folded(["k", "ih", "b", "sh"], "timit")
    assert metrics.evaluate(PER, [text], [answer]) == 4 / 8
    assert metrics.evaluate(PER_WITHOUT_SILENCE, [text], [answer]) == 1 / 5
    assert metrics.evaluate(PER, ["sil sil k"], ["sil k k"]) == 1 / 2


def test_rates_are_resampled_by_speaker():
    truth, answers, speakers = ["a b c", "a b", "a"], ["a b c", "a", "b a b"], ["s", "s", "t"]
    assert metrics.evaluate(PER, truth, answers) == 3 / 6
    assert intervals.speaker_bootstrap(truth, answers, speakers, PER) == (1 / 5, 2 / 1)
    wrong = [hybrid.frame_errors(labels, states) for labels, states in
             [([0, 1, -1, 2], [0, 2, 5, 2]), ([3, 3], [3, 3]), ([-1, 1], [0, 0])]]
    assert wrong == [(3, 1), (2, 0), (1, 1)]
    frames, errors = zip(*wrong)
    assert metrics.evaluate(FER, frames, errors) == 2 / 6
    assert intervals.speaker_bootstrap(frames, errors, speakers, FER) == (1 / 5, 1.0)
    with pytest.raises(ValueError, match=r"\(3,\) frames but states of \(2,\)"):
        hybrid.frame_errors([0, 1, 2], [0, 1])
    with pytest.raises(ValueError, match="2 references but 1"):
        metrics.evaluate(PER, ["a", "b"], ["a"])


def test_chance_of_the_deaf():
    assert metrics.chance_level(PER, ["a b", "a b", "c"]) == 2 / 5  # of always "a b": 0 + 0 + 2 errors
    assert metrics.chance_level(PER, ["a", "b", "c", "d"]) == 3 / 4
    assert metrics.chance_level(PER_WITHOUT_SILENCE, ["sil", "sil a"]) == 1.0  # of nothing at all
