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
        return gru_plain(x, mask, initial, *weights)


def gru_plain(x, mask, initial, gate_kernel, gate_bias, candidate_kernel, candidate_bias):
    """Reference form, left to automatic differentiation: (outputs f32[B, T, H], final state f32[B, H])."""

    def step(h, inputs):
        x, valid = inputs
        gates = jax.nn.sigmoid(jnp.concatenate([x, h], 1) @ gate_kernel + gate_bias)
        reset, update = jnp.split(gates, 2, axis=1)
        candidate = jnp.tanh(jnp.concatenate([x, reset * h], 1) @ candidate_kernel + candidate_bias)
        new = update * h + (1 - update) * candidate
        return jnp.where(valid[:, None], new, h), jnp.where(valid[:, None], new, 0)

    return _over_time(step, initial, x, mask)


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
