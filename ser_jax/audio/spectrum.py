"""Short-time power spectra through a filterbank: the middle of every spectral front end, on the device, inside jit."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec

_SAMPLES_AT_ONCE = 2**17  # of all windows of one step on a CPU: 512 KiB, so that a step stays within the cache
_MOST_PIECES = 16  # of a window


def filterbank_energies(x, window, hop, filters, detrend=False):
    """Power spectrum of every window that lies wholly inside the array, times the filters.

    Accelerators take all windows at once. A CPU takes some after the other, those at the same times of all rows together:
    the spectra of a whole batch do not fit its cache, which made it two to three times slower.

    XLA cannot split a Fourier transform: it would gather the windows of all devices on each of them. Under
    `jax.set_mesh(sharding.mesh())` every device therefore transforms its own rows.

    Args:
      x: f32[B, T].
      window: f32[W], numpy; multiplied with the samples.
      hop: samples from one window to the next.
      filters: f32[N // 2 + 1, M], numpy, with N >= W the length of the transform (windows are filled up with zeros).
      detrend: remove the mean of the samples of every window first.

    Returns:
      f32[B, F, M] with F = 1 + (T - W) // hop, none when T < W.
    """
    count = max(0, 1 + (x.shape[1] - len(window)) // hop)
    if not count:
        return jnp.zeros((len(x), 0, filters.shape[1]), x.dtype)
    energies = functools.partial(_energies, window=window, hop=hop, filters=filters, detrend=detrend)
    of_rows = functools.partial(_of_rows, energies, count=count, hop=hop, width=len(window))
    mesh = jax.sharding.get_abstract_mesh()
    if dict(zip(mesh.axis_names, mesh.axis_types)).get("data") == AxisType.Auto and len(x) % mesh.shape["data"] == 0:
        of_rows = jax.shard_map(of_rows, in_specs=PartitionSpec("data"), out_specs=PartitionSpec("data"))
    return of_rows(x)


def _of_rows(energies, x, count, hop, width):
    step = max(1, _SAMPLES_AT_ONCE // (len(x) * width))
    if count <= step:
        return energies(x, count)
    return jax.lax.platform_dependent(
        x, cpu=lambda x: _in_steps(energies, x, count, step, hop, width), default=lambda x: energies(x, count))


def _in_steps(energies, x, count, step, hop, width):
    steps = -(-count // step)
    length = (step - 1) * hop + width
    x = jnp.pad(x, ((0, 0), (0, max(0, (steps - 1) * step * hop + length - x.shape[1]))))
    parts = jax.lax.map(lambda i: energies(jax.lax.dynamic_slice_in_dim(x, i * step * hop, length, axis=1), step),
                        jnp.arange(steps))
    return jnp.moveaxis(parts, 0, 1).reshape(len(x), steps * step, -1)[:, :count]


def _energies(x, count, window, hop, filters, detrend):
    frames = _frames(x, count, len(window), hop)
    if detrend:
        frames = frames - frames.mean(2, keepdims=True)
    spectrum = jnp.fft.rfft(frames * window, 2 * (len(filters) - 1))
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    # On accelerators the default precision of a matmul (TF32, bf16 passes) is too coarse for a spectrum.
    return jnp.matmul(power, filters, precision=jax.lax.Precision.HIGHEST)


def _frames(x, count, width, hop):
    """f32[B, T] -> f32[B, count, width]: windows put together from pieces of which hop and width are multiples.

    On a CPU that takes two thirds of the time of a gather, which is what is left when the pieces would be tiny.
    """
    piece = math.gcd(width, hop)
    if width // piece > _MOST_PIECES:
        return x[:, np.arange(count)[:, None] * hop + np.arange(width)]
    pieces = x[:, :x.shape[1] // piece * piece].reshape(len(x), -1, piece)
    stride, end = hop // piece, (count - 1) * (hop // piece) + 1
    return jnp.concatenate([pieces[:, i:i + end:stride] for i in range(width // piece)], axis=2)
