"""Voice activity: the numbers of the definition, a hum, noise and silence, whatever the padding and the neighbours."""

import jax
import numpy as np
import pytest
from corpus_files import voice
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_jax.audio.logmel import LogMel
from ser_jax.audio.voicing import voice_activity

SIZE = 8_000  # samples that rows are padded to, so that one program does for all
RATE = 16_000
voiced_of = jax.jit(voice_activity)


def margins(x):
    """(dB above the limit of energy, largest normalised autocorrelation − 0.3), float64[F] each, by definition."""
    x = np.asarray(x, np.float64)
    frames = [x[i:i + 400] - x[i:i + 400].mean() for i in range(0, len(x) - 399, 160)]
    energy = np.array([(frame ** 2).sum() for frame in frames])
    peak = np.array([max((frame[lag:] * frame[:-lag]).sum() for lag in range(40, 267)) for frame in frames])
    with np.errstate(divide="ignore", invalid="ignore"):
        return 10 * np.log10(energy / energy.max(initial=0)) + 35, peak / energy - 0.3


def batch(rows, size=SIZE):
    """Rows of different lengths in one array; the padding is full of a loud hum, which must not be heard."""
    x = np.tile(np.sin(2 * np.pi * 150 * np.arange(size) / RATE), (len(rows), 1)).astype(np.float32)
    for i, row in enumerate(rows):
        x[i, :len(row)] = row
    return x, np.arange(size) < np.array([len(row) for row in rows])[:, None]


def voiced(row, size=SIZE):
    """bool[F] of one utterance, all of its frames."""
    found, frame_mask = map(np.asarray, voiced_of(*batch([row], size)))
    assert found.shape == frame_mask.shape == (1, LogMel().num_frames(size)) and found.dtype == bool
    count = LogMel().num_frames(len(row))
    assert frame_mask[0].tolist() == [True] * count + [False] * (frame_mask.shape[1] - count)
    assert not found[0, count:].any()
    return found[0, :count]


def tone(hz, samples=SIZE):
    return np.sin(2 * np.pi * hz * np.arange(samples) / RATE)


def noise(samples=SIZE, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, samples)


def mixture(seed, samples):
    """Sound that fades between loud and soft, hum and noise: frames on both sides of both limits."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples)
    level = 10 ** np.interp(time, np.linspace(0, samples, 7), rng.uniform(-3, 0, 7))
    share = np.interp(time, np.linspace(0, samples, 7), rng.uniform(0, 1, 7))
    hum = sum(tone(rng.uniform(70, 350) * k, samples) / k for k in (1, 2, 3))
    return 0.3 * level * (share * hum + 2 * (1 - share) * rng.normal(0, 1, samples)) + rng.choice([0, 0.01])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(400, SIZE))
def test_definition(seed, samples):
    row = mixture(seed, samples)
    found, (loudness, periodicity) = voiced(row), margins(row)
    sure = (np.abs(loudness) > 1e-2) & (np.abs(periodicity) > 1e-4)
    np.testing.assert_array_equal(found[sure], ((loudness > 0) & (periodicity >= 0))[sure])
    assert sure.mean() > 0.9


def test_the_mixtures_lie_on_both_sides_of_both_limits():
    loudness, periodicity = np.concatenate([margins(mixture(seed, SIZE)) for seed in range(10)], axis=1)
    for first in (loudness > 0, loudness <= 0):
        for second in (periodicity >= 0, periodicity < 0):
            assert (first & second).sum() > 5


@pytest.mark.parametrize("hz", [70, 120, 200, 380])
@pytest.mark.parametrize("offset", [0.0, 0.4])
def test_a_hum_is_voiced_whatever_the_offset(hz, offset):
    assert voiced(0.1 * tone(hz) + offset).all()


@pytest.mark.parametrize("offset", [0.0, 0.4])
@pytest.mark.parametrize("amplitude", [1.0, 1e-4])
def test_noise_is_not(amplitude, offset):
    assert not any(voiced(amplitude * noise(seed=seed) + offset).any() for seed in range(5))


def test_silence_is_not():
    assert not voiced(np.zeros(SIZE)).any()
    row = np.concatenate([0.3 * tone(150, 4000), 1e-3 * tone(150, 4000)])  # −49.5 dB: hum of the room, not voice
    found = voiced(row)
    first = np.arange(len(found)) * 160
    assert found[first + 400 <= 4000].all() and not found[first >= 4000].any()


def test_voices_are_voiced():
    assert voiced(voice(110, 0.5) / 32768).mean() > 0.9 and voiced(voice(220, 0.5) / 32768).mean() > 0.9


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, SIZE), min_size=1, max_size=4), st.integers(0, 100))
def test_neighbours_and_padding_do_not_matter(lengths, seed):
    rows = [mixture(seed + i, max(length, 1))[:length] for i, length in enumerate(lengths)]
    rows += [[]] * (4 - len(rows))
    together, frame_mask = map(np.asarray, voiced_of(*batch(rows)))
    for i, row in enumerate(rows):
        alone = voiced(row, SIZE + 1600)
        assert frame_mask[i].sum() == len(alone)
        if len(alone):
            sure = (np.abs(margins(row)) > 1e-4).all(0)
            np.testing.assert_array_equal(together[i, :len(alone)][sure], alone[sure])
        assert not together[i, len(alone):].any()


def test_too_short_for_a_frame():
    found, frame_mask = voice_activity(*batch([tone(150, 399)], 399))
    assert found.shape == frame_mask.shape == (1, 0)
