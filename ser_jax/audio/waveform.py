"""Waveform front end and augmentation: masked, on the device, inside jit. Shapes: B batch, T samples."""

import jax
import jax.numpy as jnp


def to_float(speech):
    """int16[B, T] -> f32[B, T] in full-scale units, −1 … 1."""
    return speech.astype(jnp.float32) / 32768.0


def length_mask(lengths, size):
    """int[B] -> bool[B, size], true on the first `lengths` samples."""
    return jnp.arange(size) < lengths[:, None]


def remove_mean(x, mask):
    """Subtracts each row's mean over its valid samples and zeroes the rest: f32[B, T], bool[B, T] -> f32[B, T]."""
    x = jnp.where(mask, x, 0)
    mean = x.sum(1, keepdims=True) / jnp.maximum(mask.sum(1, keepdims=True), 1)
    return jnp.where(mask, x - mean, 0)


def random_shift(key, x, mask, fraction):
    """Shifts each row's valid part by up to ±fraction of its length, filling with zeros (Schiller et al. 2020, §2.1).

    The mask stays as it is: what was shifted in is silence that the model hears. Shift and fill are not stated in the
    paper; zero-fill is our choice.
    """
    lengths = mask.sum(1)
    amount = jax.random.uniform(key, (x.shape[0],), minval=-fraction, maxval=fraction)
    shift = jnp.round(amount * lengths).astype(jnp.int32)
    source = jnp.arange(x.shape[1]) - shift[:, None]
    inside = (source >= 0) & (source < lengths[:, None]) & mask
    return jnp.where(inside, jnp.take_along_axis(x, jnp.clip(source, 0, x.shape[1] - 1), axis=1), 0)


def add_noise(key, x, mask, amplitude):
    """Adds uniform noise in ±amplitude and normal noise of that standard deviation, in full-scale units (§2.1)."""
    uniform, normal = jax.random.split(key)
    noise = jax.random.uniform(uniform, x.shape, minval=-amplitude, maxval=amplitude)
    noise = noise + amplitude * jax.random.normal(normal, x.shape)
    return x + jnp.where(mask, noise, 0)


def random_speed(key, x, mask, spread, fastest):
    """Plays each row's valid part faster or slower, pitch and formants along, by a factor in 1 ± spread (Ko et al. 2015).

    Linear interpolation. A row is slowed down no further than its padding has room, and sped up to `fastest` at most.

    Args:
      fastest: f32[B], at least 1.

    Returns:
      (f32[B, T], bool[B, T]).
    """
    size, lengths = x.shape[1], mask.sum(1)
    speed = jax.random.uniform(key, (x.shape[0],), minval=1 - spread, maxval=1 + spread)
    speed = jnp.clip(speed, lengths / size, fastest)
    place = jnp.arange(size) * speed[:, None]
    before = jnp.minimum(place.astype(jnp.int32), size - 2)
    share = place - before
    x = jnp.where(mask, x, 0)
    played = jnp.take_along_axis(x, before, axis=1) * (1 - share) + jnp.take_along_axis(x, before + 1, axis=1) * share
    mask = length_mask(jnp.minimum(jnp.floor(lengths / speed), size).astype(jnp.int32), size)
    return jnp.where(mask, played, 0), mask
