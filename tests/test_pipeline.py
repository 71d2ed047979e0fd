"""Batches of utterances of many lengths: every one once a window, about equally long, a function of (seed, step)."""

import collections
import pickle
import threading
import time

import grain
import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_jax.config import Data
from ser_jax.corpora.schema import Utterance
from ser_jax.data import pipeline, splits

BATCH = 4
WINDOW = pipeline.WINDOW_BATCHES * BATCH  # utterances
LADDER = np.array([100, 200, 400, 800])


class Corpus:
    """A prepared corpus without files: utterance i of n, of all lengths from 1 to 800 samples."""

    def __init__(self, name, count):
        lengths = np.random.default_rng(count).integers(1, 801, count)
        self.name, self.path = name, name
        self.index = pandas.DataFrame({
            "id": [f"{name}{i}" for i in range(count)], "speaker_id": [f"s{i % 7}" for i in range(count)], "gender": "", "session": "",
            "split": "", "num_samples": lengths, "audio_sha256": "", "text": ""})

    def record(self, row):
        entry = self.index.iloc[row]
        return Utterance(entry["id"], self.name, "", np.ones(entry["num_samples"], np.int16))


class Sized:
    """A task with four sizes, whose examples tell their utterance and their random numbers."""

    def refuse(self, index):
        return np.full(len(index), "", object)

    def sizes(self, index):
        return LADDER[np.searchsorted(LADDER, index["num_samples"])]

    def example(self, utterance, size, rng):
        number = int(utterance.id[len(utterance.corpus):])
        return {"corpus": np.int32(utterance.corpus == "b"), "number": np.int32(number), "draw": rng.random(2),
                "speech": np.pad(utterance.speech, (0, size - len(utterance.speech)))}


CORPORA = [Corpus("a", 90), Corpus("b", 50)]


def taken(data, count, start=0, hosts=1, host=0, corpora=CORPORA):
    """The next `count` batches of a host."""
    table = splits.assign(corpora, data, Sized())
    stream = pipeline.training_batches(corpora, table, Sized(), data, BATCH, start, hosts, host)
    batches = [next(stream) for _ in range(count)]
    stream.close()
    return batches


def data_of(**fields):
    return Data(corpora=("a", "b"), **{"holdout": 0.0, "seed": 3, **fields})


@pytest.fixture(scope="module")
def two_windows():
    return taken(data_of(), 2 * pipeline.WINDOW_BATCHES)


def names(batches):
    return [(int(c), int(n)) for batch in batches for c, n in zip(batch["corpus"], batch["number"], strict=True)]


def own_sizes(batch):
    """What each utterance of a batch would be padded to on its own."""
    return LADDER[np.searchsorted(LADDER, batch["speech"].sum(1))]


# ------------------------------------------------------------------------------------------------ what is in a batch


def test_every_utterance_comes_out_once_an_epoch_whatever_the_windows(two_windows):
    """The first window of 256 has all 140 once and 116 of them twice; two windows have three epochs and 92 of a fourth."""
    everything = {(position, i) for position, corpus in enumerate(CORPORA) for i in range(len(corpus.index))}
    for batches, often in ((two_windows[:64], {1, 2}), (two_windows[64:], {1, 2, 3}), (two_windows, {3, 4})):
        counts = collections.Counter(names(batches))
        assert counts.keys() == everything and set(counts.values()) == often
    assert len({tuple(draw) for batch in two_windows for draw in batch["draw"]}) == 2 * WINDOW  # no random number twice


def test_a_batch_is_padded_to_its_largest_utterance_and_hardly_ever_mixed(two_windows):
    mixed = 0
    for batch in two_windows:
        assert batch["speech"].shape == (BATCH, own_sizes(batch).max()) and batch["speech"].dtype == np.int16
        mixed += len(set(own_sizes(batch))) > 1
    assert 0 < mixed <= 2 * (len(LADDER) - 1)  # where one size of a window ends and the next begins


def test_short_and_long_batches_come_in_another_random_order_in_each_window(two_windows):
    sizes = np.array([batch["speech"].shape[1] for batch in two_windows]).reshape(2, -1)
    assert sorted(sizes[0]) != sizes[0].tolist() and (sizes[0] != sizes[1]).any()
    for window in sizes:
        assert len(set(window[:20])) == len(set(window[-20:])) == len(LADDER)  # neither end is short of a size
    other = [batch["speech"].shape[1] for batch in taken(data_of(seed=4), pipeline.WINDOW_BATCHES)]
    assert other != sizes[0].tolist()


def test_one_size_needs_no_sorting():
    class Cropped(Sized):
        def sizes(self, index):
            return np.full(len(index), 800)

    table = splits.assign(CORPORA, data_of(), Cropped())
    stream = pipeline.training_batches(CORPORA, table, Cropped(), data_of(), BATCH, 0)
    drawn = names([next(stream) for _ in range(35)])
    stream.close()
    assert len(set(drawn)) == 140  # an epoch is an epoch: no window reaches beyond it
    assert pipeline.padding(table, data_of(), BATCH)[0] == [800]


# ------------------------------------------------------------------------------------------------ a function of the step


def assert_same(batches, others):
    for one, other in zip(batches, others, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("start", [1, 61, 64, 100])
def test_a_run_that_starts_later_gets_the_same_batches(start, two_windows):
    assert_same(taken(data_of(), 8, start=start), two_windows[start:start + 8])


@pytest.mark.parametrize("start", [0, 62])
def test_two_hosts_share_the_batches_of_one(start, two_windows):
    hosts = [taken(data_of(), 6, start=start, hosts=2, host=host) for host in range(2)]
    together = [{name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
                for parts in zip(*hosts, strict=True)]  # fails where the hosts pad to different sizes
    assert_same(together, two_windows[start:start + 6])


def by_length(sizes, batch_size, seed):
    parent = grain.MapDataset.source([(0, row, size) for row, size in enumerate(sizes)]).repeat()
    return parent, pipeline.ByLength(parent, batch_size, seed)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(0, 9),
       st.lists(st.integers(0, 1500), min_size=1, max_size=9), st.booleans())
def test_any_access_gives_the_same_order(batch_size, sizes, seed, places, pickled):
    parent, order = by_length(sizes, batch_size, seed)
    whole = [order[i] for i in range(max(places) + 1)]
    _, again = by_length(sizes, batch_size, seed)
    again = pickle.loads(pickle.dumps(again)) if pickled else again  # as worker processes get it
    assert [again[i] for i in places] == [whole[i] for i in places]
    window = pipeline.WINDOW_BATCHES * batch_size
    first = [order[i] for i in range(window)]
    assert collections.Counter(item[:2] for item in first) == collections.Counter(parent[i][:2] for i in range(window))
    for i in range(0, window, batch_size):
        batch = first[i:i + batch_size]
        assert {size for *_, size in batch} == {max(sizes[row] for _, row, _ in batch)}


def test_the_order_of_the_batches_is_drawn_anew_for_each_window_and_seed():
    sizes = list(range(2 * pipeline.WINDOW_BATCHES))  # every window has the same batches
    windows = []
    for seed in (0, 1):
        _, order = by_length(sizes, 2, seed)
        windows += [[order[i][2] for i in range(start, start + 128)] for start in (0, 128)]
    assert all(sorted(window) == sorted(windows[0]) for window in windows)
    assert len(set(map(tuple, windows))) == 4


def test_threads_at_the_seams_of_windows_see_one_order_and_sort_each_window_once(monkeypatch):
    sizes = [row % 9 for row in range(100)]
    (_, order), (_, reference) = by_length(sizes, 2, 5), by_length(sizes, 2, 5)
    places = [128 * window + step for window in range(1, 9) for step in range(-3, 3)]
    wanted = [reference[place] for place in places]
    found, once, sort = {}, [], pipeline.ByLength._sorted

    def sorts(self, window):
        once.append(window)
        time.sleep(0.01)  # so that the others come, too
        return sort(self, window)

    monkeypatch.setattr(pipeline.ByLength, "_sorted", sorts)
    together = threading.Barrier(8)

    def read(number):
        for place in places:
            if place % 128 == 125:
                together.wait(10)
            found.setdefault(number, []).append(order[place])

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(8), wanted)
    assert once == list(range(9))


# ------------------------------------------------------------------------------------------------ weights and padding


def test_weights_are_the_shares_of_the_corpora():
    batches = taken(data_of(weights=(1.0, 3.0)), pipeline.WINDOW_BATCHES)
    drawn = np.concatenate([batch["corpus"] for batch in batches])
    assert drawn.mean() == pytest.approx(0.75, abs=0.01)
    assert all(batch["speech"].shape[1] == own_sizes(batch).max() for batch in batches)


def test_what_padding_costs_is_what_the_first_window_shows(two_windows):
    window = two_windows[:pipeline.WINDOW_BATCHES]
    table = splits.assign(CORPORA, data_of(), Sized())
    sizes, share = pipeline.padding(table, data_of(), BATCH)
    assert sizes == LADDER.tolist()
    assert share == pytest.approx(1 - sum(b["speech"].sum() for b in window) / sum(b["speech"].size for b in window))
    by_hand = 1 - sum(b["speech"].sum() for b in window) / sum(own_sizes(b).sum() for b in window)
    assert by_hand <= share < by_hand + 0.02  # mixed batches add next to nothing


def test_a_crop_of_a_longer_utterance_is_not_padded():
    class Cropped(Sized):
        def sizes(self, index):
            return np.full(len(index), 10)

    corpora = [Corpus("a", 30)]
    corpora[0].index["num_samples"] = [5, 10, 800] * 10
    table = splits.assign(corpora, data_of(), Cropped())
    sizes, share = pipeline.padding(table, data_of(), BATCH)
    assert sizes == [10] and share == pytest.approx(1 / 6, abs=0.01)
