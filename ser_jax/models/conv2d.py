"""Two-dimensional convolution, and batch normalisation with pooling, channels last, as fast as each backend does them.

Shapes: N windows, H and W the two axes of a map, C channels. Everything is VALID: no padding, stride 1 of a convolution,
a pooling by 2 × 2 that drops an odd last row or column. The `…_plain` forms are the references the tests hold on to.

Measured on one core of a CPU, 128 windows of the published ConvNet, in ms (XLA's own convolution -> the form here):
5 × 4 of one channel, forward 23 -> 17 and weight gradient 42 -> 14; 3 × 3 of 64 channels, forward 105 -> 66. XLA's own
weight gradient of the latter takes 286, that by the input 60 (kept). On other backends XLA's own is used throughout.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

BLOCK = 8  # windows at a time in the weight gradient on a CPU
he_normal = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")


class Conv2D(nnx.Module):
    """VALID convolution; its bias lives in the `BatchNorm` that follows.

    Args:
      size: (H, W) of the kernel.
      c_in, c_out: channels.
    """

    def __init__(self, size, c_in, c_out, *, rngs):
        self.kernel = nnx.Param(he_normal(rngs.params(), (*size, c_in, c_out)))

    def __call__(self, x, distance=1):
        """f32[N, H, W, C] -> f32[N, H', W', c_out]; with taps `distance` rows apart when that is not 1."""
        return conv2d(x, self.kernel[...]) if distance == 1 else conv2d_plain(x, self.kernel[...], distance)


def conv2d_plain(x, kernel, distance=1):
    """f32[N, H, W, C], f32[h, w, C, D] -> f32[N, H − distance (h − 1), W − w + 1, D]: XLA's own convolution."""
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", rhs_dilation=(distance, 1),
                                        dimension_numbers=("NHWC", "HWIO", "NHWC"))


@jax.custom_vjp
def conv2d(x, kernel):
    """f32[N, H, W, C], f32[h, w, C, D] -> f32[N, H − h + 1, W − w + 1, D]: `conv2d_plain` in the form for the backend."""
    return jax.lax.platform_dependent(x, kernel, cpu=_cpu_form(kernel), default=conv2d_plain)


def _conv2d_backward(residual, gradient):
    x, kernel = residual
    of_x, = jax.linear_transpose(lambda x: conv2d_plain(x, kernel), x)(gradient)
    on_cpu = _kernel_gradient_patches if kernel.shape[2] == 1 else _kernel_gradient_shifts
    return of_x, jax.lax.platform_dependent(x, kernel, gradient, cpu=on_cpu, default=_kernel_gradient_plain)


conv2d.defvjp(lambda x, kernel: (conv2d(x, kernel), (x, kernel)), _conv2d_backward)


def _kernel_gradient_plain(x, kernel, gradient):
    return jax.linear_transpose(lambda kernel: conv2d_plain(x, kernel), kernel)(gradient)[0]


def _kernel_gradient_patches(x, kernel, gradient):
    return jax.linear_transpose(lambda kernel: conv2d_patches(x, kernel), kernel)(gradient)[0]


def _kernel_gradient_shifts(x, kernel, gradient):
    """One product of the shifted map and the gradient per tap of the kernel, few windows at a time: what is copied for it
    stays in the cache, and fresh memory costs more than the products. The windows of a turn lie far apart, so that
    batches that are sharded by windows stay so."""
    (high, wide, c_in, c_out), (n, h, w, _) = kernel.shape, gradient.shape
    together = max(size for size in range(1, min(n, BLOCK) + 1) if n % size == 0)
    x = x.reshape(together, n // together, *x.shape[1:])
    gradient = gradient.reshape(together, n // together, h * w, c_out)

    def add(turn, total):
        some = jax.lax.dynamic_index_in_dim(x, turn, 1, keepdims=False)
        slope = jax.lax.dynamic_index_in_dim(gradient, turn, 1, keepdims=False).reshape(-1, c_out)
        shifted = [some[:, i : i + h, j : j + w].reshape(-1, c_in) for i in range(high) for j in range(wide)]
        return total + jnp.stack([jnp.einsum("nc,nd->cd", part, slope) for part in shifted])

    total = jax.lax.fori_loop(0, n // together, add, jnp.zeros((high * wide, c_in, c_out), x.dtype))
    return total.reshape(kernel.shape)


def _cpu_form(kernel):
    return conv2d_patches if kernel.shape[2] == 1 else conv2d_rows


def conv2d_patches(x, kernel):
    """`conv2d_plain` of one channel: a matrix of patches times the kernel.

    The axis of the kernel comes first: its rows are then long pieces of the map, and the weight gradient, which
    contracts the long axis, needs no transposition.
    """
    high, wide, _, c_out = kernel.shape
    n, h, w = x.shape[0], x.shape[1] - high + 1, x.shape[2] - wide + 1
    patches = jnp.stack([x[:, i : i + h, j : j + w, 0].reshape(-1) for i in range(high) for j in range(wide)])
    return jnp.einsum("pn,pc->nc", patches, kernel.reshape(-1, c_out)).reshape(n, h, w, c_out)


def conv2d_rows(x, kernel):
    """`conv2d_plain` in one dimension: the rows under the kernel side by side, as channels."""
    high, wide, c_in, c_out = kernel.shape
    n, h, w = x.shape[0], x.shape[1] - high + 1, x.shape[2]
    rows = jnp.stack([x[:, i : i + h] for i in range(high)], 3).reshape(n * h, w, high * c_in)
    kernel = kernel.transpose(1, 0, 2, 3).reshape(wide, high * c_in, c_out)
    y = jax.lax.conv_general_dilated(rows, kernel, (1,), "VALID", dimension_numbers=("NHC", "HIO", "NHC"))
    return y.reshape(n, h, w - wide + 1, c_out)


def max_pool2d(x):
    """Maximum over 2 × 2: f32[N, H, W, C] -> f32[N, H // 2, W // 2, C]; the gradient goes to the first of equal ones."""
    return _window_max(_in_twos(x))


def _in_twos(x):
    """f32[N, H, W, C] -> f32[N, H // 2, 2, W // 2, 2, C]."""
    n, h, w, c = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c)


def _out_of_twos(x, shape):
    """Inverse of `_in_twos`; an odd last row or column is zero."""
    n, h, _, w, _, c = x.shape
    return jnp.pad(x.reshape(n, 2 * h, 2 * w, c), ((0, 0), (0, shape[1] - 2 * h), (0, shape[2] - 2 * w), (0, 0)))


def _first_maximum(x, scale=None, shift=None):
    """The highest of scale x + shift over each 2 × 2, the x it is of, its place in 0 … 3 (the first one):
    f32[N, H, 2, W, 2, C] -> f32[N, H, W, C], f32[N, H, W, C], int8[N, H, W, C]."""
    best = x[:, :, 0, :, 0]
    highest = best if scale is None else best * scale + shift
    first = jnp.zeros(best.shape, jnp.int8)
    for place in range(1, 4):
        candidate = x[:, :, place // 2, :, place % 2]
        value = candidate if scale is None else candidate * scale + shift
        higher = value > highest
        best, highest = jnp.where(higher, candidate, best), jnp.where(higher, value, highest)
        first = jnp.where(higher, jnp.int8(place), first)
    return highest, best, first


def _scatter(first, gradient):
    """Gradient of `_first_maximum`: f32[N, H, W, C] -> f32[N, H, 2, W, 2, C]."""
    places = jnp.arange(4, dtype=jnp.int8).reshape(2, 1, 2, 1)
    return jnp.where(first[:, :, None, :, None] == places, gradient[:, :, None, :, None], 0)


@jax.custom_vjp
def _window_max(x):
    return _first_maximum(x)[0]


def _window_max_forward(x):
    highest, _, first = _first_maximum(x)
    return highest, first


_window_max.defvjp(_window_max_forward, lambda first, gradient: (_scatter(first, gradient),))


def max_pool_everywhere(x, distance):
    """`max_pool2d` at every row: pairs of rows `distance` apart, columns in twos.

    f32[N, H, W, C] -> f32[N, H − distance, W // 2, C].
    """
    size = x.shape[2] // 2 * 2
    x = jnp.maximum(x[:, :, 0:size:2], x[:, :, 1:size:2])
    return jnp.maximum(x[:, : x.shape[1] - distance], x[:, distance:])


def normalise_pool_plain(x, scale, bias, epsilon):
    """Reference form of `normalise_pool`, its normalisation left to automatic differentiation."""
    mean = x.mean((0, 1, 2))
    var = jnp.square(x - mean).mean((0, 1, 2))
    y = (x - mean) * jax.lax.rsqrt(var + epsilon) * scale + bias
    return max_pool2d(jax.nn.relu(y)), mean, var


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalise_pool(x, scale, bias, epsilon):
    """Batch normalisation in training mode, ReLU and `max_pool2d` in one: f32[N, H, W, C], f32[C], f32[C] ->
    (f32[N, H // 2, W // 2, C], mean f32[C], variance f32[C]).

    The map before the pooling is the largest array of a ConvNet; here it is read three times and its gradient written
    once, the rest happens on maps of a quarter of the size. No gradient flows through the returned mean and variance.
    """
    return _normalise_pool_forward(x, scale, bias, epsilon)[0]


def _normalise_pool_forward(x, scale, bias, epsilon):
    mean = x.mean((0, 1, 2))
    var = jnp.maximum(jnp.square(x).mean((0, 1, 2)) - mean * mean, 0)
    inverse = jax.lax.rsqrt(var + epsilon)
    factor = scale * inverse
    highest, best, first = _first_maximum(_in_twos(x), factor, bias - mean * factor)
    return (jax.nn.relu(highest), mean, var), (x, scale, mean, inverse, highest, best, first)


def _normalise_pool_backward(epsilon, residual, gradients):
    x, scale, mean, inverse, highest, best, first = residual
    gradient = jnp.where(highest > 0, gradients[0], 0)
    d_bias = gradient.sum((0, 1, 2))
    d_scale = ((best - mean) * gradient).sum((0, 1, 2)) * inverse
    count, factor = x.size // x.shape[-1], scale * inverse
    slope = -factor * inverse * d_scale / count
    d_x = _out_of_twos(_scatter(first, gradient * factor), x.shape) + x * slope - (factor * d_bias / count + mean * slope)
    return d_x, d_scale, d_bias


normalise_pool.defvjp(_normalise_pool_forward, _normalise_pool_backward)
