"""Attentive convolutional net on log-mel frames beside a vector of constants (Neumann and Vu 2017, 2019).

A wide convolution over time, max-pooling, attention over the pooled windows; the sum is put beside features made
elsewhere (an autoencoder's, say) and three linear heads predict emotion, arousal and valence. Shapes: B batch, T
frames, D bands, C filters, P positions of the convolution, S pooling windows, V values of the vector.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
from flax import nnx

from ser_jax.errors import UsageError
from ser_jax.models.layers import first_maximum


@dataclasses.dataclass(frozen=True)
class AttentiveCNNConfig:
    """Sizes; with 26 bands and 4, 3 and 3 classes the defaults have 54,410 parameters, 64,650 beside 1024 values.

    Attributes:
      filters: of the convolution.
      kernel: frames that a filter spans; all bands.
      stride: frames between two positions of a filter.
      pool: positions in a pooling window, which is also the distance of two windows; an incomplete last one is not
        used.
      dropout: share of the concatenation that is dropped in training (0.8 on IEMOCAP, 0.7 on MSP-IMPROV).
    """

    filters: int = 200
    kernel: int = 10
    stride: int = 3
    pool: int = 30
    dropout: float = 0.8

    def __post_init__(self):
        for name in ("filters", "kernel", "stride"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}={getattr(self, name)}: must be at least 1")
        if not 1 <= self.pool <= 128:
            raise UsageError(f"pool={self.pool}: choose 1 to 128 positions")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout={self.dropout:g}: a share, at least 0 and less than 1")

    def windows(self, frames):
        """Pooling windows of an input of so many frames."""
        return max((frames - self.kernel) // self.stride + 1, 0) // self.pool

    def frames(self, windows):
        """Frames that so many pooling windows see."""
        return (windows * self.pool - 1) * self.stride + self.kernel

    def windows_with_sound(self, frames):
        """How many windows see at least one of the first so many frames (numbers and arrays)."""
        return -(-frames // (self.pool * self.stride))


class AttentiveCNN(nnx.Module):
    """Frames and a vector in, logits of three heads out.

    Args:
      config: an `AttentiveCNNConfig`.
      bands: D.
      windows: S, of which the net attends to all; those beyond the end of an input count as zeros.
      values: V, 0 for no vector.
      classes: {name of a head: number of its classes}.
      rngs: `nnx.Rngs` with a `params` stream.
    """

    def __init__(self, config, bands, windows, values, classes, *, rngs):
        # Glorot's bounds sqrt(6 / (fan in + fan out)). The convolution is one of height `kernel` and width D over an
        # image of one channel, which its fans are those of. (All are one draw because each costs half a second of
        # compilation.)
        seen, width, filters = config.kernel * bands, config.filters + values, config.filters
        draws = jax.random.uniform(
            rngs.params(), (seen * filters + filters + width * sum(classes.values()),), minval=-1
        )
        kernel, attention, heads = jnp.split(draws, [seen * filters, (seen + 1) * filters])
        self.kernel = nnx.Param(kernel.reshape(config.kernel, bands, filters) * (6 / (seen + seen * filters)) ** 0.5)
        self.bias = nnx.Param(jnp.zeros(filters))
        self.attention = nnx.Param(attention * (6 / (filters + 1)) ** 0.5)
        bounds = jnp.array([(6 / (width + size)) ** 0.5 for size in classes.values() for _ in range(size)])
        self.heads = nnx.Param(heads.reshape(width, -1) * bounds)
        self.heads_bias = nnx.Param(jnp.zeros(bounds.shape))
        self.dropout = nnx.Dropout(config.dropout)
        self.names, self.ends = tuple(classes), tuple(itertools.accumulate(classes.values()))
        self.windows, self.stride, self.pool = windows, config.stride, config.pool

    def __call__(self, x, vector, windows=None, *, rngs=None):
        """Applies the net.

        Args:
          x: f32[B, T, D], normalised, zero beyond the end of an utterance. T may end before the S windows do, where no
            utterance is longer.
          vector: f32[B, V].
          windows: int[B], from which window on a row is zero throughout (those are not computed), or None.
          rngs: `nnx.Rngs` with a `dropout` stream, or a key; needed in training mode.

        Returns:
          logits: {head: f32[B, K]}.
          representation: f32[B, C + V], what the heads see, before dropout.
          attention: f32[B, S], sums to one.
        """
        highest = conv_max(x, self.kernel[...], windows, self.stride, self.pool)
        highest = jnp.pad(highest, ((0, 0), (0, self.windows - highest.shape[1]), (0, 0)))
        # Bias and ReLU are monotone, so they may follow the maximum: a thirtieth of the work.
        pooled = jax.nn.relu(highest + self.bias[...])
        attention = jax.nn.softmax((pooled * self.attention[...]).sum(-1), axis=1)
        summed = (pooled * attention[..., None]).sum(1)
        representation = jnp.concatenate([summed, vector], axis=1)
        logits = self.dropout(representation, rngs=rngs) @ self.heads[...] + self.heads_bias[...]
        logits = jnp.split(logits, self.ends[:-1], axis=1)
        return {"logits": dict(zip(self.names, logits)), "representation": representation, "attention": attention}


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def conv_max(x, kernel, used, stride, pool):
    """Strongest response of every filter in each pooling window: convolution and max-pooling as one operation.

    Its backward pass is sparse: a window sends its gradient to the one position that won, whose frames lie side by side
    in memory. As a convolution that pass would cost as much as the forward one, here it is a tenth. On a CPU the
    forward pass goes window by window, so that the patches stay in the cache, and leaves out windows of zeros.

    Args:
      x: f32[B, T, D].
      kernel: f32[K, D, C].
      used: int[B], the number of windows of each row that are not zero throughout, or None for all.
      stride: frames between two positions.
      pool: positions in a window.

    Returns:
      f32[B, S, C] with S = ((T - K) // stride + 1) // pool.
    """
    return _conv_max_forward(x, kernel, used, stride, pool)[0]


def _conv_max_forward(x, kernel, used, stride, pool):
    size, bands, filters = kernel.shape
    windows = ((x.shape[1] - size) // stride + 1) // pool
    if windows < 1:
        raise ValueError(f"{x.shape[1]} frames do not fill a pooling window")
    matrix, rows = kernel.reshape(size * bands, filters), x.reshape(len(x), -1)

    def some(row, count):
        """`count` windows that follow each other, from the values of a row that they see."""
        responses = _patches(row, count * pool, size * bands, stride * bands) @ matrix
        return first_maximum(responses.reshape(count, pool, filters))

    if jax.default_backend() != "cpu":
        highest, first = jax.vmap(lambda row: some(row, windows))(rows)
        return highest, (x, kernel, first)

    def one_row(item):
        row, used = item

        def add_window(window, found):
            seen = jax.lax.dynamic_slice(
                row, (window * pool * stride * bands,), (((pool - 1) * stride + size) * bands,)
            )
            return [jax.lax.dynamic_update_slice(a, b, (window, 0)) for a, b in zip(found, some(seen, 1))]

        nothing = [jnp.zeros((windows, filters), kind) for kind in (x.dtype, jnp.int8)]
        return jax.lax.fori_loop(0, jnp.minimum(used, windows), add_window, nothing)

    used = jnp.full(len(x), windows) if used is None else used
    highest, first = jax.lax.map(one_row, (rows, used))
    return highest, (x, kernel, first)


def _conv_max_backward(stride, pool, residual, gradient):
    x, kernel, first = residual
    size, bands, filters = kernel.shape
    windows = first.shape[1]
    position = jnp.arange(windows)[:, None] * pool + first

    def add_row(total, item):
        row, start, gradient = item
        for window in range(windows):  # a sum of as many terms, which becomes one loop over total
            total = total + _slices(row, start[window], size * bands) * gradient[window][:, None]
        return total, None

    items = x.reshape(len(x), -1), position * (stride * bands), gradient
    total, _ = jax.lax.scan(add_row, jnp.zeros((filters, size * bands), x.dtype), items)
    # The compiler drops what follows where nobody asks for the gradient of the input.
    won = jnp.arange(pool)[:, None] == first[:, :, None]
    dense = jnp.where(won, gradient[:, :, None], 0).reshape(len(x), windows * pool, filters)
    _, to_input = jax.vjp(lambda x: _convolve(x, kernel, stride)[:, : windows * pool], x)
    return *to_input(dense), total.T.reshape(kernel.shape), None


conv_max.defvjp(_conv_max_forward, _conv_max_backward)


def conv_max_plain(x, kernel, stride, pool):
    """Reference form of `conv_max`, left to automatic differentiation; the tests hold the two together."""
    y = _convolve(x, kernel, stride)
    windows = y.shape[1] // pool
    y = y[:, : windows * pool].reshape(len(y), windows, pool, -1)
    return functools.reduce(jnp.maximum, [y[:, :, place] for place in range(pool)])


def _convolve(x, kernel, stride):
    return jax.lax.conv_general_dilated(x, kernel, (stride,), "VALID", dimension_numbers=("NHC", "HIO", "NHC"))


def _patches(row, count, size, step):
    """The first `count` pieces of `size` values, `step` apart: f32[N] -> f32[count, size]."""
    parts = -(-size // step)
    whole = max(count + parts - 1, 0) * step
    row = jnp.pad(row, (0, max(whole - len(row), 0)))[:whole].reshape(-1, step)
    blocks = [row[part : part + count, : min(size - part * step, step)] for part in range(parts)]
    return jnp.concatenate(blocks, axis=1)


def _slices(row, starts, size):
    """Pieces of `size` values of a row, one from each start: f32[N], int[C] -> f32[C, size]."""
    numbers = jax.lax.GatherDimensionNumbers(offset_dims=(1,), collapsed_slice_dims=(), start_index_map=(0,))
    within = jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS
    return jax.lax.gather(row, starts[:, None], numbers, (size,), mode=within)
