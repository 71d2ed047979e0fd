"""Training batches as a function of (seed, step): any number of hosts, devices and workers continues the same run."""

import grain
import numpy as np
from absl import flags

from ser_jax.data.prepared import PreparedCorpus
from ser_jax.errors import UsageError

# Grain reads 500 batches ahead by default, which is gigabytes of speech.
READING = grain.ReadOptions(num_threads=16, prefetch_buffer_size=16)


class Rows(grain.sources.RandomAccessDataSource):
    """Random access to chosen rows of several prepared corpora, as `Utterance`s."""

    def __init__(self, corpora, position, row):
        self.corpora, self.position, self.row = corpora, np.asarray(position), np.asarray(row)

    def __len__(self):
        return len(self.row)

    def __getitem__(self, i):
        return self.corpora[self.position[i]].record(int(self.row[i]))


class MakeExample(grain.transforms.RandomMap):
    """utterance -> the task's example; Grain keys the random numbers by (seed, index in the stream)."""

    def __init__(self, task):
        self.task = task

    def random_map(self, element, rng):
        return self.task.example(element, rng)


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
    train = table[table["part"] == "train"]
    groups = [train[train["position"] == i] for i in range(len(corpora))] if data.weights else [train]
    streams = [
        grain.MapDataset.source(Rows(corpora, group["position"], group["row"])).seed(data.seed + i).shuffle().repeat()
        for i, group in enumerate(groups)
    ]
    stream = grain.MapDataset.mix(streams, data.weights) if data.weights else streams[0]
    stream = stream.seed(data.seed).random_map(MakeExample(task))
    batches = stream.batch(batch_size // hosts)[host::hosts][start:].to_iter_dataset(READING)
    if data.workers:
        if not flags.FLAGS.is_parsed():  # Grain's worker processes read absl flags
            flags.FLAGS.mark_as_parsed()
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=data.workers))
    return iter(batches)


def open_corpora(paths):
    """PreparedCorpus list of `paths`; the one door through which training, evaluation and export open corpora."""
    if not paths:
        raise UsageError("no corpus named: --set data.corpora=FOLDER (made by `ser-jax prepare`)")
    return [PreparedCorpus(path) for path in paths]
