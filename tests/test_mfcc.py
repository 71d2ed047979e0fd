"""Cepstra: librosa's numbers on real, spoken and made-up sound, whatever the padding and the neighbours."""

import os
from importlib.util import find_spec
from pathlib import Path

import jax
import librosa
import numpy as np
import pytest
import scipy.fft
from corpus_files import voice
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ser_jax.audio import mel, mfcc
from ser_jax.corpora import audio, reader

pytestmark = pytest.mark.filterwarnings("ignore:n_fft=2048 is too large")
cepstra_of = jax.jit(mfcc.mfcc)
SIZE = 12_000  # samples that made-up rows are padded to, so that one program does for all
ROUNDING = 2e-6  # relative, of the sum that c0 is: silence has a c0 of −1131


def librosa_mfcc(x):
    """f32[F, 20]: the definition of `mfcc`."""
    return librosa.feature.mfcc(y=x, sr=16_000, n_mfcc=20, n_fft=2048, hop_length=512, pad_mode="reflect").T


def batch(rows, size):
    """Rows of different lengths in one array; the padding is full of what must not be heard."""
    x = np.random.default_rng(9).uniform(-1, 1, (len(rows), size)).astype(np.float32)
    for i, row in enumerate(rows):
        x[i, :len(row)] = row
    return x, np.arange(size) < np.array([len(row) for row in rows])[:, None]


def assert_librosa(rows, size, rtol=0.0):
    """Every row of a padded batch has librosa's cepstra of the bare row, within 1e-3; zeros follow."""
    cepstra, mask = map(np.asarray, cepstra_of(*batch(rows, size)))
    assert cepstra.shape == (len(rows), 1 + size // 512, 20) and (cepstra[~mask] == 0).all()
    for row, found, valid in zip(rows, cepstra, mask, strict=True):
        wanted = librosa_mfcc(np.asarray(row, np.float32))
        assert valid.sum() == len(wanted) and valid[:len(wanted)].all()
        np.testing.assert_allclose(found[:len(wanted)], wanted, rtol, atol=1e-3)


def full_scale(speech):
    return speech.astype(np.float32) / 32768


# ------------------------------------------------------------------------------------------------ real and spoken sound


def test_cepstra_of_real_speech_are_those_of_librosa():
    root = os.environ.get("SER_JAX_DATA")
    if not root:
        pytest.skip("needs SER_JAX_DATA with folders of recorded speech")
    rows = []
    for corpus in sorted(path for path in Path(root).iterdir() if path.is_dir()):
        files = sorted(path for path in corpus.rglob("*") if path.suffix.lower() in (".flac", ".wav"))
        rows += [full_scale(audio.read(files[i]))[:96_000] for i in (0, len(files) // 2, len(files) - 1) if files]
    assert len(rows) >= 3, f"no recorded speech in {root}"
    noise = np.random.default_rng(0).uniform(-1, 1, 100_000)
    assert_librosa([*rows, noise], 100_000)


@pytest.mark.skipif(find_spec("espeakng_loader") is None, reason="needs the [demo] extra")
def test_cepstra_of_synthetic_speech_with_silence_are_those_of_librosa():
    """Digital silence lies on the floor, 80 dB below the loudest value of its own utterance."""
    corpus = reader("espeak")
    units = corpus.units()
    spoken = [full_scale(u.speech) for unit in (units[0], units[-1]) for u in list(corpus.load(unit))[:2]]
    silence = np.zeros(9_000, np.float32)
    rows = [np.concatenate([silence, row[:40_000], silence]) * level for row, level in zip(spoken, (1, 0.3, 0.01, 1e-4))]
    assert_librosa(rows, 60_000)


# ------------------------------------------------------------------------------------------------ made-up sound


@st.composite
def sounds(draw):
    """A voice, noise, tones or clicks of any length that has cepstra, at any level, with a stretch of digital silence."""
    length, seed = draw(st.integers(mfcc.MIN_SAMPLES, SIZE)), draw(st.integers(0, 99))
    rng = np.random.default_rng(seed)
    kind = draw(st.sampled_from(["voice", "noise", "tones", "clicks", "silence"]))
    x = {"voice": lambda: full_scale(voice(rng.uniform(80, 300), SIZE / 16_000, seed)),
         "noise": lambda: rng.normal(0, 0.2, SIZE),
         "tones": lambda: sum(np.sin(rng.uniform(0.01, 3) * np.arange(SIZE)) for _ in range(3)) / 3
         + rng.normal(0, 1e-2, SIZE),
         "clicks": lambda: (rng.random(SIZE) < 1e-3) * rng.uniform(-1, 1, SIZE),
         "silence": lambda: np.zeros(SIZE)}[kind]().astype(np.float32)[:length]
    start = draw(st.integers(0, length))
    x[start:start + draw(st.integers(0, length))] = 0
    return x * np.float32(10 ** draw(st.floats(-4, 0)))


@given(st.lists(sounds(), min_size=3, max_size=3))
@example([np.ones(1_025, np.float32), np.linspace(-1, 1, 1_535, dtype=np.float32), np.zeros(1_536, np.float32)])
@settings(max_examples=40, deadline=None)
def test_cepstra_of_any_sound_are_those_of_librosa(rows):
    assert_librosa(rows, SIZE, ROUNDING)


@given(sounds(), st.permutations(range(3)))
@settings(max_examples=25, deadline=None)
def test_cepstra_depend_neither_on_padding_nor_on_neighbours(row, order):
    neighbours = [row, np.random.default_rng(1).uniform(-1, 1, SIZE), np.zeros(1_025)]
    one, _ = cepstra_of(*batch([row], SIZE + 700))
    several, mask = cepstra_of(*batch([neighbours[i] for i in order], SIZE))
    place, frames = order.index(0), 1 + len(row) // 512
    assert int(mask[place].sum()) == frames == int(mfcc.num_frames(len(row)))
    np.testing.assert_allclose(several[place, :frames], one[0, :frames], ROUNDING, atol=1e-3)


def test_the_floor_is_that_of_the_utterance_and_of_silence():
    rng = np.random.default_rng(0)
    loud = np.concatenate([rng.normal(0, 0.1, 6_000), np.zeros(6_000)]).astype(np.float32)
    cepstra, _ = map(np.asarray, cepstra_of(*batch([loud, loud / 10, np.zeros(SIZE)], SIZE)))
    silent = cepstra[:, 16:]  # frames 16 to 23 hear nothing but zeros
    assert np.abs(silent[:, :, 1:]).max() < 1e-3  # a flat spectrum
    np.testing.assert_allclose(silent[0, :, 0] - silent[1, :, 0], 20 * np.sqrt(128), atol=1e-2)
    np.testing.assert_allclose(silent[2, :, 0], -100 * np.sqrt(128), atol=1e-2)
    assert np.ptp(silent[:, :, 0], axis=1).max() == 0


# ------------------------------------------------------------------------------------------------ matrices


@pytest.mark.parametrize(("rate", "n_fft", "n_mels"), [(16_000, 2048, 128), (16_000, 400, 40), (22_050, 1024, 64)])
def test_mel_filters_are_those_of_librosa(rate, n_fft, n_mels):
    filters = mel.mel_filters(rate, n_fft, n_mels)
    np.testing.assert_allclose(filters.T, librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels), rtol=1e-5, atol=1e-8)
    assert filters.dtype == np.float32 and not filters.flags.writeable  # the matrix is shared by all callers


@given(st.floats(0, 11_025))
def test_the_mel_scale_is_that_of_librosa_and_turns_back(hz):
    assert float(mel.hz_to_mel(hz)) == pytest.approx(librosa.hz_to_mel(hz), rel=1e-12, abs=1e-12)
    assert float(mel.mel_to_hz(mel.hz_to_mel(hz))) == pytest.approx(hz, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(("n_in", "n_out"), [(128, 20), (40, 40), (7, 3)])
def test_the_cosine_transform_is_that_of_scipy(n_in, n_out):
    x = np.random.default_rng(0).normal(size=(5, n_in))
    wanted = scipy.fft.dct(x, type=2, norm="ortho")[:, :n_out]
    np.testing.assert_allclose(x @ mel.dct_matrix(n_in, n_out), wanted, atol=1e-5)
