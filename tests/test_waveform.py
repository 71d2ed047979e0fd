"""Augmentation and cutting: what a shift, a crop or a piece may and may not do to an utterance."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_jax.audio import waveform
from ser_jax.corpora.schema import Utterance
from ser_jax.data import batches
from ser_jax.data.pieces import cut, random_crop
from ser_jax.tasks.gender import GenderConfig

ROWS, SIZE = 4, 50
lengths = st.lists(st.integers(1, SIZE), min_size=ROWS, max_size=ROWS)
seeds = st.integers(0, 2**31 - 2)  # one more is a seed, too
quick = settings(deadline=None, max_examples=60)


def _rows(seed, row_lengths):
    """(x, mask): every valid sample is another number, the padding is full of values that must not be used."""
    x = np.random.default_rng(seed).permutation(ROWS * SIZE).reshape(ROWS, SIZE).astype(np.float32) + 1
    mask = np.arange(SIZE) < np.array(row_lengths)[:, None]
    return np.where(mask, x, 1e6).astype(np.float32), mask


@functools.partial(jax.jit, static_argnums=3)
def shifted(seed, x, mask, fraction):
    return waveform.random_shift(jax.random.key(seed), x, mask, fraction)


@functools.partial(jax.jit, static_argnums=3)
def noisy(seed, x, mask, amplitude):
    return waveform.add_noise(jax.random.key(seed), x, mask, amplitude)


@given(seeds, lengths, st.sampled_from([0.0, 0.2, 1.0]))
@quick
def test_a_shift_moves_the_valid_part_and_fills_with_zeros(seed, row_lengths, fraction):
    x, mask = _rows(seed, row_lengths)
    y = np.asarray(shifted(seed, x, mask, fraction))
    assert (y[~mask] == 0).all()
    for row, length in enumerate(row_lengths):
        most = int(fraction * length + 0.5)
        assert any((y[row, :length] == _moved(x[row, :length], by)).all() for by in range(-most, most + 1))
    if fraction == 0:
        assert (y[mask] == x[mask]).all()
    assert (y == np.asarray(shifted(seed, x, mask, fraction))).all()


def _moved(x, by):
    y = np.zeros_like(x)
    for i, value in enumerate(x):
        if 0 <= i + by < len(x):
            y[i + by] = value
    return y


def test_shifts_cover_their_range_and_differ_between_rows_and_keys():
    x = np.tile(np.arange(1, SIZE + 1, dtype=np.float32), (ROWS, 1))
    mask = np.ones((ROWS, SIZE), bool)
    results = [np.asarray(shifted(seed, x, mask, 0.2)) for seed in range(100)]
    # The middle survives every shift of a fifth, and tells how far it went.
    moves = np.array([SIZE // 2 + 1 - y[:, SIZE // 2] for y in results])
    assert moves.min() == -10 and moves.max() == 10 and abs(moves.mean()) < 1
    assert (np.ptp(moves, axis=1) > 0).mean() > 0.9 and (np.ptp(moves, axis=0) > 0).all()


@given(seeds, lengths)
@quick
def test_noise_is_added_to_valid_samples_alone(seed, row_lengths):
    x, mask = _rows(seed, row_lengths)
    y = np.asarray(noisy(seed, x, mask, 0.5))
    assert (y[~mask] == x[~mask]).all() and (y[mask] != x[mask]).all()
    assert (y == np.asarray(noisy(seed, x, mask, 0.5))).all()
    assert (y != np.asarray(noisy(seed ^ 1, x, mask, 0.5)))[mask].any()
    assert (np.asarray(noisy(seed, x, mask, 0.0)) == x).all()


def test_noise_has_the_spread_of_a_uniform_and_a_normal_of_one_amplitude():
    a, x = 0.005, np.zeros((4, 80_000), np.float32)
    y = np.asarray(waveform.add_noise(jax.random.key(0), x, np.ones(x.shape, bool), a)) / a
    assert y.mean() == pytest.approx(0, abs=0.01)
    assert y.var() == pytest.approx(1 / 3 + 1, rel=0.02)
    # The fourth moment tells uniform + normal from one normal: 3·1 + 6·(1/3)·1 + 1/5.
    assert (y**4).mean() == pytest.approx(5.2, rel=0.05)


@given(seeds, lengths, st.floats(-3, 3, width=32))
@quick
def test_the_mean_is_that_of_the_valid_samples(seed, row_lengths, offset):
    x, mask = _rows(seed, row_lengths)
    y = np.asarray(waveform.remove_mean(x, mask))
    assert (y[~mask] == 0).all()
    for row, length in enumerate(row_lengths):
        valid = x[row, :length]
        np.testing.assert_allclose(y[row, :length], valid - valid.mean(dtype=np.float64), atol=1e-3)
    np.testing.assert_allclose(np.asarray(waveform.remove_mean(x + offset, mask)), y, atol=1e-3)


@functools.partial(jax.jit, static_argnums=3)
def played(seed, x, mask, spread, fastest):
    return waveform.random_speed(jax.random.key(seed), x, mask, spread, fastest)


@given(seeds, lengths, st.sampled_from([0.0, 0.1, 0.5]), st.floats(1, 2))
@quick
def test_another_speed_stretches_the_valid_part(seed, row_lengths, spread, fastest):
    """A ramp stays a ramp, steeper or flatter; its end says how fast, the mask how long."""
    mask = np.arange(SIZE) < np.array(row_lengths)[:, None]
    x = np.where(mask, np.arange(SIZE, dtype=np.float32), 1e6)
    limits = np.array([1.0, fastest, 1.3, 2.0], np.float32)
    y, heard = map(np.asarray, played(seed, x, mask, spread, limits))
    assert (y[~heard] == 0).all()
    for row, length in enumerate(row_lengths):
        now = int(heard[row].sum())
        assert heard[row, :now].all() and now <= SIZE
        if length > 2 and now > 1:
            speed = y[row, 1]
            inner = np.arange(now)[np.arange(now) * speed <= length - 1]  # the last sample fades out beyond that
            np.testing.assert_allclose(y[row, inner], inner * speed, atol=1e-3)
            low, high = max(1 - spread, length / SIZE), min(1 + spread, limits[row])
            assert min(low, high) - 1e-5 <= speed <= max(low, high) + 1e-5
            assert abs(now - min(length / speed, SIZE)) <= 1.01
        if spread == 0:
            assert now == length and (y[row, :now] == x[row, :now]).all()


def test_speeds_cover_their_range_and_differ_between_rows():
    mask = np.arange(SIZE) < np.full((ROWS, 1), 40)
    x = np.tile(np.arange(SIZE, dtype=np.float32), (ROWS, 1))
    speed = np.array([played(seed, x, mask, 0.1, np.full(ROWS, 9.0, np.float32))[0][:, 20] / 20 for seed in range(150)])
    assert 0.9 <= speed.min() < 0.91 and 1.09 < speed.max() <= 1.1 and abs(speed.mean() - 1) < 0.01
    assert (np.ptp(speed, axis=1) > 0.01).mean() > 0.9 and (np.ptp(speed, axis=0) > 0.15).all()


def test_masks_and_units():
    assert np.asarray(waveform.length_mask(jnp.array([0, 2, 3]), 3)).tolist() == [
        [False] * 3, [True, True, False], [True] * 3]
    speech = np.array([[-32768, 0, 16384, 32767]], np.int16)
    assert np.asarray(waveform.to_float(speech)).tolist() == [[-1.0, 0.0, 0.5, 32767 / 32768]]
    assert np.asarray(waveform.remove_mean(np.ones((1, 3), np.float32), np.zeros((1, 3), bool))).tolist() == [[0, 0, 0]]


# ------------------------------------------------------------------------------------------------ the gender task


@given(st.integers(1, 300), st.integers(1, 300), seeds)
@quick
def test_a_crop_is_a_piece_of_the_speech_or_all_of_it_padded(length, size, seed):
    speech = np.arange(1, length + 1, dtype=np.int16)
    crop, valid = random_crop(speech, size, np.random.default_rng(seed))
    assert crop.dtype == np.int16 and crop.shape == (size,) and valid == min(length, size)
    assert (crop[valid:] == 0).all()
    assert (crop[:valid] == speech[crop[0] - 1 : crop[0] - 1 + valid]).all()
    if length <= size:
        assert crop[0] == 1
    again, _ = random_crop(speech, size, np.random.default_rng(seed))
    assert (crop == again).all()


def test_crops_reach_both_ends():
    speech = np.arange(8, dtype=np.int16)
    firsts = {random_crop(speech, 5, np.random.default_rng(seed))[0][0] for seed in range(60)}
    assert firsts == {0, 1, 2, 3}


def test_an_example_of_the_gender_task():
    task = GenderConfig(crop_seconds=0.01, min_samples=50).build()
    for gender, length in (("female", 100), ("male", 1000)):
        utterance = Utterance("u", "c", "s", np.ones(length, np.int16), gender=gender)
        example = task.example(utterance, 160, np.random.default_rng(0))
        assert example["speech"].shape == (160,) and example["length"] == min(length, 160)
        assert task.classes[example["label"]] == gender
        assert example["speech"].sum() == min(length, 160)


def test_augmentation_of_the_task_is_keyed_and_keeps_to_the_mask():
    task = GenderConfig(crop_seconds=0.01, min_samples=50).build()
    rng = np.random.default_rng(0)
    batch = {"speech": rng.integers(-9000, 9000, (3, 160)).astype(np.int16), "length": np.array([160, 60, 100], np.int32),
             "label": np.zeros(3, np.int32)}

    @jax.jit
    def inputs(seed):
        return task.inputs(task.augment(batch, jax.random.key(seed)))

    (x, mask), (again, _), (other, _) = inputs(0), inputs(0), inputs(1)
    x, mask = np.asarray(x), np.asarray(mask)
    assert mask.sum(1).tolist() == [160, 60, 100]
    assert (x[~mask] == 0).all() and np.isfinite(x).all() and np.abs(x.sum(1)).max() < 1e-3
    assert (x == np.asarray(again)).all() and (x != np.asarray(other)).any(1).all()
    plain, _ = task.inputs(batch)
    assert (np.asarray(plain) != x).any(1).all()


def test_every_example_of_the_gender_task_has_the_size_of_a_crop():
    import pandas

    index = pandas.DataFrame({"num_samples": [50, 160, 99_999]})
    assert GenderConfig(crop_seconds=0.01, min_samples=50).build().sizes(index).tolist() == [160] * 3


def test_what_the_gender_task_refuses():
    import pandas

    index = pandas.DataFrame({"gender": ["female", "", "male", "male"], "num_samples": [6561, 9999, 6560, 7000]})
    reasons = list(GenderConfig().build().refuse(index))
    assert reasons == ["", "no gender label", "shorter than 6561 samples", ""]
    assert GenderConfig().build().label(index.iloc[[0, 2]]).tolist() == [0, 1]


# ------------------------------------------------------------------------------------------------ pieces and batches

seconds = st.one_of(st.none(), st.floats(0.05, 2.0))


@given(st.integers(0, 100_000), seconds, st.integers(1, 8000))
@quick
def test_pieces_cover_the_utterance_and_are_equally_long(length, seconds, minimum):
    pieces = cut(length, seconds, minimum)
    if length < minimum:
        assert pieces == []
        return
    covered = np.zeros(length, bool)
    for start, end in pieces:
        assert 0 <= start < end <= length and end - start >= minimum
        covered[start:end] = True
    assert covered.all() and len({end - start for start, end in pieces}) == 1
    assert pieces == sorted(pieces)
    if seconds is None:
        assert pieces == [(0, length)]
    else:
        size = max(round(seconds * 16_000), minimum)
        assert len(pieces) == max(1, -(-length // size))  # no more of them than needed
        assert all(start == i * size for i, (start, _) in enumerate(pieces[:-1]))


@given(st.lists(st.integers(1, 90_000), min_size=1, max_size=30), seconds, st.integers(1, 7))
@quick
def test_batches_hold_every_piece_once_and_fit(row_lengths, seconds, batch_size):
    task = dataclasses.replace(GenderConfig(), min_samples=2_000).build()
    pieces, short = batches.pieces_of(row_lengths, task, seconds)
    assert short == [row for row, length in enumerate(row_lengths) if length < 2_000]
    groups = batches.batched(pieces, batch_size, seconds)
    assert sorted((p.row, p.number) for _, group in groups for p in group) == sorted((p.row, p.number) for p in pieces)
    speech = [np.full(length, row + 1, np.int16) for row, length in enumerate(row_lengths)]
    for padded, group in groups:
        assert 0 < len(group) <= batch_size
        for piece in group:
            assert piece.length <= padded <= max(batches.GROWTH * piece.length + 1, 4_001)
            assert batches.padded_length(piece.length, seconds) == padded  # nothing but its own length decides
        batch = batches.load(speech.__getitem__, padded, group, batch_size)
        assert batch["speech"].shape == (batch_size, padded) and batch["speech"].dtype == np.int16
        for i, piece in enumerate(group):
            assert batch["length"][i] == piece.length
            assert (batch["speech"][i] == np.where(np.arange(padded) < piece.length, piece.row + 1, 0)).all()


def test_work_ahead_keeps_the_order_and_passes_on_errors():
    assert list(batches.ahead(lambda i: i * i, range(20))) == [i * i for i in range(20)]

    def fails(i):
        if i == 3:
            raise ValueError("no file")
        return i

    made = batches.ahead(fails, range(9))
    assert [next(made) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no file"):
        next(made)
