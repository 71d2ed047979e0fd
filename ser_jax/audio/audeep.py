"""Mel spectrograms as auDeep takes them for its recurrent autoencoder, on the device, masked, inside jit.

The definition is auDeep's (Freitag et al. 2017; `--mel-spectrum 128 --window-width 0.08 --window-overlap 0.04` with a clip
below): pre-emphasis 0.95, power of SciPy's `spectrogram` (periodic Hann window of 80 ms every 40 ms, the mean of every
window removed), 128 triangles on HTK's scale with corners on whole bins, decibels below the loudest value of the
utterance, clipped, then stretched so that the smallest value of the utterance is −1 and the largest +1. Scale factors of
the power cancel and are left out. Shapes: B batch, T samples, F = 1 + (T − 1280) // 640 frames, 25 a second.

Two departures. What pads an utterance is masked; auDeep fills it up with zeros to its fixed length before all else, and
trains on that silence. An utterance whose decibels are all alike (digital silence above all) is −1 throughout; auDeep fails
on silence and gives 0 for other constants.
"""

import jax.numpy as jnp
import numpy as np

from ser_jax.audio.mel import whole_bin_filters
from ser_jax.audio.spectrum import filterbank_energies
from ser_jax.corpora.schema import SAMPLE_RATE

WINDOW, HOP = 1280, 640  # samples: 80 ms every 40 ms
BANDS = 128
MIN_SAMPLES = WINDOW
PREEMPHASIS = 0.95
SMALLEST_RANGE_DB = 1e-4  # what varies less is constant


def num_frames(num_samples):
    """Frames that lie wholly inside a signal of that many samples, 0 if none does; works on numbers and arrays."""
    return (num_samples >= WINDOW) * (1 + (num_samples - WINDOW) // HOP)


def spectrogram(x, mask, clip_db=-60.0):
    """Normalised mel spectrograms of a padded batch; that of an utterance depends neither on padding nor on neighbours.

    Args:
      x: f32[B, T], any scale (the features do not depend on it).
      mask: bool[B, T], a prefix of each row.
      clip_db: decibels relative to the loudest value of the utterance, negative; what lies below is raised to it.

    Returns:
      (f32[B, F, 128] in [−1, 1], zero where masked; bool[B, F], True for frames wholly inside the utterance).
    """
    frame_mask = jnp.arange(num_frames(x.shape[1])) < num_frames(mask.sum(1))[:, None]
    valid = frame_mask[..., None]
    x = jnp.concatenate([x[:, :1], x[:, 1:] - PREEMPHASIS * x[:, :-1]], axis=1)
    mel = filterbank_energies(x, _hann(), HOP, whole_bin_filters(SAMPLE_RATE, WINDOW, BANDS), detrend=True)
    return jnp.where(valid, _stretched(_decibels(mel, valid, clip_db), valid), 0), frame_mask


def _decibels(mel, valid, clip_db):
    """Below the loudest valid value, zeros taken for the smallest positive one; 0 throughout without any positive one."""
    loudest = jnp.where(valid, mel, 0).max((1, 2), keepdims=True, initial=0)
    faintest = jnp.where(valid & (mel > 0), mel, loudest).min((1, 2), keepdims=True, initial=jnp.inf)
    relative = jnp.maximum(mel, faintest) / loudest
    return jnp.maximum(10 * jnp.log10(jnp.where(loudest > 0, relative, 1)), clip_db)


def _stretched(decibels, valid):
    """The range of the valid values of every row becomes [−1, 1]; constants become −1."""
    low = jnp.where(valid, decibels, jnp.inf).min((1, 2), keepdims=True, initial=0)
    high = jnp.where(valid, decibels, -jnp.inf).max((1, 2), keepdims=True, initial=-jnp.inf)
    varies = high - low > SMALLEST_RANGE_DB
    stretched = 2 * (decibels - low) / jnp.where(varies, high - low, 1) - 1
    return jnp.where(varies, jnp.clip(stretched, -1, 1), -1)  # compiled, the largest may come out as 1.0000001


def _hann():
    return np.hanning(WINDOW + 1)[:-1].astype(np.float32)
