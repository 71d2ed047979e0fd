"""Does reading crops from a prepared corpus keep up, and how does it compare with tf.data on the official TFDS dataset?

Protocol: `training_batches` (the input of `ser-jax pretrain`: shuffled, random 5-s crops of int16, length and label) with
reader threads alone and with two worker processes. With TensorFlow and Apache Beam installed, also tf.data on the
dataset that the official TFDS LibriSpeech builder makes from miniature archives of the same utterances (synthetic
sound, in a temporary folder): shuffle, random crop, batch, prefetch, numpy out; the pools of both have one thread per core.
Each turn opens a fresh pipeline, leaves its first batches aside and times the next ones; everything lies in the page
cache. CPU ms are per utterance, over all threads and worker processes.

The last line is the rate of the default (threads) by that of tf.data, without TensorFlow by that of two workers.

    python benchmarks/input_pipeline.py
    python benchmarks/input_pipeline.py --corpus prepared/librispeech                        # real utterances, no tf.data
    python benchmarks/input_pipeline.py --corpus prepared/librispeech --tfds tensorflow_datasets/librispeech/default/2.1.1
"""

import argparse
import functools
import gc
import importlib.util
import multiprocessing
import os
import sys
import time
from pathlib import Path

import numpy as np
import timing

SKIPPED = 40  # batches at the start of a turn that are not timed: more than the readers of both workers have in hand


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, help="prepared corpus with genders (default: a synthetic one)")
    parser.add_argument("--tfds", type=Path, help="with --corpus: folder of the official TFDS dataset of the same corpus")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=100, help="timed batches per turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None, help="cores (default: all)")
    parser.add_argument("--quick", action="store_true", help="eight short tones, one round, no TensorFlow")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    threads = timing.pin(args.threads)
    if args.quick:
        args.batch, args.batches, args.rounds = 4, 4, 1
    has_tf = not args.quick and all(importlib.util.find_spec(name) for name in ("tensorflow", "apache_beam"))
    facts = timing.machine_facts(threads, ["grain", *(["tensorflow-cpu", "tensorflow", "tensorflow-datasets"] * has_tf)])
    from ser_jax.data.prepared import PreparedCorpus

    with timing.scratch() as folder:
        dataset = args.tfds
        if args.corpus:
            corpus = PreparedCorpus(args.corpus)
        elif has_tf:
            corpus, dataset = miniature_librispeech(folder)
        else:
            corpus = timing.synthetic_corpus(folder, 8 if args.quick else 96, 1.0 if args.quick else 12.0)
        makers = {f"ser_jax, {name}": functools.partial(ours, corpus, args.batch, workers)
                  for name, workers in (("threads", 0), ("2 workers", 2))}
        if dataset:
            makers["tf.data"] = functools.partial(theirs, dataset, corpus, args.batch, threads)
        seconds = run_rounds(makers, args.rounds, args.batches, 2 if args.quick else SKIPPED)
    count, median = args.batch * args.batches, timing.medians(seconds)
    rows = [[name, f"{count / median[name]['wall']:.1f}", f"{1000 * median[name]['cpu'] / count:.2f}"] for name in makers]
    other = list(makers)[-1]
    by = timing.ratio(seconds, other, "ser_jax, threads")
    length = corpus.index["num_samples"].mean() / 16_000
    print(f"{corpus.name}: {len(corpus)} utterances of {length:.1f} s on average; turns of {args.batches} batches of {args.batch}")
    timing.report(facts, ["pipeline", "utterances/s", "CPU ms per utterance"], rows,
                  {f"CPU per utterance, {other} / ser_jax, threads": by["cpu"],
                   f"utterances/s, ser_jax, threads / {other}": by["wall"]}, args.json, batch=args.batch)


def run_rounds(makers, rounds, batches, skipped):
    """{clock: {name: float64[rounds]}}: seconds for `batches` batches after `skipped` ones, all makers in each round."""
    names = list(makers)
    seconds = {clock: {name: np.zeros(rounds) for name in names} for clock in timing.CLOCKS}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            iterator = makers[name]()
            for _ in range(skipped):
                batch = next(iterator)
            if sorted(batch) != ["label", "length", "speech"] or batch["speech"].dtype != np.int16:
                raise SystemExit(f"{name}: another batch than agreed: { {key: value.dtype for key, value in batch.items()} }")
            wall, cpu = time.perf_counter(), _cpu()
            for _ in range(batches):
                next(iterator)
            seconds["cpu"][name][turn] = _cpu() - cpu
            seconds["wall"][name][turn] = time.perf_counter() - wall
            if hasattr(iterator, "close"):
                iterator.close()
            del iterator, batch  # its threads and processes end with it
            gc.collect()
    return seconds


def _cpu():
    """CPU seconds of this process and of those it has started that still run (read from /proc, where there is one)."""
    total, ticks = time.process_time(), os.sysconf("SC_CLK_TCK")
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            total += (int(fields[11]) + int(fields[12])) / ticks
    return total


def ours(corpus, batch, workers):
    """Iterator of ser_jax' training batches."""
    from ser_jax.config import Data
    from ser_jax.data import pipeline, splits
    from ser_jax.tasks.gender import GenderConfig

    task, data = GenderConfig().build(), Data(corpora=(str(corpus.path),), holdout=0.0, workers=workers)
    return pipeline.training_batches([corpus], splits.assign([corpus], data, task), task, data, batch, start=0)


def theirs(dataset, corpus, batch, threads):
    """Iterator of the same batches by tf.data from an official TFDS dataset; the labels are looked up by speaker."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    from ser_jax.corpora.schema import GENDERS
    from ser_jax.tasks.gender import GenderConfig

    speakers = corpus.index.drop_duplicates("speaker_id")
    labels = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(
        tf.constant(speakers["speaker_id"].astype(int).to_list(), tf.int64),
        tf.constant(speakers["gender"].map(GENDERS.index).to_list(), tf.int32)), -1)
    size = GenderConfig().build().crop

    def example(record):
        speech = record["speech"]
        length = tf.minimum(tf.shape(speech)[0], size)
        start = tf.random.uniform((), 0, tf.shape(speech)[0] - length + 1, tf.int32)
        crop = tf.pad(speech[start:start + length], [[0, size - length]])
        return {"speech": tf.ensure_shape(crop, [size]), "length": length, "label": labels.lookup(record["speaker_id"])}

    builder = tfds.builder_from_directory(dataset)
    stream = builder.as_dataset(split="+".join(builder.info.splits), shuffle_files=True)
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    stream = stream.shuffle(1000).repeat().map(example, num_parallel_calls=tf.data.AUTOTUNE)
    stream = stream.batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE).with_options(options)
    return stream.as_numpy_iterator()


def miniature_librispeech(folder):
    """(PreparedCorpus, folder of the official TFDS dataset), both of the same synthetic archives in the official layout.

    They are made in a process of their own: Apache Beam and its threads stay out of the measured one.
    """
    from ser_jax.data.prepared import PreparedCorpus

    maker = multiprocessing.get_context("spawn").Process(target=_make_miniature, args=(folder,))
    maker.start()
    maker.join()
    if maker.exitcode:
        raise SystemExit("the official TFDS builder failed; see above")
    info = next((folder / "scratch").glob("tfds-*/librispeech/*/*/dataset_info.json"))
    return PreparedCorpus(folder / "prepared"), info.parent


def _make_miniature(folder, utterances=6, seconds=12.0):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    import official_archives

    from ser_jax.corpora import prepare
    from ser_jax.corpora.librispeech import LibriSpeech

    for subset in official_archives.SUBSETS:
        files = official_archives.librispeech_files(subset, utterances, seconds)
        official_archives.write_archive(folder / "in" / f"{subset}.tar.gz", files)
    reader = LibriSpeech(folder / "in", via="tfds", scratch=folder / "scratch")
    prepare.prepare(reader, folder / "prepared", folder / "in", workers=1)


if __name__ == "__main__":
    main()
