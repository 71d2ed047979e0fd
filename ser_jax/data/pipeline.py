"""Training batches as a function of (seed, step): any number of hosts, devices and workers continues the same run."""

import threading

import grain
import numpy as np
from absl import flags

from ser_jax.data.prepared import PreparedCorpus
from ser_jax.errors import UsageError

# Grain reads 500 batches ahead by default, which is gigabytes of speech.
READING = grain.ReadOptions(num_threads=16, prefetch_buffer_size=16)
WINDOW_BATCHES = 64  # batches' worth of utterances that are sorted by size together
_SORTING = threading.Lock()  # reader threads come to a new window at the same time; one sorts it for all


class ByLength(grain.MapDataset):
    """Reorders a stream of (position, row, size) so that the utterances of a batch are about equally long.

    Windows of WINDOW_BATCHES batches are sorted by size, equal sizes staying in the (shuffled) order they came in, and
    dealt to batches; the batches of a window then go in a random order, keyed by (seed, window). Every utterance comes out
    once, with the largest size in its batch, which is what all of that batch are padded to.

    Args:
      parent: endless MapDataset.
      batch_size: global batch size.
      seed: of the order of the batches.
    """

    def __init__(self, parent, batch_size, seed):
        super().__init__(parent)
        self._batch_size, self._order_seed, self._windows = batch_size, seed, {}

    def __len__(self):
        return len(self._parent)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.slice(index)
        window, place = divmod(index, WINDOW_BATCHES * self._batch_size)
        batch, member = divmod(place, self._batch_size)
        with _SORTING:
            if window not in self._windows:
                near = {other: kept for other, kept in self._windows.items() if abs(other - window) == 1}
                self._windows = near | {window: self._sorted(window)}
            batches = self._windows[window]
        return batches[batch][member]

    def _sorted(self, window):
        count = WINDOW_BATCHES * self._batch_size
        items = sorted((self._parent[i] for i in range(window * count, (window + 1) * count)), key=lambda item: item[2])
        batches = [items[i:i + self._batch_size] for i in range(0, count, self._batch_size)]
        order = np.random.default_rng([self._order_seed, window]).permutation(len(batches))
        return [[(*item[:2], batches[i][-1][2]) for item in batches[i]] for i in order]


class MakeExample(grain.transforms.RandomMap):
    """(position, row, size) -> the task's example; Grain keys the random numbers by (seed, index in the stream)."""

    def __init__(self, corpora, task):
        self.corpora, self.task = corpora, task

    def random_map(self, element, rng):
        position, row, size = element
        return self.task.example(self.corpora[position].record(row), size, rng)


def training_batches(corpora, table, task, data, batch_size, start, hosts=1, host=0):
    """Endless iterator over this host's share of the batches, from step `start` on.

    Each global batch is dealt to the hosts as consecutive slices, so that its rows are the same, in the same order, on
    any number of hosts; the position in the stream is computed from the step, never stored.

    Args:
      corpora: PreparedCorpus list.
      table: of `splits.assign`; its "train" rows are used.
      task: gives the examples.
      data: config.Data (weights, seed, workers).
      batch_size: global batch size; must be divisible by `hosts`.
      start: number of steps already taken.

    Yields:
      dict of arrays [batch_size // hosts, ...].
    """
    if batch_size % hosts:
        raise UsageError(f"train.batch_size={batch_size} is not divisible by {hosts} processes")
    stream = _order(table, data, batch_size).seed(data.seed).random_map(MakeExample(corpora, task))
    batches = stream.batch(batch_size // hosts)[host::hosts][start:].to_iter_dataset(READING)
    if data.workers:
        if not flags.FLAGS.is_parsed():  # Grain's worker processes read absl flags
            flags.FLAGS.mark_as_parsed()
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=data.workers))
    return iter(batches)


def _order(table, data, batch_size):
    """Endless MapDataset of (position, row, size), batch after batch."""
    train = table[table["part"] == "train"]
    groups = [group for _, group in train.groupby("position", sort=True)] if data.weights else [train]
    streams = []
    for i, group in enumerate(groups):
        rows = list(zip(*(group[name].tolist() for name in ("position", "row", "size")), strict=True))
        streams.append(grain.MapDataset.source(rows).seed(data.seed + i).shuffle().repeat())
    stream = grain.MapDataset.mix(streams, data.weights) if data.weights else streams[0]
    return ByLength(stream, batch_size, data.seed) if train["size"].nunique() > 1 else stream


def padding(table, data, batch_size):
    """What padding costs: (sizes that occur, share of the samples of the first window that is padding).

    Crops of longer utterances count as unpadded. One size = one compiled program.
    """
    order = _order(table, data, batch_size)
    lengths = table.set_index(["position", "row"])["num_samples"].to_dict()
    drawn = [order[i] for i in range(WINDOW_BATCHES * batch_size)]
    used = sum(min(lengths[position, row], size) for position, row, size in drawn)
    return sorted({size for *_, size in drawn}), 1 - used / sum(size for *_, size in drawn)


def open_corpora(paths):
    """PreparedCorpus list of `paths`; the one door through which training, evaluation and export open corpora."""
    if not paths:
        raise UsageError("no corpus named: --set data.corpora=FOLDER (made by `ser-jax prepare`)")
    return [PreparedCorpus(path) for path in paths]
