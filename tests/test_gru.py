"""Recurrent layers: TensorFlow 1's cells written by hand, gradients, masks, reversal in time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_jax.models import gru as layers
from ser_jax.models.gru import GRU, LSTM, reverse_time

CELLS = {"gru": GRU, "lstm": LSTM}
BATCH, TIME, FEATURES, UNITS = 4, 7, 5, 3


@functools.cache
def _graph(name):
    return nnx.split(nnx.eval_shape(lambda: CELLS[name](FEATURES, UNITS, rngs=nnx.Rngs(0))))


def _weights(name, seed=0):
    """Weights of a cell of which none is at a value where an error would not show."""
    random, state = np.random.default_rng(seed), nnx.to_pure_dict(_graph(name)[1])
    return {key: random.normal(size=leaf.shape).astype(np.float32) for key, leaf in state.items()}


def _width(name):
    return UNITS * (2 if name == "lstm" else 1)


def _inputs(lengths=(7, 4, 0, 1), seed=1, width=UNITS, dtype=np.float32):
    """(x, which holds noise where masked too; mask; initial state)."""
    random = np.random.default_rng(seed)
    x, initial = random.normal(size=(BATCH, TIME, FEATURES)), random.normal(size=(BATCH, width))
    return x.astype(dtype), _mask(lengths), initial.astype(dtype)


def _mask(lengths):
    return np.arange(TIME) < np.array(lengths)[:, None]


def _cell(name, weights):
    graphdef, state = _graph(name)
    nnx.replace_by_pure_dict(state, weights)
    return nnx.merge(graphdef, state)


@functools.partial(jax.jit, static_argnums=0)
def _run_both(name, weights, x, mask, initial):
    cell = _cell(name, weights)
    return cell(x, mask, initial), cell(x, mask)


def _run(name, weights, x, mask, initial):
    """(outputs, final state), from zeros when `initial` is None."""
    given = np.zeros((BATCH, _width(name)), np.float32) if initial is None else initial
    return jax.tree.map(np.asarray, _run_both(name, weights, x, mask, given)[initial is None])


# ------------------------------------------------------------------------------------------------ TensorFlow 1's cells


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _gru_cell(w, x, h):
    """tf.nn.rnn_cell.GRUCell.call: one row, one step."""
    gates = _sigmoid(np.concatenate([x, h]) @ w["gate_kernel"] + w["gate_bias"])
    r, u = np.split(gates, 2)
    c = np.tanh(np.concatenate([x, r * h]) @ w["candidate_kernel"] + w["candidate_bias"])
    h = u * h + (1 - u) * c
    return h, h


def _lstm_cell(w, x, state):
    """tf.nn.rnn_cell.BasicLSTMCell.call with the forget bias inside the bias."""
    c, h = np.split(state, 2)
    i, j, f, o = np.split(np.concatenate([x, h]) @ w["kernel"] + w["bias"], 4)
    c = c * _sigmoid(f) + _sigmoid(i) * np.tanh(j)
    h = np.tanh(c) * _sigmoid(o)
    return np.concatenate([c, h]), h


REFERENCES = {"gru": _gru_cell, "lstm": _lstm_cell}


@pytest.mark.parametrize("name", CELLS)
@settings(deadline=None, max_examples=20)
@given(lengths=st.lists(st.integers(0, TIME), min_size=BATCH, max_size=BATCH), seed=st.integers(0, 2**16),
       zeros=st.booleans())
def test_rows_of_any_length_are_what_the_cell_of_tensorflow_gives_step_by_step(name, lengths, seed, zeros):
    weights = _weights(name, seed)
    x, mask, initial = _inputs(lengths, seed + 1, _width(name))
    outputs, final = _run(name, weights, x, mask, None if zeros else initial)
    weights = {key: leaf.astype(np.float64) for key, leaf in weights.items()}
    for row, length in enumerate(lengths):
        state = np.zeros(_width(name)) if zeros else initial[row].astype(np.float64)
        for step in range(length):
            state, expected = REFERENCES[name](weights, x[row, step].astype(np.float64), state)
            np.testing.assert_allclose(outputs[row, step], expected, atol=1e-5)
        np.testing.assert_allclose(final[row], state, atol=1e-5)
        assert (outputs[row, length:] == 0).all()


@pytest.mark.parametrize(("name", "features", "units", "count"), [
    ("gru", 128, 256, 295_680), ("gru", 256, 256, 393_984), ("lstm", 128, 256, 394_240),
])
def test_parameter_counts_are_those_of_the_specification(name, features, units, count):
    cell = nnx.eval_shape(lambda: CELLS[name](features, units, rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(cell, nnx.Param))) == count
    assert cell.state_size == units * (2 if name == "lstm" else 1)


def test_initial_weights_are_those_of_tensorflow():
    """Kernels Glorot uniform over their whole shape; the gates of the GRU and the forget gate of the LSTM begin open."""
    gru, lstm = (jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(cell(40, 30, rngs=nnx.Rngs(3))))) for cell in (GRU, LSTM))
    for kernel, width in ((gru["gate_kernel"], 60), (gru["candidate_kernel"], 30), (lstm["kernel"], 120)):
        bound = (6 / (70 + width)) ** 0.5
        assert kernel.shape == (70, width) and 0.97 * bound < np.abs(kernel).max() <= bound
        assert kernel.std() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert (gru["gate_bias"] == 1).all() and (gru["candidate_bias"] == 0).all()
    assert lstm["bias"].tolist() == [0] * 60 + [1] * 30 + [0] * 30


# ------------------------------------------------------------------------------------------------ masks


@pytest.mark.parametrize("name", CELLS)
def test_two_halves_are_the_whole_when_the_state_is_handed_on(name):
    x, _, initial = _inputs(width=_width(name))
    run = functools.partial(_run, name, _weights(name))
    outputs, final = run(x, _mask((7, 5, 2, 4)), initial)
    first, state = run(x, _mask((4, 4, 2, 4)), initial)
    second, state = run(np.roll(x, -4, 1), _mask((3, 1, 0, 0)), state)
    np.testing.assert_allclose(np.concatenate([first[:, :4], second[:, :3]], 1), outputs, atol=1e-6)
    np.testing.assert_allclose(state, final, atol=1e-6)


@pytest.mark.parametrize("name", CELLS)
def test_what_is_masked_changes_neither_result_nor_gradient(name):
    x, mask, initial = _inputs(width=_width(name))

    @jax.jit
    def gradient(x):
        def loss(weights, x, initial):
            outputs, final = _cell(name, weights)(x, mask, initial)
            # Not masked: what flows back into the zeros of a masked position must go nowhere.
            return jnp.sin(outputs + 0.5).sum() + jnp.cos(final).sum()

        return jax.value_and_grad(loss, (0, 1, 2))(_weights(name), x, initial)

    (loss, (weights, d_x, d_initial)), (other_loss, others) = gradient(x), gradient(np.where(mask[..., None], x, 1e3))
    assert loss == other_loss and (np.asarray(d_x)[~mask] == 0).all() and (np.asarray(d_x)[mask] != 0).all()
    for a, b in zip(jax.tree.leaves((weights, d_x, d_initial)), jax.tree.leaves(others), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(d_initial[2], -np.sin(initial[2]), rtol=1e-5)  # the empty row's state goes through untouched


# ------------------------------------------------------------------------------------------------ gradients of the GRU


@functools.partial(jax.jit, static_argnums=0)
def _gradient(form, arguments, mask, cotangents):
    """Of a scalar that all outputs enter, the zeros of masked positions included; and the outputs."""

    def loss(x, initial, *weights):
        outputs, final = getattr(layers, form)(x, mask, initial, *weights)
        return (outputs * cotangents[0]).sum() + (final * cotangents[1]).sum(), (outputs, final)

    return jax.value_and_grad(loss, tuple(range(6)), has_aux=True)(*arguments)


def _problem(lengths, dtype):
    random = np.random.default_rng(5)
    x, mask, initial = _inputs(lengths, dtype=dtype)
    shapes = [(FEATURES + UNITS, 2 * UNITS), (2 * UNITS,), (FEATURES + UNITS, UNITS), (UNITS,)]
    weights = [random.normal(size=shape).astype(dtype) for shape in shapes]
    cotangents = [random.normal(size=shape).astype(dtype) for shape in ((BATCH, TIME, UNITS), (BATCH, UNITS))]
    return (x, initial, *weights), mask, cotangents


NAMES = ("x", "initial", "gate_kernel", "gate_bias", "candidate_kernel", "candidate_bias")
LENGTHS = {"all valid": (7, 7, 7, 7), "ragged": (7, 4, 2, 1), "an empty row": (3, 0, 6, 1), "nothing": (0, 0, 0, 0)}


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_the_fast_form_is_the_plain_one(lengths, dtype, tolerance):
    with jax.enable_x64(True):
        (_, expected), plain = _gradient("gru_plain", *_problem(lengths, np.float64))
    with jax.enable_x64(dtype == np.float64):
        (_, outputs), gradient = _gradient("gru", *_problem(lengths, dtype))
    for name, a, b in zip(("outputs", "final", *NAMES), (*outputs, *gradient), (*expected, *plain), strict=True):
        assert a.dtype == dtype, name
        np.testing.assert_allclose(a, b, atol=tolerance * max(1, float(np.abs(b).max())), err_msg=name)


def test_the_gradient_by_every_argument_agrees_with_finite_differences():
    with jax.enable_x64(True):
        arguments, mask, cotangents = _problem(LENGTHS["an empty row"], np.float64)
        _, gradient = _gradient("gru", arguments, mask, cotangents)
        random, h = np.random.default_rng(9), 1e-6
        for position, name in enumerate(NAMES):
            direction = random.normal(size=arguments[position].shape)

            def loss_at(distance):
                moved = list(arguments)
                moved[position] = moved[position] + distance * direction  # noqa: B023
                return float(_gradient("gru", tuple(moved), mask, cotangents)[0][0])

            slope = float((gradient[position] * direction).sum())
            assert abs(slope) > 0.1, name
            assert (loss_at(h) - loss_at(-h)) / (2 * h) == pytest.approx(slope, rel=1e-6), name


# ------------------------------------------------------------------------------------------------ reversal


@jax.jit
def _reversed(x, mask, cotangent):
    return reverse_time(x, mask), jax.grad(lambda x: (reverse_time(x, mask) * cotangent).sum())(x)


@settings(deadline=None, max_examples=25)
@given(lengths=st.lists(st.integers(0, TIME), min_size=BATCH, max_size=BATCH))
def test_reversal_flips_the_valid_prefix_of_each_row(lengths):
    x, mask, _ = _inputs(lengths)
    cotangent = _inputs(seed=3)[0]
    flipped, gradient = map(np.asarray, _reversed(x, mask, cotangent))
    for row, length in enumerate(lengths):
        for found, source in ((flipped, x), (gradient, cotangent)):
            np.testing.assert_array_equal(found[row, :length], source[row, :length][::-1])
            np.testing.assert_array_equal(found[row, length:], source[row, length:])
    np.testing.assert_array_equal(_reversed(flipped, mask, cotangent)[0], x)


def test_reversal_takes_rows_of_any_rank():
    mask = np.array([[True, True, True], [True, True, False]])
    assert reverse_time(jnp.array([[1, 2, 3], [4, 5, 6]]), mask).tolist() == [[3, 2, 1], [5, 4, 6]]
    x = np.arange(2 * 3 * 4).reshape(2, 3, 2, 2)
    np.testing.assert_array_equal(reverse_time(x, mask)[1], x[1, [1, 0, 2]])
