"""Layers shared by the models: masked, channels-last, invariant to padding.

Shapes: B batch, T time, C channels. A mask is bool[B, T], true on a prefix of each row.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

he_uniform = nnx.initializers.he_uniform()


class BatchNorm(nnx.Module):
    """Batch normalisation whose training statistics see only valid positions; masked positions of its output are zero.

    In inference mode it is an affine map per channel, so rows of a batch do not see each other. Under a mesh the mean is
    over the global batch.

    It can also hold the bias of the convolution before it. In training that bias cancels against the batch mean, so its
    gradient is zero and adding it to the whole activation would be a pass over memory for nothing; it only enters the
    running mean. (Some published parameter counts include these biases.)

    Args:
      features: C.
      decay: running statistics keep this share per step.
      epsilon: added to the variance.
      input_bias: hold the bias of the convolution before.
    """

    def __init__(self, features, *, decay=0.9, epsilon=1e-5, input_bias=True):
        self.input_bias = nnx.Param(jnp.zeros(features)) if input_bias else None
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.mean = nnx.BatchStat(jnp.zeros(features))
        self.var = nnx.BatchStat(jnp.ones(features))
        self.decay, self.epsilon = decay, epsilon
        self.use_running_average = False

    def __call__(self, x, mask):
        """x: f32[B, T, C], mask: bool[B, T] -> f32[B, T, C]."""
        weight = mask.astype(x.dtype)
        if self.use_running_average:
            factor = self.scale[...] * jax.lax.rsqrt(self.var[...] + self.epsilon)
            shift = self.bias[...] + (self._offset() - self.mean[...]) * factor
            return (x * factor + shift) * weight[..., None]
        y, mean, var = normalise(x, weight, self.scale[...], self.bias[...], self.epsilon)
        self.mean[...] = self.decay * self.mean[...] + (1 - self.decay) * (mean + self._offset())
        self.var[...] = self.decay * self.var[...] + (1 - self.decay) * var
        return y

    def _offset(self):
        return 0.0 if self.input_bias is None else self.input_bias[...]


def normalise_plain(x, weight, scale, bias, epsilon):
    """Reference form of `normalise`, left to automatic differentiation; the tests hold the two together."""
    weight = weight[..., None]
    count = jnp.maximum(weight.sum(), 1)
    mean = (x * weight).sum((0, 1)) / count
    var = (jnp.square(x - mean) * weight).sum((0, 1)) / count
    return ((x - mean) * jax.lax.rsqrt(var + epsilon) * scale + bias) * weight, mean, var


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def normalise(x, weight, scale, bias, epsilon):
    """Masked batch normalisation in training mode: f32[B, T, C], f32[B, T] in {0, 1} -> (f32[B, T, C], f32[C], f32[C]).

    The reductions over B and T are written as vector-matrix products and the backward pass by hand: the masks then cost
    next to nothing, while automatic differentiation of the plain form takes a third more of a whole training step on a
    CPU. No gradient flows through the returned mean and variance.
    """
    return _normalise_forward(x, weight, scale, bias, epsilon)[0]


def _normalise_forward(x, weight, scale, bias, epsilon):
    flat, valid = x.reshape(-1, x.shape[-1]), weight.reshape(-1)
    count = jnp.maximum(weight.sum(), 1)
    mean = valid @ flat / count
    var = jnp.maximum(valid @ (flat * flat) / count - mean * mean, 0)
    inverse = jax.lax.rsqrt(var + epsilon)
    factor = scale * inverse
    y = (x * factor + (bias - mean * factor)) * weight[..., None]
    return (y, mean, var), (x, weight, count, scale, mean, inverse)


def _normalise_backward(epsilon, residual, gradients):
    x, weight, count, scale, mean, inverse = residual
    flat, gradient, valid = x.reshape(-1, x.shape[-1]), gradients[0].reshape(-1, x.shape[-1]), weight.reshape(-1)
    d_bias = valid @ gradient
    d_scale = (valid @ (gradient * flat) - d_bias * mean) * inverse
    factor = scale * inverse
    slope = -factor * inverse * d_scale / count
    d_x = (gradient * factor + flat * slope - (factor * d_bias / count + mean * slope)) * valid[:, None]
    return d_x.reshape(x.shape), None, d_scale, d_bias


normalise.defvjp(_normalise_forward, _normalise_backward)


def conv1d(c_in, c_out, kernel, *, rngs):
    """Stride-1 SAME convolution, channels last; its bias lives in the `BatchNorm` that follows."""
    return nnx.Conv(c_in, c_out, (kernel,), use_bias=False, kernel_init=he_uniform, rngs=rngs)


class PatchConv(nnx.Module):
    """Convolution of a one-channel signal whose stride equals its kernel; an incomplete last patch is not used."""

    def __init__(self, c_out, kernel, *, rngs):
        self.kernel = nnx.Param(he_uniform(rngs.params(), (kernel, c_out)))

    def __call__(self, x):
        """f32[B, T] -> f32[B, T // kernel, c_out]."""
        size, c_out = self.kernel.shape
        steps = x.shape[1] // size
        return _thin_matmul(x[:, : steps * size].reshape(-1, size), self.kernel[...]).reshape(x.shape[0], steps, c_out)


@jax.custom_vjp
def _thin_matmul(x, kernel):
    """f32[N, K] @ f32[K, C] for a K of a few: its weight gradient is K vector-matrix products.

    (As one matmul that gradient spends a tenth of a whole training step on a CPU in a transposition.)
    """
    return x @ kernel


def _thin_matmul_backward(residual, gradient):
    x, kernel = residual
    return gradient @ kernel.T, jnp.stack([x[:, k] @ gradient for k in range(kernel.shape[0])])


_thin_matmul.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), _thin_matmul_backward)


def max_pool(x, window):
    """Maximum over windows of `window` steps that follow each other: f32[B, T, C] -> f32[B, T // window, C].

    The gradient goes to the first maximum (the tie rule of PyTorch). Built from slices with a rule of its own: the
    gradient of `.reshape(…).max(axis)` was found wrong in deep nets on XLA:CPU, and `nnx.max_pool` (select-and-scatter)
    is 4–5 times slower there.
    """
    batch, time, channels = x.shape
    return _window_max(x[:, : time // window * window].reshape(batch, time // window, window, channels))


max_pool3 = functools.partial(max_pool, window=3)


def first_maximum(windows):
    """Maximum over the last axis but one, and where it is met first: f32[…, W, C] -> (f32[…, C], int8[…, C]), W ≤ 128."""
    highest = windows[..., 0, :]
    first = jnp.zeros(highest.shape, jnp.int8)
    for place in range(1, windows.shape[-2]):
        value = windows[..., place, :]
        first = jnp.where(value > highest, jnp.int8(place), first)
        highest = jnp.maximum(highest, value)
    return highest, first


@jax.custom_vjp
def _window_max(windows):
    """f32[B, S, W, C] -> f32[B, S, C]."""
    return first_maximum(windows)[0]


def _window_max_forward(windows):
    highest, first = first_maximum(windows)
    return highest, (first, jnp.arange(windows.shape[2], dtype=jnp.int8))


def _window_max_backward(residual, gradient):
    first, places = residual
    return (jnp.where(first[:, :, None] == places[:, None], gradient[:, :, None], 0),)


_window_max.defvjp(_window_max_forward, _window_max_backward)


def pool_mask(mask, factor):
    """Mask after a VALID window of `factor` with stride `factor`: a window counts when all of it is valid."""
    lengths = mask.sum(1) // factor
    return jnp.arange(mask.shape[1] // factor) < lengths[:, None]


def apply_mask(x, mask):
    """Zeroes the masked positions, which is what a SAME convolution sees beyond the end of an unpadded input."""
    return x * mask[..., None].astype(x.dtype)


def masked_mean(x, mask):
    """Mean over time of the valid positions: f32[B, T, C], bool[B, T] -> f32[B, C]."""
    return apply_mask(x, mask).sum(1) / jnp.maximum(mask.sum(1), 1)[:, None].astype(x.dtype)


def masked_max(x, mask):
    """Maximum over time of the valid positions; 0 where a row has none."""
    highest = jnp.where(mask[..., None], x, -jnp.inf).max(1)
    return jnp.where(mask.any(1)[:, None], highest, 0)


def masked_std(x, mask):
    """Population standard deviation over time of the valid positions; its gradient is 0 where a channel does not vary."""
    variance = masked_mean(jnp.square(x - masked_mean(x, mask)[:, None]), mask)
    varies = variance > 0
    return jnp.where(varies, jnp.sqrt(jnp.where(varies, variance, 1)), 0)


POOLINGS = {"mean": masked_mean, "max": masked_max, "std": masked_std}
