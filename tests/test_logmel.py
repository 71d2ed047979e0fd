"""Log-mel energies: the numbers of the definition, whatever the padding and the neighbours; silence and short input."""

import functools
import subprocess
import sys

import jax
import numpy as np
import pytest
import scipy.signal
import training
from corpus_files import voice
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ser_jax import sharding
from ser_jax.audio.logmel import LogMel, logmel
from ser_jax.errors import UsageError

SIZE = 6_000  # samples that made-up rows are padded to, so that one program per spec does for all
NEUMANN, FAYEK = LogMel(), LogMel(bands=40, low_hz=20.0, high_hz=8000.0, preemphasis=0.97)
SPECS = pytest.mark.parametrize("spec", [NEUMANN, FAYEK], ids=["26 bands", "40 bands"])
logmel_of = jax.jit(logmel, static_argnums=2)


@functools.cache
def reference_filters(spec):
    """float64[fft // 2 + 1, bands] from the definition: HTK's triangles, one band at a time."""
    def mel(hz):
        return 2595 * np.log10(1 + hz / 700)

    corners = np.linspace(mel(spec.low_hz), mel(spec.high_hz), spec.bands + 2)
    bins = mel(np.arange(spec.fft // 2 + 1) * 16_000 / spec.fft)
    return np.stack([np.interp(bins, corners[i:i + 3], [0, 1, 0]) for i in range(spec.bands)], axis=1)


def reference(x, spec):
    """float64[F, bands]: the definition of `logmel`, of one utterance without padding."""
    x = scipy.signal.lfilter([1, -spec.preemphasis], 1, np.asarray(x, np.float64))
    window = scipy.signal.get_window(spec.window_shape, spec.window, fftbins=False)
    frames = [x[i:i + spec.window] * window for i in range(0, len(x) - spec.window + 1, spec.hop)]
    power = np.abs(np.fft.fft(frames, spec.fft)[:, :spec.fft // 2 + 1]) ** 2
    return np.log(np.maximum(power @ reference_filters(spec), spec.floor))


def assert_definition(found, x, spec):
    """Logarithms within 1e-4 — but float32 knows no amplitude better than to one part in 2^23 of the window's norm."""
    x = np.asarray(x, np.float64)
    windows = [x[i:i + spec.window] * np.hamming(spec.window) for i in range(0, len(x) - spec.window + 1, spec.hop)]
    rounding = 2.0**-23 * np.linalg.norm(windows, axis=1, keepdims=True) * np.sqrt(spec.fft / 2)
    amplitude = np.exp(reference(x, spec) / 2)
    assert found.shape == amplitude.shape
    assert (np.abs(np.exp(found / 2) - amplitude) <= 5e-5 * amplitude + rounding).all()


def batch(rows, size):
    """Rows of different lengths in one array; the padding is full of what must not be heard."""
    x = np.random.default_rng(9).uniform(-1, 1, (len(rows), size)).astype(np.float32)
    for i, row in enumerate(rows):
        x[i, :len(row)] = row
    return x, np.arange(size) < np.array([len(row) for row in rows])[:, None]


def of(rows, spec=NEUMANN):
    """Energies of the valid frames of each of up to three rows (one program); zeros must follow."""
    filled = [*rows, *[np.ones(1_000)] * (3 - len(rows))]
    values, mask = map(np.asarray, logmel_of(*batch(filled, SIZE), spec))
    assert values.shape == (3, spec.num_frames(SIZE), spec.bands) and values.dtype == np.float32
    assert (values[~mask] == 0).all() and mask.sum(1).tolist() == [spec.num_frames(len(row)) for row in filled]
    return [value[valid] for value, valid in zip(values[:len(rows)], mask, strict=False)]


@st.composite
def sounds(draw):
    """A voice, noise, tones or clicks of any length that has frames, at any level, with a stretch of digital silence."""
    length, seed = draw(st.integers(NEUMANN.min_samples, SIZE)), draw(st.integers(0, 99))
    rng = np.random.default_rng(seed)
    x = {"voice": lambda: voice(rng.uniform(80, 300), SIZE / 16_000, seed) / 32768,
         "noise": lambda: rng.normal(0.1, 0.2, SIZE),
         "tones": lambda: sum(np.sin(rng.uniform(0.01, 3) * np.arange(SIZE)) for _ in range(3)) / 3
         + rng.normal(0, 1e-3, SIZE),
         "clicks": lambda: (rng.random(SIZE) < 1e-3) * rng.uniform(-1, 1, SIZE)}[
             draw(st.sampled_from(["voice", "noise", "tones", "clicks"]))]()
    start = draw(st.integers(0, length))
    x = x[:length].astype(np.float32)
    x[start:start + draw(st.integers(0, length))] = 0
    return x * np.float32(10 ** draw(st.floats(-4, 0)))


@SPECS
@given(rows=st.lists(sounds(), min_size=3, max_size=3))
@example(rows=[np.linspace(-1, 1, 400, dtype=np.float32), np.zeros(559), np.sin(np.arange(560.0)).astype(np.float32)])
@settings(max_examples=30, deadline=None)
def test_energies_are_those_of_the_definition(spec, rows):
    for row, found in zip(rows, of(rows, spec), strict=True):
        assert_definition(found, row, spec)


@SPECS
def test_energies_of_speech_and_noise_are_right_to_the_fourth_digit(spec):
    rows = [(voice(f0, 0.35, 1) / 32768).astype(np.float32) for f0 in (100, 250)]
    rows += [np.random.default_rng(0).normal(0, 1e-3, SIZE).astype(np.float32)]
    for row, found in zip(rows, of(rows, spec), strict=True):
        np.testing.assert_allclose(found, reference(row, spec), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("rows", "size", "spec"), [
    (1, 140_000, NEUMANN), (40, 9_000, NEUMANN), (2, 70_000, LogMel(window=401, hop=163)),
    (1, 900, LogMel(hop=500, window_shape="hann"))], ids=["long", "wide", "odd", "gaps"])
def test_a_batch_of_any_form_has_the_energies_of_its_rows(rows, size, spec):
    """More windows than are taken at once, and lengths that neither hop nor window divide."""
    lengths = size - np.arange(rows) * 7
    x, mask = batch([np.random.default_rng(i).normal(0, 0.1, length) for i, length in enumerate(lengths)], size)
    values, valid = map(np.asarray, logmel_of(x, mask, spec))
    assert values.shape == (rows, 1 + (size - spec.window) // spec.hop, spec.bands)
    for i in {0, rows // 2, rows - 1}:
        np.testing.assert_allclose(values[i, valid[i]], reference(x[i, :lengths[i]], spec), rtol=0, atol=1e-4)


@given(sounds(), st.permutations(range(3)))
@settings(max_examples=25, deadline=None)
def test_energies_depend_neither_on_padding_nor_on_neighbours(row, order):
    rows = [row, np.random.default_rng(1).uniform(-1, 1, SIZE), np.zeros(400)]
    (alone,), (mask,) = map(np.asarray, logmel_of(*batch([row], SIZE + 500), NEUMANN))
    np.testing.assert_allclose(of([rows[i] for i in order])[order.index(0)], alone[mask], rtol=0, atol=2e-5)


@SPECS
def test_silence_lies_on_the_floor(spec):
    silent, = of([np.zeros(2_000)], spec)
    np.testing.assert_allclose(silent, np.full((11, spec.bands), np.log(1e-8)), rtol=1e-6)


def test_an_utterance_too_short_for_a_window_has_no_frame():
    sound = np.sin(np.arange(559.0)).astype(np.float32)
    short, one = of([sound[:399], sound])
    assert short.shape == (0, 26)
    np.testing.assert_allclose(one, reference(sound[:400], NEUMANN), rtol=0, atol=1e-4)
    values, mask = logmel_of(np.ones((2, 300), np.float32), np.ones((2, 300), bool), NEUMANN)
    assert values.shape == (2, 0, 26) and mask.shape == (2, 0)


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (120_000, 748)])
def test_the_number_of_frames(samples, frames):
    """7.5 s are the 748 frames that the attentive CNN reads."""
    assert NEUMANN.num_frames(samples) == frames
    np.testing.assert_array_equal(NEUMANN.num_frames(np.array([samples, 720])), [frames, 3])


def test_on_a_mesh_every_device_computes_the_energies_of_its_own_rows():
    """With one device here; two devices are in a process of their own, below."""
    x, mask = batch([voice(120, 0.3, 1) / 32768, voice(220, 0.2, 2) / 32768, np.zeros(900)], SIZE)
    wanted, _ = logmel_of(x, mask, NEUMANN)
    with jax.set_mesh(sharding.mesh()):
        found, _ = logmel_of(x, mask, NEUMANN)
    np.testing.assert_array_equal(found, wanted)


TWO_DEVICES = """
import jax, numpy as np
from ser_jax import sharding
from ser_jax.audio import audeep, logmel
mesh = sharding.mesh()
assert mesh.size == 2
whole = {"x": np.random.default_rng(0).normal(size=(4, 20_000)).astype(np.float32), "mask": np.ones((4, 20_000), bool)}
batch = sharding.put(whole, mesh)
for front_end in (audeep.spectrogram, logmel.logmel):
    wanted, _ = jax.jit(front_end)(**whole)
    with jax.set_mesh(mesh):
        program = jax.jit(front_end).lower(**batch).compile()
    found, _ = program(**batch)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert found.sharding.is_equivalent_to(sharding.over_batch(mesh), 3)
    assert "all-gather" not in program.as_text()
"""


@pytest.mark.slow
def test_two_devices_exchange_nothing():
    done = subprocess.run([sys.executable, "-c", TWO_DEVICES], env=training.simulated(2), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(("name", "values"), [
    ("bands", {"bands": 0}), ("hop", {"hop": 0}), ("low_hz", {"low_hz": 7000.0}), ("high_hz", {"high_hz": 8001.0}),
    ("fft", {"fft": 256}), ("window_shape", {"window_shape": "kaiser"}), ("preemphasis", {"preemphasis": 1.0}),
    ("floor", {"floor": 0.0}), ("1 of 120 bands", {"bands": 120})])
def test_a_wrong_option_is_named_in_one_line(name, values):
    with pytest.raises(UsageError, match=name) as error:
        LogMel(**values)
    assert "give" in str(error.value) and "\n" not in str(error.value)
