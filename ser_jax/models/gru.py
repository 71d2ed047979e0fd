"""Recurrent layers that run over the valid prefix of each row: GRU and LSTM as in TensorFlow 1, reversal in time.

Shapes: B batch, T time, D features in, H units. A mask is bool[B, T], true on a prefix of each row.
"""

import jax
import jax.numpy as jnp
from flax import nnx

glorot_uniform = nnx.initializers.glorot_uniform()


class GRU(nnx.Module):
    """Gated recurrent unit of TensorFlow 1 (`GRUCell`): the reset gate acts before the recurrent product.

        r, u = sigmoid([x, h] G + g)        c = tanh([x, r h] C + b)        h' = u h + (1 - u) c

    (PyTorch and cuDNN reset after the product, so their weights do not carry over.)

    Args:
      features_in: D.
      units: H.
      rngs: `nnx.Rngs`.

    Attributes:
      state_size: H.
    """

    def __init__(self, features_in, units, *, rngs):
        self.units = self.state_size = units
        self.gate_kernel = nnx.Param(glorot_uniform(rngs.params(), (features_in + units, 2 * units)))
        self.gate_bias = nnx.Param(jnp.ones(2 * units))
        self.candidate_kernel = nnx.Param(glorot_uniform(rngs.params(), (features_in + units, units)))
        self.candidate_bias = nnx.Param(jnp.zeros(units))

    def __call__(self, x, mask, initial=None):
        """Runs over time; a masked step carries the state on.

        Args:
          x: f32[B, T, D].
          mask: bool[B, T], a prefix of each row.
          initial: f32[B, H], the state before the first step; None = zeros.

        Returns:
          outputs f32[B, T, H], zero where masked; state f32[B, H] after the last valid step of each row.
        """
        if initial is None:
            initial = jnp.zeros((x.shape[0], self.units), x.dtype)
        weights = (self.gate_kernel[...], self.gate_bias[...], self.candidate_kernel[...], self.candidate_bias[...])
        return gru(x, mask, initial, *weights)


def gru_plain(x, mask, initial, gate_kernel, gate_bias, candidate_kernel, candidate_bias):
    """Reference form of `gru`, left to automatic differentiation; the tests hold the two together."""

    def step(h, inputs):
        x, valid = inputs
        gates = jax.nn.sigmoid(jnp.concatenate([x, h], 1) @ gate_kernel + gate_bias)
        reset, update = jnp.split(gates, 2, axis=1)
        candidate = jnp.tanh(jnp.concatenate([x, reset * h], 1) @ candidate_kernel + candidate_bias)
        new = update * h + (1 - update) * candidate
        return jnp.where(valid[:, None], new, h), jnp.where(valid[:, None], new, 0)

    return _over_time(step, initial, x, mask)


@jax.custom_vjp
def gru(x, mask, initial, gate_kernel, gate_bias, candidate_kernel, candidate_bias):
    """GRU over time: (outputs f32[B, T, H], final state f32[B, H]); arguments as in `GRU.__call__`, weights [D + H, …].

    The backward pass is written by hand: only what one step owes to the next is computed step by step, every weight's
    gradient is one product over all steps at once. The products with x stay inside the forward loop, where their results
    need not go through memory. Values of x at masked positions do not matter as long as they are finite.
    """
    weights = gate_kernel, gate_bias, candidate_kernel, candidate_bias
    step = _gru_step(weights, x.shape[2])

    def masked(h, inputs):
        new, _ = step(h, inputs[0])
        return _select(inputs[1], new, h), _select(inputs[1], new, 0)

    return _over_time(masked, initial, x, mask)


def _gru_step(weights, features_in):
    """A function (h, x) -> (next h, (gates, candidate)); the weights are taken apart once, before the loop."""
    gate_kernel, gate_bias, candidate_kernel, candidate_bias = weights
    units = candidate_bias.shape[0]
    of_x = jnp.concatenate([gate_kernel[:features_in], candidate_kernel[:features_in]], 1)
    bias = jnp.concatenate([gate_bias, candidate_bias])
    gate_of_h, candidate_of_h = gate_kernel[features_in:], candidate_kernel[features_in:]

    def step(h, x):
        from_x = x @ of_x + bias
        gates = _sigmoid(from_x[:, : 2 * units] + h @ gate_of_h)
        reset, update = gates[:, :units], gates[:, units:]
        candidate = jnp.tanh(from_x[:, 2 * units :] + (reset * h) @ candidate_of_h)
        return update * h + (1 - update) * candidate, (gates, candidate)

    return step


def _gru_forward(x, mask, initial, *weights):
    step = _gru_step(weights, x.shape[2])

    def masked(h, inputs):
        new, (gates, candidate) = step(h, inputs[0])
        return _select(inputs[1], new, h), (_select(inputs[1], new, 0), gates, candidate)

    x = x.swapaxes(0, 1)
    final, (outputs, gates, candidates) = jax.lax.scan(masked, initial, (x, mask.T))
    return (outputs.swapaxes(0, 1), final), (x, mask, initial, weights[0], weights[2], outputs, gates, candidates)


def _gru_backward(residual, gradients):
    x, mask, initial, gate_kernel, candidate_kernel, outputs, gates, candidates = residual
    features_in, units = x.shape[2], initial.shape[1]
    before = jnp.concatenate([initial[None], outputs[:-1]])  # the state before each step; 0 where masked, not needed there
    gate_from_h, candidate_from_h = _transposed(gate_kernel[features_in:]), _transposed(candidate_kernel[features_in:])

    def step(owed, inputs):
        """Of a loss: its gradient by the state after a step -> by that before, and by what enters sigmoid and tanh."""
        gradient, valid, h, gates, candidate = inputs
        reset, update = gates[:, :units], gates[:, units:]
        owed = owed + _select(valid, gradient, 0)
        own = _select(valid, owed, 0)
        d_candidate = own * (1 - update) * (1 - candidate * candidate)
        d_kept = d_candidate @ candidate_from_h
        d_gates = jnp.concatenate([d_kept * h * reset * (1 - reset), own * (h - candidate) * update * (1 - update)], 1)
        carried = d_gates @ gate_from_h + d_kept * reset
        return carried + _select(valid, owed * update, owed), (d_gates, d_candidate)

    inputs = (gradients[0].swapaxes(0, 1), mask.T, before, gates, candidates)
    d_initial, (d_gates, d_candidates) = jax.lax.scan(step, gradients[1], inputs, reverse=True)
    d_gates, d_candidates = _flat(d_gates), _flat(d_candidates)
    of_x, of_h, of_kept = (_transposed(_flat(rows)) for rows in (x, before, before * gates[..., :units]))
    d_x = d_gates @ gate_kernel[:features_in].T + d_candidates @ candidate_kernel[:features_in].T
    return (d_x.reshape(x.shape).swapaxes(0, 1), None, d_initial,
            jnp.concatenate([of_x @ d_gates, of_h @ d_gates]), d_gates.sum(0),
            jnp.concatenate([of_x @ d_candidates, of_kept @ d_candidates]), d_candidates.sum(0))


gru.defvjp(_gru_forward, _gru_backward)


def _flat(x):
    return x.reshape(-1, x.shape[-1])


def _transposed(matrix):
    """The transpose as an array of its own: XLA:CPU multiplies by it faster than by a transposed view."""
    return jax.lax.optimization_barrier(matrix.T)


def _select(valid, a, b):
    return jnp.where(valid[:, None], a, b)


def _sigmoid(x):
    """By tanh, which XLA:CPU has in vector form."""
    return 0.5 * jnp.tanh(0.5 * x) + 0.5


class LSTM(nnx.Module):
    """Long short-term memory of TensorFlow 1 (`BasicLSTMCell`); its forget bias of 1 is the initial value of the bias.

        i, j, f, o = [x, h] K + b        c' = sigmoid(f) c + sigmoid(i) tanh(j)        h' = sigmoid(o) tanh(c')

    Args:
      features_in: D.
      units: H.
      rngs: `nnx.Rngs`.

    Attributes:
      state_size: 2 H; a state is [c; h].
    """

    def __init__(self, features_in, units, *, rngs):
        self.units, self.state_size = units, 2 * units
        self.kernel = nnx.Param(glorot_uniform(rngs.params(), (features_in + units, 4 * units)))
        self.bias = nnx.Param(jnp.zeros(4 * units).at[2 * units : 3 * units].set(1))

    def __call__(self, x, mask, initial=None):
        """As `GRU.__call__`, with states f32[B, 2 H]; the outputs are the h of each step."""
        kernel, bias = self.kernel[...], self.bias[...]
        if initial is None:
            initial = jnp.zeros((x.shape[0], self.state_size), x.dtype)

        def step(state, inputs):
            x, valid = inputs
            c, h = jnp.split(state, 2, axis=1)
            i, j, f, o = jnp.split(jnp.concatenate([x, h], 1) @ kernel + bias, 4, axis=1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(j)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            state = jnp.where(valid[:, None], jnp.concatenate([c, h], 1), state)
            return state, jnp.where(valid[:, None], h, 0)

        return _over_time(step, initial, x, mask)


def _over_time(step, initial, x, mask):
    final, outputs = jax.lax.scan(step, initial, (x.swapaxes(0, 1), mask.T))
    return outputs.swapaxes(0, 1), final


@jax.custom_vjp
def reverse_time(x, mask):
    """Reverses the valid prefix of each row; what is masked stays where it is: [B, T, …], bool[B, T] -> [B, T, …].

    Its own inverse, and as a permutation its own transpose (automatic differentiation would scatter instead).
    """
    time = jnp.arange(mask.shape[1])
    source = jnp.where(mask, mask.sum(1)[:, None] - 1 - time, time)
    return jnp.take_along_axis(x, source.reshape(*source.shape, *(1,) * (x.ndim - 2)), 1)


reverse_time.defvjp(lambda x, mask: (reverse_time(x, mask), mask), lambda mask, gradient: (reverse_time(gradient, mask), None))
