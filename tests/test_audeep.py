"""auDeep's spectrograms: SciPy's numbers, whatever the padding and the neighbours; silence and the shortest input."""

import jax
import numpy as np
import pytest
import scipy.signal
from corpus_files import voice
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ser_jax.audio import audeep, mel

SIZE = 12_000  # samples that made-up rows are padded to, so that one program does for all
spectrogram_of = jax.jit(audeep.spectrogram)


def reference_filters(fs, n_fft, bands):
    """float64[n_fft // 2 + 1, bands] from the definition, one weight at a time."""
    mels = np.linspace(0, 2595 * np.log10(1 + fs / 2 / 700), bands + 2)
    corner = [int((n_fft + 1) * 700 * (10 ** (m / 2595) - 1) / fs) for m in mels]
    filters = np.zeros((n_fft // 2 + 1, bands))
    for band in range(bands):
        left, centre, right = corner[band:band + 3]
        for k in range(left, right):
            filters[k, band] = (k - left) / (centre - left) if k < centre else (right - k) / (right - centre)
    return filters


FILTERS = reference_filters(16_000, 1280, 128)


def reference(x, clip_db=-60.0):
    """float64[F, 128]: the definition of `spectrogram`, of one utterance without padding."""
    x = np.asarray(x, np.float64)
    x = np.append(x[0], x[1:] - 0.95 * x[:-1])
    window = scipy.signal.get_window("hann", 1280)
    _, _, magnitude = scipy.signal.spectrogram(x, 16_000, window, noverlap=640, mode="magnitude")
    power = (magnitude**2 / 1280).T @ FILTERS
    if not power.any():
        return np.full(power.shape, -1.0)
    power = np.maximum(power, power[power > 0].min())
    decibels = np.maximum(10 * np.log10(power / power.max()), clip_db)
    low, high = decibels.min(), decibels.max()
    return 2 * (decibels - low) / (high - low) - 1


def batch(rows, size):
    """Rows of different lengths in one array; the padding is full of what must not be heard, loud and faint."""
    x = np.random.default_rng(9).uniform(-1, 1, (len(rows), size)).astype(np.float32)
    x *= np.where(np.arange(size) // 2_000 % 2, 1e-4, 1).astype(np.float32)
    for i, row in enumerate(rows):
        x[i, :len(row)] = row
    return x, np.arange(size) < np.array([len(row) for row in rows])[:, None]


def of(rows, clip_db=-60.0):
    """Spectrograms of the valid frames of each of up to three rows (one program); zeros must follow."""
    filled = [*rows, *[np.ones(2_000)] * (3 - len(rows))]
    values, mask = map(np.asarray, spectrogram_of(*batch(filled, SIZE), clip_db=np.float32(clip_db)))
    assert values.shape == (3, audeep.num_frames(SIZE), 128) and values.dtype == np.float32
    assert (values[~mask] == 0).all() and mask.sum(1).tolist() == [audeep.num_frames(len(row)) for row in filled]
    return [value[valid] for value, valid in zip(values[:len(rows)], mask, strict=False)]


@st.composite
def sounds(draw):
    """A voice, noise, tones, clicks or silence of a length with frames, at any level, with a stretch of digital silence."""
    length, seed = draw(st.integers(audeep.MIN_SAMPLES, SIZE)), draw(st.integers(0, 99))
    rng = np.random.default_rng(seed)
    x = {"voice": lambda: voice(rng.uniform(80, 300), SIZE / 16_000, seed) / 32768,
         "noise": lambda: rng.normal(0.1, 0.2, SIZE),
         "tones": lambda: sum(np.sin(rng.uniform(0.01, 3) * np.arange(SIZE)) for _ in range(3)) / 3
         + rng.normal(0, 1e-3, SIZE),
         "clicks": lambda: (rng.random(SIZE) < 1e-3) * rng.uniform(-1, 1, SIZE),
         "silence": lambda: np.zeros(SIZE)}[draw(st.sampled_from(["voice", "noise", "tones", "clicks", "silence"]))]()
    start = draw(st.integers(0, length))
    x = x[:length].astype(np.float32)
    x[start:start + draw(st.integers(0, length))] = 0
    return x * np.float32(10 ** draw(st.floats(-4, 0)))


@given(st.lists(sounds(), min_size=3, max_size=3))
@example([np.linspace(-1, 1, 1_280, dtype=np.float32), np.zeros(1_919), np.sin(np.arange(1_920.0)).astype(np.float32)])
@settings(max_examples=40, deadline=None)
def test_spectrograms_are_those_of_scipy(rows):
    for row, found in zip(rows, of(rows), strict=True):
        np.testing.assert_allclose(found, reference(row), rtol=0, atol=1e-4)


@given(sounds(), st.permutations(range(3)))
@settings(max_examples=25, deadline=None)
def test_spectrograms_depend_neither_on_padding_nor_on_neighbours(row, order):
    rows = [row, np.random.default_rng(1).uniform(-1, 1, SIZE), np.zeros(1_280)]
    (alone,), (mask,) = map(np.asarray, spectrogram_of(*batch([row], SIZE + 700)))
    np.testing.assert_allclose(of([rows[i] for i in order])[order.index(0)], alone[mask], rtol=0, atol=2e-5)


def test_zeros_count_as_the_faintest_value_not_as_the_clip():
    """Noise spans less than 60 dB: the silence behind it lies no lower than the faintest value of the noise."""
    noise = np.random.default_rng(0).normal(0, 0.1, 6_400)
    heard, followed = of([noise, np.concatenate([noise, np.zeros(5_000)])])
    assert np.allclose(followed[11:], -1) and heard.min() == -1  # frames that begin past the noise
    np.testing.assert_allclose(followed[:9], heard, atol=1e-4)


@pytest.mark.parametrize("clip_db", [-30.0, -75.0])
def test_the_clip_is_in_decibels_below_the_loudest_value(clip_db):
    swell = np.random.default_rng(0).normal(0, 0.1, SIZE) * np.geomspace(1e-6, 1, SIZE)
    rows = [(voice(120, 0.7, 1) * np.geomspace(1e-4, 1, 11_200) / 32768).astype(np.float32), swell.astype(np.float32)]
    for row, found in zip(rows, of(rows, clip_db), strict=True):
        wanted = reference(row, clip_db)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
        assert (wanted == -1).sum() > 1, "nothing was clipped"


def test_silence_is_minus_one_and_every_other_utterance_reaches_both_ends():
    silent, loud = of([np.zeros(5_000), np.random.default_rng(0).normal(size=5_000)])
    assert (silent == -1).all() and silent.shape == (6, 128)
    assert loud.min() == -1 and loud.max() == 1


def test_an_utterance_too_short_for_a_window_has_no_frame():
    short, one = of([np.ones(1_279), np.sin(np.arange(1_919.0))])
    assert short.shape == (0, 128)
    np.testing.assert_allclose(one, reference(np.sin(np.arange(1_280.0)).astype(np.float32)), rtol=0, atol=1e-4)
    values, mask = spectrogram_of(np.ones((2, 1_000), np.float32), np.ones((2, 1_000), bool))
    assert values.shape == (2, 0, 128) and mask.shape == (2, 0)


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (1_279, 0), (1_280, 1), (80_000, 124), (120_000, 186)])
def test_the_number_of_frames(samples, frames):
    assert audeep.num_frames(samples) == frames
    np.testing.assert_array_equal(audeep.num_frames(np.array([samples, 1_920])), [frames, 2])


@pytest.mark.parametrize(("rate", "n_fft", "bands"), [(16_000, 1280, 128), (48_000, 3840, 128), (16_000, 512, 128)])
def test_filters_are_triangles_on_whole_bins(rate, n_fft, bands):
    """The last has fewer bins than its narrow bands need: some are empty, as in auDeep."""
    filters = mel.whole_bin_filters(rate, n_fft, bands)
    np.testing.assert_allclose(filters, reference_filters(rate, n_fft, bands), atol=1e-7)
    assert (filters.max(0) > 0).all() == (n_fft > 512) and not filters.flags.writeable
