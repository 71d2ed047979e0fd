"""Mel filterbanks and the cosine transform of cepstra, as constant matrices (numpy, float32)."""

import functools

import numpy as np

# Slaney's scale (Auditory Toolbox, 1998): linear below 1 kHz, then 27 steps to each factor of 6.4.
_LINEAR_HZ_PER_MEL = 200 / 3
_BREAK_HZ, _BREAK_MEL = 1000.0, 15.0
_LOG_STEP = np.log(6.4) / 27

# HTK's scale: 2595 log10(1 + f / 700).
_HTK_MEL, _HTK_HZ = 2595.0, 700.0

SCALES = ("slaney", "htk")


def hz_to_mel(hz, scale="slaney"):
    """Frequency in Hz to mel, on one of SCALES."""
    hz = np.asarray(hz, np.float64)
    if scale == "htk":
        return _HTK_MEL * np.log10(1 + hz / _HTK_HZ)
    logarithmic = _BREAK_MEL + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.where(hz < _BREAK_HZ, hz / _LINEAR_HZ_PER_MEL, logarithmic)


def mel_to_hz(mel, scale="slaney"):
    """Inverse of `hz_to_mel`."""
    mel = np.asarray(mel, np.float64)
    if scale == "htk":
        return _HTK_HZ * (10 ** (mel / _HTK_MEL) - 1)
    logarithmic = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(mel, _BREAK_MEL) - _BREAK_MEL))
    return np.where(mel < _BREAK_MEL, mel * _LINEAR_HZ_PER_MEL, logarithmic)


@functools.cache
def mel_filters(sample_rate, n_fft, n_mels, low_hz=0.0, high_hz=None, scale="slaney"):
    """Triangular filters whose corners are evenly spaced in mel from `low_hz` to `high_hz` (None: half the sample rate).

    "slaney" is librosa's default: straight flanks over Hz, each triangle of unit area. "htk" is what HTK, Kaldi and
    openSMILE do: straight flanks over mel, each triangle of unit height.

    Returns:
      f32[n_fft // 2 + 1, n_mels], read only; power spectrum @ filters = mel spectrum.
    """
    low, high = hz_to_mel([low_hz, sample_rate / 2 if high_hz is None else high_hz], scale)
    corners = np.linspace(low, high, n_mels + 2)
    bins = np.linspace(0, sample_rate / 2, n_fft // 2 + 1)[:, None]
    if scale == "htk":
        return _constant(_triangles(hz_to_mel(bins, scale), corners))
    edges = mel_to_hz(corners, scale)
    return _constant(_triangles(bins, edges) * (2 / (edges[2:] - edges[:-2])))


@functools.cache
def whole_bin_filters(sample_rate, n_fft, n_mels):
    """Triangles of unit height on HTK's scale from 0 Hz to half the sample rate, their corners rounded down to whole bins.

    Corner bins are floor((n_fft + 1) f / sample_rate), flanks straight over bins, as in auDeep (Freitag et al. 2017).

    Returns:
      f32[n_fft // 2 + 1, n_mels], read only; a band is empty (zeros) where n_fft is too short for that many bands.
    """
    edges = mel_to_hz(np.linspace(0, hz_to_mel(sample_rate / 2, "htk"), n_mels + 2), "htk")
    corners = np.floor((n_fft + 1) * edges / sample_rate)
    return _constant(_triangles(np.arange(n_fft // 2 + 1.0)[:, None], corners))


def _triangles(positions, corners):
    """Unit triangles: float64[N, 1] positions, [M + 2] corners -> float64[N, M]; nothing where corners coincide."""
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    with np.errstate(divide="ignore", invalid="ignore"):
        rising, falling = (positions - left) / (centre - left), (right - positions) / (right - centre)
    # A flank without width rises at once: auDeep's triangle then holds only the other flank.
    rising = np.where(centre > left, rising, positions >= centre)
    falling = np.where(right > centre, falling, positions < centre)
    return np.maximum(0, np.minimum(rising, falling))


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
