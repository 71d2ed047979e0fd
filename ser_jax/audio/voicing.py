"""Voice activity of frames by energy and periodicity, on the device, masked, inside jit.

A frame holds voice when it is not far below the loudest one of its utterance and when it repeats itself at the rate of
a voice: silence fails the first, unvoiced sounds and noise the second. The frames are those of `logmel.FAYEK2016`.
Shapes: B batch, T samples, F frames.
"""

import jax.numpy as jnp
import numpy as np

from ser_jax.audio.logmel import FAYEK2016 as FRAMES
from ser_jax.audio.spectrum import filterbank_energies
from ser_jax.corpora.schema import SAMPLE_RATE

BELOW_LOUDEST_DB = 35.0
LEAST_CORRELATION = 0.3
LOWEST_HZ, HIGHEST_HZ = 60.0, 400.0
LAGS = np.arange(int(np.ceil(SAMPLE_RATE / HIGHEST_HZ)), int(SAMPLE_RATE / LOWEST_HZ) + 1)  # 40 … 266 samples
_FFT = 672  # an even length of small factors, long enough (666) that no lag wraps around


def voice_activity(x, mask):
    """Which frames hold voice; those of an utterance depend neither on its padding nor on its neighbours.

    Of a frame y of 400 samples, without its mean, let r(l) = Σ y[n] y[n + l]. The frame holds voice when its energy
    r(0) is above that of the utterance's loudest frame − 35 dB and the largest r(l) / r(0) of the lags of 60 … 400 Hz
    is at least 0.3. r(l) has fewer terms the longer the lag is, so noise stays far below that (about 0.15).

    Args:
      x: f32[B, T], full scale ±1.
      mask: bool[B, T], a prefix of each row.

    Returns:
      (bool[B, F], False where masked; bool[B, F], True for frames wholly inside the utterance).
    """
    frame_mask = jnp.arange(FRAMES.num_frames(x.shape[1])) < FRAMES.num_frames(mask.sum(1))[:, None]
    window = np.ones(FRAMES.window, np.float32)
    correlation = filterbank_energies(x, window, FRAMES.hop, _correlation_filters(), detrend=True)
    energy = jnp.where(frame_mask, correlation[..., 0], 0)
    loud = energy > energy.max(1, keepdims=True, initial=0) * 10 ** (-BELOW_LOUDEST_DB / 10)
    periodic = correlation[..., 1:].max(2) >= LEAST_CORRELATION * energy
    return frame_mask & loud & periodic, frame_mask


def _correlation_filters():
    """f32[_FFT // 2 + 1, 1 + lags]: power spectrum -> r(0) and r(l), the cosine transform at these lags alone."""
    bins, lags = np.arange(_FFT // 2 + 1), np.concatenate([[0], LAGS])
    twice = np.where((bins == 0) | (bins == _FFT // 2), 1, 2)[:, None]  # the other half of the spectrum
    return (twice * np.cos(2 * np.pi * bins[:, None] * lags / _FFT) / _FFT).astype(np.float32)
