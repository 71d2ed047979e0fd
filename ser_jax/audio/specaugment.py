"""Augmentation of cepstra or spectra: masked, on the device, inside jit. Shapes: B batch, F frames, D coefficients."""

import jax
import jax.numpy as jnp


def roll_coefficients(key, x, shifts):
    """Moves each row along the coefficient axis by a drawn one of `shifts`; vacated coefficients become zero.

    (Kim and Park, speech-to-text-wavenet: shifts −2, −1, 0, 1.)
    """
    if tuple(shifts) == (0,):
        return x
    shift = jax.random.choice(key, jnp.asarray(shifts), (x.shape[0],))
    source = jnp.arange(x.shape[2]) - shift[:, None]
    moved = jnp.take_along_axis(x, jnp.clip(source, 0, x.shape[2] - 1)[:, None], axis=2)
    return jnp.where(((source >= 0) & (source < x.shape[2]))[:, None], moved, 0)


def mask_time(key, x, mask, count, longest):
    """Replaces `count` stretches of 0 to `longest` frames of each row by the row's mean (Park et al. 2019, §2).

    Args:
      x: f32[B, F, D].
      mask: bool[B, F].
    """
    if not count or not longest:
        return x
    lengths = mask.sum(1)
    hidden = _stretches(key, x.shape[0], x.shape[1], count, longest, lengths)
    return jnp.where((hidden & mask)[..., None], _mean(x, mask), x)


def mask_coefficients(key, x, mask, count, widest):
    """Replaces `count` stretches of 0 to `widest` coefficients of each row by their means over time."""
    if not count or not widest:
        return x
    hidden = _stretches(key, x.shape[0], x.shape[2], count, widest, jnp.full(x.shape[0], x.shape[2]))
    return jnp.where(hidden[:, None] & mask[..., None], _mean(x, mask), x)


def _mean(x, mask):
    """Mean over the valid frames: f32[B, 1, D]."""
    return jnp.where(mask[..., None], x, 0).sum(1, keepdims=True) / jnp.maximum(mask.sum(1), 1)[:, None, None]


def _stretches(key, rows, size, count, longest, lengths):
    """bool[rows, size]: the union of `count` random stretches within the first `lengths` positions of each row."""
    width_key, start_key = jax.random.split(key)
    width = jnp.minimum(jax.random.randint(width_key, (rows, count), 0, longest + 1), lengths[:, None])
    start = jax.random.uniform(start_key, (rows, count)) * (lengths[:, None] - width + 1)
    start = jnp.floor(start).astype(jnp.int32)
    place = jnp.arange(size)[:, None, None]
    return ((place >= start) & (place < start + width)).any(2).T
