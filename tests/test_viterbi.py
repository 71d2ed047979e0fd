"""Best paths against the textbook search, with its ties, and against all paths."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_jax.tasks import viterbi
from ser_jax.tasks.viterbi import PhoneLoop

BATCH, FRAMES, PHONES, PLACES = 3, 9, 3, 5  # one shape, one compilation
decode, align = jax.jit(viterbi.decode), jax.jit(viterbi.align)
# Small whole numbers: their sums are exact, and many paths are equally good.
whole = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def draw(rng, *shape, forbidden=0.0):
    values = rng.integers(-2, 3, shape).astype(np.float32)
    return np.where(rng.random(shape) < forbidden, np.float32(-np.inf), values)


def loop(rng, phones=PHONES, forbidden=0.0):
    return PhoneLoop(stay=draw(rng, phones, 3), leave=draw(rng, phones, 3),
                     follow=draw(rng, phones, phones, forbidden=forbidden),
                     start=draw(rng, phones, forbidden=forbidden), end=draw(rng, phones, forbidden=forbidden))


def transition(graph, state, then):
    """Log score of one state after the other; −inf where it is not allowed."""
    (phone, third), (next_phone, next_third) = divmod(state, 3), divmod(then, 3)
    if state == then:
        return graph.stay[phone, third]
    if third < 2:
        return graph.leave[phone, third] if then == state + 1 else -np.inf
    return graph.leave[phone, 2] + graph.follow[phone, next_phone] if next_third == 0 else -np.inf


def textbook(scores, first, last, move, tie):
    """Viterbi with a full table of predecessors: (path, score); `tie(state)` gives the order they are tried in."""
    best, pointers = first + scores[0], []
    for frame in scores[1:]:
        before = []
        for state in range(len(frame)):
            candidates = tie(state)
            values = [best[other] + move(other, state) for other in candidates]
            before.append(candidates[int(np.argmax(values))])
        best = np.array([best[other] + move(other, state) for state, other in enumerate(before)]) + frame
        pointers.append(before)
    best = best + last
    path = [int(np.argmax(best))]
    for before in reversed(pointers):
        path.append(before[path[-1]])
    return path[::-1], best.max()


def textbook_decode(scores, graph):
    states = 3 * len(graph.start)
    first, last = np.full(states, -np.inf), np.full(states, -np.inf)
    first[::3], last[2::3] = graph.start, graph.leave[:, 2] + graph.end
    return textbook(scores, first, last, lambda a, b: transition(graph, a, b),
                    lambda state: [state] + [other for other in range(states) if other != state])


def textbook_align(scores, states):
    first, last = np.full(len(states), -np.inf), np.full(len(states), -np.inf)
    first[0], last[-1] = 0, 0
    return textbook(scores[:, states], first, last, lambda a, b: 0.0 if b in (a, a + 1) else -np.inf,
                    lambda place: [place, place - 1] if place else [place])


@given(whole)
@settings(max_examples=40, deadline=None)
def test_decode_is_the_textbook_search(rng):
    graph, scores = loop(rng, forbidden=0.2), draw(rng, BATCH, FRAMES, 3 * PHONES, forbidden=0.1)
    lengths = rng.integers(1, FRAMES + 1, BATCH).astype(np.int32)
    states, values = map(np.asarray, decode(scores, lengths, graph))
    assert states.dtype == np.int32 and values.dtype == np.float32
    for row, length in enumerate(lengths):
        path, value = textbook_decode(scores[row, :length], graph)
        assert values[row] == value
        expected = np.full(FRAMES, -1)
        if value > -np.inf:
            expected[:length] = path
        np.testing.assert_array_equal(states[row], expected)


@given(whole)
@settings(max_examples=40, deadline=None)
def test_align_is_the_textbook_search(rng):
    scores = draw(rng, BATCH, FRAMES, 3 * PHONES, forbidden=0.1)
    states = rng.integers(0, 3 * PHONES, (BATCH, PLACES)).astype(np.int32)
    lengths = rng.integers(1, FRAMES + 1, BATCH).astype(np.int32)
    counts = rng.integers(1, PLACES + 1, BATCH).astype(np.int32)
    places, values = map(np.asarray, align(scores, lengths, states, counts))
    for row, (length, count) in enumerate(zip(lengths, counts)):
        path, value = textbook_align(scores[row, :length], states[row, :count])
        assert values[row] == value
        expected = np.full(FRAMES, -1)
        if value > -np.inf:
            expected[:length] = path
        np.testing.assert_array_equal(places[row], expected)


def test_no_path_of_all_is_better():
    """Every one of the 6^6 paths of six frames through two phones, for floats without ties."""
    rng = np.random.default_rng(1)
    graph = PhoneLoop(*(rng.normal(size=shape).astype(np.float32) for shape in ((2, 3), (2, 3), (2, 2), (2,), (2,))))
    scores = rng.normal(size=(2, 6, 6)).astype(np.float32)
    moves = np.array([[transition(graph, a, b) for b in range(6)] for a in range(6)])
    paths = np.array(list(itertools.product(range(6), repeat=6)))
    steps = moves[paths[:, :-1], paths[:, 1:]].sum(1)
    ends = np.where((paths[:, 0] % 3 == 0) & (paths[:, -1] % 3 == 2),
                    graph.start[paths[:, 0] // 3] + (graph.leave[:, 2] + graph.end)[paths[:, -1] // 3], -np.inf)
    states, values = decode(scores, np.array([6, 6]), graph)
    for row in range(2):
        total = steps + ends + scores[row][np.arange(6), paths].sum(1)
        assert values[row] == pytest.approx(total.max(), rel=1e-5)
        np.testing.assert_array_equal(states[row], paths[total.argmax()])


def test_no_alignment_of_all_is_better():
    rng = np.random.default_rng(2)
    scores, sequence = rng.normal(size=(1, 9, 4)).astype(np.float32), [2, 0, 3, 3, 1]
    ways = [np.repeat(np.arange(5), np.diff([0, *cuts, 9])) for cuts in itertools.combinations(range(1, 9), 4)]
    totals = [scores[0, np.arange(9), np.array(sequence)[way]].sum() for way in ways]
    places, values = align(scores, np.array([9]), np.array([sequence]), np.array([5]))
    assert values[0] == pytest.approx(max(totals), rel=1e-5)
    np.testing.assert_array_equal(places[0], ways[int(np.argmax(totals))])


def test_padding_and_neighbours_change_no_bit():
    rng = np.random.default_rng(3)
    graph = PhoneLoop(*(rng.normal(size=shape).astype(np.float32) for shape in ((3, 3), (3, 3), (3, 3), (3,), (3,))))
    scores = rng.normal(size=(BATCH, FRAMES, 9)).astype(np.float32)
    lengths = np.array([7, 9, 5], np.int32)
    sequences, counts = rng.integers(0, 9, (BATCH, PLACES)).astype(np.int32), np.array([4, 5, 3], np.int32)
    for row, length in enumerate(lengths):
        scores[row, length:] = np.nan
    together, aligned = decode(scores, lengths, graph), align(scores, lengths, sequences, counts)
    for row in (0, 2):
        one, length = slice(row, row + 1), lengths[row]
        alone = decode(scores[one, :7], lengths[one], graph)
        np.testing.assert_array_equal(together[0][row, :7], alone[0][0])
        assert together[1][row] == alone[1][0]
        alone = align(scores[one, :7], lengths[one], sequences[one, :4], counts[one])
        np.testing.assert_array_equal(aligned[0][row, :7], alone[0][0])
        assert aligned[1][row] == alone[1][0]
        assert (aligned[0][row, length:] == -1).all() and (together[0][row, length:] == -1).all()


def test_rows_without_a_path_are_named_by_their_score():
    rng = np.random.default_rng(4)
    scores, graph = draw(rng, BATCH, FRAMES, 9), loop(rng)
    states, values = decode(scores, np.array([0, 2, 3]), graph)
    assert values[0] == values[1] == -np.inf and np.isfinite(values[2])
    assert (np.asarray(states[:2]) == -1).all() and (states[2, :3] % 3 == np.arange(3)).all()
    sequences = rng.integers(0, 9, (BATCH, PLACES)).astype(np.int32)
    places, values = align(scores, np.array([4, 5, 0]), sequences, np.array([5, 5, 0]))
    assert values[0] == values[2] == -np.inf and np.isfinite(values[1])
    assert (np.asarray(places[0]) == -1).all() and (np.asarray(places[2]) == -1).all()
    np.testing.assert_array_equal(places[1], [0, 1, 2, 3, 4, -1, -1, -1, -1])
    places, values = align(scores, np.array([0, 3, 9]), sequences, np.array([1, 0, 1]))
    assert values[0] == values[1] == -np.inf and np.isfinite(values[2])
    assert (np.asarray(places) == [[-1], [-1], [0]]).all()
