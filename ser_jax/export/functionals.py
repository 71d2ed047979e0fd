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
from ser_jax.export.parts import INDEX_COLUMNS, PART_UTTERANCES, check_out, check_rejects, in_parts, joined

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
    import numpy as np

    from ser_jax.export.features import write_features

    if feature_set not in SETS:
        raise UsageError(f"--functionals {feature_set}: unknown{suggestion(feature_set, SETS)}; known: {', '.join(SETS)}")
    jobs = _default_jobs() if jobs is None else jobs
    if jobs < 1:
        raise UsageError(f"--jobs {jobs}: must be at least 1")
    if os.environ.get("SER_JAX_COORDINATOR"):
        raise UsageError("--functionals runs on one machine only; give it --jobs instead of several processes")
    out, index = check_out(out), corpus.index
    metadata = _metadata(feature_set, corpus)
    print(LICENCE, file=sys.stderr)
    identity = {name: metadata[name] for name in ("layer", "corpus")} | {"opensmile": metadata["versions"]["opensmile"]}
    work = in_parts(range(len(index)), lambda row: row, part_utterances)
    with _mapper(corpus.path, feature_set, jobs) as apply, joined(
        out, ["functionals", identity, part_utterances], work,
        lambda rows, progress: _part(corpus, apply, rows, metadata, progress), metadata,
        f"{feature_set} {corpus.name}", "utterances",
    ) as features:
        finite = np.isfinite(features.embedding)
        names = np.array(metadata["names"])
        refused = [(int(row), "not finite: " + ", ".join(names[~finite[row]][:3]))
                   for row in np.flatnonzero(~finite.all(axis=1))]
        check_rejects(out, index, refused, "have values that are not finite", max_rejects)
        features = features.rows(finite.all(axis=1))
        write_features(features, out)
        print(f"{out}: {len(features.table)} rows of {feature_set} ({len(names)} values)"
              + (f", {len(refused)} utterances not finite (listed in {out}.rejects.csv)" if refused else ""))


def _default_jobs():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_DEFAULT_JOBS)


def _metadata(feature_set, corpus):
    import importlib.metadata

    from ser_jax import results
    from ser_jax.export.features import layer_columns

    names = _smile(feature_set).feature_names
    return {
        "kind": "egemaps",
        "linguistic": False,
        "checkpoint": None,
        "experiment": None,
        "corpus": {"name": corpus.name, "fingerprint": corpus.fingerprint, "synthetic": corpus.info["synthetic"]},
        "layer": feature_set,
        "columns": layer_columns(["egemaps"], [len(names)]),
        "names": names,
        "pooling": "functionals",
        "chunk_seconds": None,
        "pretrained_synthetic": False,
        "versions": results.versions() | {"opensmile": importlib.metadata.version("opensmile")},
    }


def _part(corpus, apply, rows, metadata, progress):
    """Features of some utterances, those with values that are not finite among them."""
    import numpy as np

    from ser_jax.corpora.schema import SAMPLE_RATE
    from ser_jax.export.features import Features

    values = []
    for value in apply(rows):
        values.append(value)
        progress.update()
    index = corpus.index.iloc[rows].reset_index(drop=True)
    table = index[INDEX_COLUMNS].assign(chunk=0, start=0.0, end=index["num_samples"] / SAMPLE_RATE)
    return Features(table, np.stack(values), metadata)


def _smile(feature_set):
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
