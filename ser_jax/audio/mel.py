"""Mel filterbanks and the cosine transform of cepstra, as constant matrices (numpy, float32)."""

import functools

import numpy as np

# Slaney's scale (Auditory Toolbox, 1998): linear below 1 kHz, then 27 steps to each factor of 6.4.
_LINEAR_HZ_PER_MEL = 200 / 3
_BREAK_HZ, _BREAK_MEL = 1000.0, 15.0
_LOG_STEP = np.log(6.4) / 27


def hz_to_mel(hz):
    """Frequency in Hz to Slaney's mel scale."""
    hz = np.asarray(hz, np.float64)
    logarithmic = _BREAK_MEL + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.where(hz < _BREAK_HZ, hz / _LINEAR_HZ_PER_MEL, logarithmic)


def mel_to_hz(mel):
    """Inverse of `hz_to_mel`."""
    mel = np.asarray(mel, np.float64)
    logarithmic = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _BREAK_MEL) - _BREAK_MEL))
    return np.where(mel < _BREAK_MEL, mel * _LINEAR_HZ_PER_MEL, logarithmic)


@functools.cache
def mel_filters(sample_rate, n_fft, n_mels):
    """Triangular filters, 0 Hz to half the sample rate, each of unit area (Slaney; the defaults of librosa).

    Returns:
      f32[n_fft // 2 + 1, n_mels], read only; power spectrum @ filters = mel spectrum.
    """
    edges = mel_to_hz(np.linspace(0, hz_to_mel(sample_rate / 2), n_mels + 2))
    bins = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))
    return _constant(filters)


@functools.cache
def dct_matrix(n_in, n_out):
    """Orthonormal DCT-II of `n_in` values, first `n_out` coefficients: f32[n_in, n_out], read only; x @ matrix."""
    basis = np.cos(np.pi / n_in * np.outer(np.arange(n_in) + 0.5, np.arange(n_out))) * np.sqrt(2 / n_in)
    basis[:, 0] /= np.sqrt(2)
    return _constant(basis)


def _constant(matrix):
    matrix = matrix.astype(np.float32)
    matrix.setflags(write=False)
    return matrix
