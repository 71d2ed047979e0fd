"""Best paths through hidden Markov models: a loop over all phones (decoding) and a given sequence (forced alignment).

Batched and masked, inside jit. Only sums and maxima of float32 are taken, so the results of an utterance are the same
bits whatever its padding and its neighbours. The loops end with the longest utterance: padding costs memory only.
All scores are natural logarithms; −inf forbids. Shapes: B utterances, T frames, P phones, S = 3 P states (state
3 p + k is third k of phone p), N states of the longest sequence to align.

Ties: from a frame back to the one before, staying in the state goes before coming from another one, and a phone with a
smaller number before those after it.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from ser_jax.corpora.phones import STATES


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PhoneLoop:
    """Phones in any order, each a left-to-right model of three states without skips (so of three frames at least).

    Attributes:
      stay: f32[P, 3], of a frame in the same state as the one before.
      leave: f32[P, 3], of going on to the next third; from the last one: of the end of the phone.
      follow: f32[P, P], of phone j after phone i at [i, j].
      start: f32[P], of a phone at the beginning.
      end: f32[P], of the end of the utterance after a phone.
    """

    stay: jax.Array
    leave: jax.Array
    follow: jax.Array
    start: jax.Array
    end: jax.Array


def decode(scores, lengths, graph):
    """Best path of each utterance through a loop over all phones.

    It starts in the first state of a phone at frame 0 and ends in the last state of one at the last valid frame. Kept
    for the way back are 5 P bytes per frame (240 for 48 phones, beside the 576 of the scores): which states were
    entered, and the score of the end of each phone, from which the phone before is found where it is needed.

    Args:
      scores: f32[B, T, S] of the states, e.g. scaled log-likelihoods.
      lengths: i32[B], valid frames.
      graph: a PhoneLoop.

    Returns:
      (i32[B, T] states, −1 beyond the length; f32[B] score of the path). A row without any path (shorter than three
      frames) is −1 throughout and scores −inf.
    """
    graph = jax.tree.map(jnp.asarray, graph)
    batch, frames, _ = scores.shape
    stay, leave = graph.stay.T, graph.leave.T

    def step(number, carry):
        best, entry, kept = carry  # [3, B, P] of the frame before; [B, P], of a phone that begins at this frame
        frame = _frame(scores, number, 1).reshape(batch, -1, STATES).transpose(2, 0, 1)
        arrive = jnp.concatenate([entry[None], best[:-1] + leave[:-1, None]])
        remain = best + stay[:, None]
        entered = arrive > remain
        valid = number < lengths[:, None]
        best = jnp.where(valid, jnp.maximum(arrive, remain) + frame, best)
        left = best[-1] + leave[-1]
        bits = (entered * jnp.array([1, 2, 4], jnp.uint8)[:, None, None]).sum(0, dtype=jnp.uint8)
        return best, (left[:, :, None] + graph.follow).max(1), _store(kept, (bits, left), number)

    nowhere = jnp.full((STATES, batch, len(graph.start)), -jnp.inf, scores.dtype)
    first = jnp.broadcast_to(graph.start, nowhere.shape[1:]).astype(scores.dtype)
    kept = jnp.zeros((frames, *first.shape), jnp.uint8), jnp.zeros((frames, *first.shape), scores.dtype)
    used = jnp.minimum(lengths.max(), frames)
    best, _, (all_bits, all_left) = lax.fori_loop(0, used, step, (nowhere, first, kept))
    ends = best[-1] + leave[-1] + graph.end
    last, score = ends.argmax(1), ends.max(1)

    def back(turn, carry):
        state, path = carry
        number = used - 1 - turn
        bits, left = _frame(all_bits, number, 0), _frame(all_left, jnp.maximum(number - 1, 0), 0)
        phone, third = state // STATES, state % STATES
        entered = (jnp.take_along_axis(bits, phone[:, None], 1)[:, 0] >> third.astype(jnp.uint8)) & 1
        before = jnp.argmax(left + graph.follow.T[phone], axis=1) * STATES + STATES - 1
        previous = jnp.where(entered == 0, state, jnp.where(third == 0, before, state - 1))
        valid = number < lengths
        return jnp.where(valid, previous, state), _store(path, jnp.where(valid, state, -1), number)

    state = (last * STATES + STATES - 1).astype(jnp.int32)
    states = lax.fori_loop(0, used, back, (state, jnp.full((frames, batch), -1, jnp.int32)))[1].T
    return jnp.where(score[:, None] > -jnp.inf, states, -1), score


def align(scores, lengths, states, num_states):
    """Best way through a given sequence of states, strictly left to right without skips: forced alignment.

    Kept for the way back is one byte per frame and state of the sequence: with the 180 states of 60 phones, 180 bytes
    per frame, beside the scores.

    Args:
      scores: f32[B, T, S] of the states.
      lengths: i32[B], valid frames.
      states: i32[B, N], the sequence of each utterance, padded with any state.
      num_states: i32[B], its length.

    Returns:
      (i32[B, T] places in the row of `states`, rising from 0 to num_states − 1, −1 beyond the length; f32[B] score). A
      row with fewer frames than states, or with no path of finite score, is −1 throughout and scores −inf.
    """
    (batch, frames, _), places = scores.shape, jnp.arange(states.shape[1])
    unreached = jnp.where(places == 0, 0, -jnp.inf).astype(scores.dtype)

    def step(number, carry):
        best, kept = carry
        arrive = jnp.where(places == 0, -jnp.inf, jnp.roll(best, 1, axis=1))
        entered = arrive > best
        reached = jnp.maximum(arrive, best) + jnp.take_along_axis(_frame(scores, number, 1), states, 1)
        reached = jnp.where((number > 0) | (places == 0), reached, -jnp.inf)  # frame 0 is the first state's
        return jnp.where(number < lengths[:, None], reached, best), _store(kept, entered, number)

    used = jnp.minimum(lengths.max(), frames)
    first = jnp.broadcast_to(unreached, states.shape), jnp.zeros((frames, *states.shape), bool)
    best, all_entered = lax.fori_loop(0, used, step, first)
    last = num_states - 1
    score = jnp.take_along_axis(best, jnp.maximum(last, 0)[:, None], 1)[:, 0]
    score = jnp.where((lengths > 0) & (num_states > 0), score, -jnp.inf)

    def back(turn, carry):
        place, path = carry
        number = used - 1 - turn
        came = jnp.take_along_axis(_frame(all_entered, number, 0), place[:, None], 1)[:, 0]
        valid = number < lengths
        return jnp.where(valid & came, place - 1, place), _store(path, jnp.where(valid, place, -1), number)

    start = last.astype(jnp.int32), jnp.full((frames, batch), -1, jnp.int32)
    path = lax.fori_loop(0, used, back, start)[1].T
    return jnp.where(score[:, None] > -jnp.inf, path, -1), score


def _frame(array, number, axis):
    return lax.dynamic_index_in_dim(array, number, axis, keepdims=False)


def _store(arrays, values, number):
    """The arrays [T, …] with the values […] at this frame."""
    return jax.tree.map(lambda array, value: lax.dynamic_update_index_in_dim(array, value, number, 0), arrays, values)
