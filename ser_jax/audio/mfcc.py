"""Mel-frequency cepstra as the WaveNet recogniser takes them, on the device, masked, inside jit.

The definition is librosa's `feature.mfcc(y, sr=16000, n_mfcc=20)` with reflecting padding (Kim and Park's
speech-to-text-wavenet, v0.0.0.2): power spectrum of a periodic Hann window (2048 samples every 512, centred), 128 Slaney mel
bands from 0 to 8 kHz, decibels floored 80 dB below the loudest value of the utterance, orthonormal DCT-II, coefficients 0–19.
No lifter, no deltas, no normalisation. Shapes: B batch, T samples, F = 1 + T // 512 frames.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.audio.mel import dct_matrix, mel_filters
from ser_jax.audio.spectrum import filterbank_energies
from ser_jax.corpora.schema import SAMPLE_RATE

WINDOW, HOP = 2048, 512  # samples: 128 ms every 32 ms, 31.25 frames a second
MEL_BANDS, COEFFICIENTS = 128, 20
SMALLEST_POWER, RANGE_DB = 1e-10, 80.0
MIN_SAMPLES = WINDOW // 2 + 1  # the shortest signal that can be reflected at both ends


def num_frames(num_samples):
    """Frames of a signal of that many samples; works on numbers and arrays."""
    return 1 + num_samples // HOP


def mfcc(x, mask):
    """Cepstra of a padded batch; those of an utterance depend neither on its padding nor on its neighbours.

    Args:
      x: f32[B, T], full scale ±1.
      mask: bool[B, T], a prefix of each row, at least MIN_SAMPLES long (a shorter row gives numbers without meaning).

    Returns:
      (f32[B, F, 20], zero where masked; bool[B, F]).
    """
    lengths = mask.sum(1)
    frame_mask = jnp.arange(num_frames(x.shape[1])) < num_frames(lengths)[:, None]
    energies = filterbank_energies(_reflected(jnp.where(mask, x, 0), lengths), _hann(), HOP,
                                   mel_filters(SAMPLE_RATE, WINDOW, MEL_BANDS))
    decibels = 10 * jnp.log10(jnp.maximum(energies, SMALLEST_POWER))
    loudest = jnp.where(frame_mask[..., None], decibels, -jnp.inf).max((1, 2), keepdims=True)
    decibels = jnp.maximum(decibels, loudest - RANGE_DB)
    cepstra = jnp.matmul(decibels, dct_matrix(MEL_BANDS, COEFFICIENTS), precision=jax.lax.Precision.HIGHEST)
    return jnp.where(frame_mask[..., None], cepstra, 0), frame_mask


def _reflected(x, lengths):
    """f32[B, T] -> f32[B, T + 2048]: 1024 samples mirrored at the start and at the end of every row's valid part."""
    size, half = x.shape[1], WINDOW // 2
    start = x[:, half:0:-1]
    source = lengths[:, None] - 2 - jnp.arange(half)
    end = jnp.take_along_axis(x, jnp.clip(source, 0, size - 1), axis=1)
    padded = jnp.concatenate([start, x, jnp.zeros_like(x[:, :half])], axis=1)
    return jax.vmap(lambda row, part, at: jax.lax.dynamic_update_slice(row, part, (at,)))(padded, end, lengths + half)


def _hann():
    return np.hanning(WINDOW + 1)[:-1].astype(np.float32)
