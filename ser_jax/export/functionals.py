"""Functionals of openSMILE as features: 88 values of each whole utterance (Eyben et al. 2016, eGeMAPS).

An utterance with a value that is not finite (openSMILE answers NaN where it hears too little) is left out.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from concurrent import futures

from ser_jax.errors import UsageError, UserError, suggestion
from ser_jax.export import parts
from ser_jax.export.parts import PART_UTTERANCES

SETS = ("eGeMAPSv02", "eGeMAPSv01b", "eGeMAPSv01a")
LICENCE = ("openSMILE is licensed for non-commercial purposes only (audEERING Research License Agreement): neither it nor "
           "features made with it may go into a product")
MAX_DEFAULT_JOBS = 16


def export(feature_set, corpus, out, *, jobs=None, max_rejects=0.01, part_utterances=PART_UTTERANCES):
    """Writes a features file of functionals; see `export.run.export`, which does it for checkpoints.

    Args:
      feature_set: one of SETS.
      corpus: PreparedCorpus.
      out: path ending in .parquet, .npz or .csv.
      jobs: processes; 1 = this one. None = the available cores, at most 16.
      max_rejects: largest share of utterances that may have values that are not finite; they are listed in
        `<out>.rejects.csv`.
      part_utterances: utterances per part.

    Raises:
      UsageError: unknown set, no jobs.
      UserError: openSMILE is not installed; else as for checkpoints.
    """
    from ser_jax.data.batches import Piece

    if feature_set not in SETS:
        raise UsageError(f"--functionals {feature_set}: unknown{suggestion(feature_set, SETS)}; known: {', '.join(SETS)}")
    jobs = _default_jobs() if jobs is None else jobs
    if jobs < 1:
        raise UsageError(f"--jobs {jobs}: must be at least 1")
    if os.environ.get("SER_JAX_COORDINATOR"):
        raise UsageError("--functionals runs on one machine only; give it --jobs instead of several processes")
    out = parts.check_out(out)
    metadata = _metadata(feature_set, corpus)
    print(LICENCE, file=sys.stderr)
    with _mapper(corpus.path, feature_set, jobs) as apply:
        parts.write(parts.Work(
            metadata=metadata,
            identity=["functionals", metadata["layer"], metadata["corpus"], metadata["versions"]["opensmile"]],
            pieces=[Piece(row, 0, 0, length) for row, length in enumerate(corpus.index["num_samples"].tolist())],
            values=lambda pieces: zip(pieces, apply([piece.row for piece in pieces])),
            what=f"rows of {feature_set}",
            doing=f"{feature_set} {corpus.name}",
            reason="not finite",
            check=_not_finite,
        ), corpus, out, max_rejects, part_utterances)


def _not_finite(features):
    """{row: which values are not finite} of the rows that have some."""
    import numpy as np

    finite, names = np.isfinite(features.embedding), np.array(features.metadata["names"])
    return {int(row): "not finite: " + ", ".join(names[~finite[row]][:3])
            for row in np.flatnonzero(~finite.all(axis=1))}


def _default_jobs():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_DEFAULT_JOBS)


def _metadata(feature_set, corpus):
    import importlib.metadata

    from ser_jax import results
    from ser_jax.export.layers import layer_columns

    names = _smile(feature_set).feature_names
    return {
        "kind": "egemaps",
        "linguistic": False,
        "checkpoint": None,
        "experiment": None,
        "corpus": parts.corpus_metadata(corpus),
        "layer": feature_set,
        "columns": layer_columns(["egemaps"], [len(names)]),
        "names": names,
        "pooling": "functionals",
        "chunk_seconds": None,
        "pretrained_synthetic": False,
        "versions": results.versions() | {"opensmile": importlib.metadata.version("opensmile")},
    }


def _smile(feature_set):
    if "tensorflow" in sys.modules:
        raise UserError("openSMILE and TensorFlow crash a process that loads both; run `ser-jax export --functionals` in one of "
                        "its own")
    try:
        import opensmile
    except ImportError as error:
        raise UserError(f"--functionals needs openSMILE ({error}): pip install 'ser_jax[opensmile]'; {LICENCE}") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are newer sets
        return opensmile.Smile(feature_set=opensmile.FeatureSet[feature_set],
                               feature_level=opensmile.FeatureLevel.Functionals)


@contextlib.contextmanager
def _mapper(path, feature_set, jobs):
    """Yields a function: rows of the prepared corpus -> iterator over their functionals, float32[88] each."""
    if jobs == 1:
        _open(path, feature_set)
        yield lambda rows: map(_functionals, rows)
        _worker.clear()
        return
    spawn = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(jobs, spawn, _start_worker, (path, feature_set)) as pool:
        try:
            yield lambda rows: pool.map(_functionals, rows, chunksize=8)
        except futures.process.BrokenProcessPool:
            raise UserError("a worker process died (killed, or out of memory): run the same command again to continue, "
                            "with fewer --jobs if it happens again") from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


_worker = {}  # of a process: its corpus and its openSMILE


def _start_worker(path, feature_set):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _open(path, feature_set)


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


def _open(path, feature_set):
    from ser_jax.data.prepared import PreparedCorpus

    _worker.update(corpus=PreparedCorpus(path), smile=_smile(feature_set))


def _functionals(row):
    import numpy as np

    from ser_jax.corpora.schema import SAMPLE_RATE

    speech = _worker["corpus"].speech(row).astype(np.float32) / 32768
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an utterance is too short: it will be in the ledger
        return _worker["smile"].process_signal(speech, SAMPLE_RATE).to_numpy(np.float32)[0]
