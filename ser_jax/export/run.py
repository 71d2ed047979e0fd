"""Export features of a prepared corpus: embeddings from a frozen checkpoint, one row per piece of an utterance.

With --functionals the functionals of openSMILE take the same way instead, one row per utterance. openSMILE (extra
[opensmile]) is not free software: its licence allows non-commercial use only.

An interrupted export continues where it was when the same command is run again.
"""

import math
from pathlib import Path

from ser_jax.errors import DONE, UsageError
from ser_jax.export import functionals
from ser_jax.export.parts import INDEX_COLUMNS, PART_UTTERANCES, check_out, check_rejects, in_parts, joined

EXAMPLE = "ser-jax export --workdir runs/gender --corpus prepared/ravdess --out features/ravdess.parquet"
OF_CHECKPOINTS = ("workdir", "step", "layer", "pooling", "chunk_seconds", "batch_size")


def add_arguments(parser):
    parser.add_argument("--workdir", type=Path, help="folder of a pretraining run (or --functionals)")
    parser.add_argument("--corpus", required=True, type=Path, help="prepared corpus")
    parser.add_argument("--out", required=True, type=Path, help="features file: .parquet, .npz or .csv")
    parser.add_argument("--step", help="best (default), last, or a number of steps")
    parser.add_argument("--layer", help="taps to embed, side by side: names or patterns with commas between, e.g. block_3 "
                                        "or 'gcu_*'; default: the model's feature layer")
    parser.add_argument("--pooling", help="mean, max, std, joined by +, or none (one row per step); default: the model's")
    parser.add_argument("--chunk-seconds", help="length of the pieces, or 'whole' for whole utterances; default: the "
                                                "model's")
    parser.add_argument("--batch-size", type=int, help="pieces per batch (default 32)")
    parser.add_argument("--functionals", metavar="SET",
                        help=f"{', '.join(functionals.SETS)}: functionals of openSMILE (non-commercial licence) instead of "
                             "a checkpoint's embeddings")
    parser.add_argument("--jobs", type=int, help="processes for --functionals (default: the cores, at most 16)")
    parser.add_argument("--max-rejects", type=float, default=0.01,
                        help="largest share of utterances that may be left out, e.g. too short to embed (default 0.01)")


def run(args):
    if args.functionals is not None:
        return _run_functionals(args)
    if args.workdir is None:
        raise UsageError("give the --workdir of a pretraining run, or --functionals")
    if args.jobs is not None:
        raise UsageError("--jobs goes with --functionals; a checkpoint is applied on all devices")
    from ser_jax import sharding
    from ser_jax.checkpoint import Trained
    from ser_jax.data.prepared import PreparedCorpus

    sharding.use_compilation_cache()
    export(Trained(args.workdir, args.step or "best"), PreparedCorpus(args.corpus), args.out, layer=args.layer,
           pooling=args.pooling, seconds=_seconds(args.chunk_seconds), max_rejects=args.max_rejects,
           batch_size=32 if args.batch_size is None else args.batch_size)
    return DONE


def _run_functionals(args):
    from ser_jax.data.prepared import PreparedCorpus

    for name in OF_CHECKPOINTS:
        if getattr(args, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is of checkpoints: leave it out, or --functionals")
    functionals.export(args.functionals, PreparedCorpus(args.corpus), args.out, jobs=args.jobs,
                       max_rejects=args.max_rejects)
    return DONE


def _seconds(text):
    if text is None or text == "whole":
        return text
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < math.inf:
        raise UsageError(f"--chunk-seconds {text}: give a length in seconds, or 'whole'")
    return seconds


def export(trained, corpus, out, *, layer=None, pooling=None, seconds=None, batch_size=32, max_rejects=0.01,
           part_utterances=PART_UTTERANCES):
    """Writes a features file; with several JAX processes each computes its share of the parts, the first one joins them.

    Args:
      trained: checkpoint.Trained.
      corpus: PreparedCorpus.
      out: path ending in .parquet, .npz or .csv.
      layer, pooling, seconds, batch_size: see `Embedder`.
      max_rejects: largest share of utterances that may be too short; they are listed in `<out>.rejects.csv`.
      part_utterances: utterances per part.

    Raises:
      UserError: too many rejects, an empty corpus, or a full disk (finished parts are kept).
    """
    import jax

    from ser_jax.data import batches
    from ser_jax.export.embed import Embedder
    from ser_jax.export.features import write_features

    out = check_out(out)
    embedder = Embedder(trained, layer, pooling, seconds, batch_size)
    index, task = corpus.index, trained.network.task
    pieces, short = batches.pieces_of(index["num_samples"], task, embedder.seconds)
    refused = [(row, f"{index['num_samples'].iloc[row]} samples, shorter than {task.min_samples}") for row in short]
    processes = jax.process_index(), jax.process_count()
    check_rejects(out, index, refused, "are too short to embed", max_rejects, write=processes[0] == 0)
    metadata = _metadata(trained, corpus, embedder)
    identity = {name: metadata[name] for name in ("checkpoint", "corpus", "columns", "pooling", "chunk_seconds")}
    identity |= {name: metadata["experiment"][name] for name in ("model", "task")}  # e.g. task.min_samples moves pieces
    with joined(out, [identity, part_utterances], in_parts(pieces, lambda piece: piece.row, part_utterances),
                lambda items, progress: _part(trained, corpus, embedder, items, metadata, progress), metadata,
                f"export {corpus.name}", "pieces", processes, _wait_for_others) as features:
        if features:
            write_features(features, out)
            print(f"{out}: {len(features.table)} rows of {embedder.layer}, {embedder.pooling} "
                  f"({features.embedding.shape[1]} values), {len(index) - len(short)} utterances"
                  + (f", {len(short)} too short (listed in {out}.rejects.csv)" if short else ""))


def _wait_for_others():
    import jax

    if jax.process_count() > 1:
        from jax.experimental import multihost_utils
        multihost_utils.sync_global_devices("export parts")


def _metadata(trained, corpus, embedder):
    from ser_jax import config, results
    return {
        "kind": config.kind_of(trained.experiment.model, "model"),
        "linguistic": False,
        "checkpoint": {"hash": trained.hash, "step": trained.step, "workdir": trained.workdir.name},
        "experiment": config.to_dict(trained.experiment),
        "corpus": {"name": corpus.name, "fingerprint": corpus.fingerprint, "synthetic": corpus.info["synthetic"]},
        "layer": embedder.layer,
        "columns": embedder.columns,
        "pooling": embedder.pooling,
        "chunk_seconds": embedder.seconds,
        "pretrained_synthetic": trained.synthetic,
        "versions": results.versions(),
    }


def _part(trained, corpus, embedder, pieces, metadata, progress):
    """Features of the pieces of one part, in the order of the corpus."""
    import numpy as np

    from ser_jax.corpora.schema import SAMPLE_RATE
    from ser_jax.export.features import Features

    found = {}
    for piece, value in embedder.run(corpus.speech, pieces):
        found[piece] = value
        progress.update()
    pieces = sorted(found, key=lambda piece: (piece.row, piece.number))
    values = [np.atleast_2d(found[piece]) for piece in pieces]
    steps = [len(value) for value in values]
    table = corpus.index[INDEX_COLUMNS].iloc[np.repeat([piece.row for piece in pieces], steps)].reset_index(drop=True)
    table["chunk"] = np.repeat([piece.number for piece in pieces], steps)
    table["start"] = np.repeat([piece.start / SAMPLE_RATE for piece in pieces], steps)
    table["end"] = np.repeat([piece.end / SAMPLE_RATE for piece in pieces], steps)
    table["seen_in_pretraining"] = table["audio_sha256"].isin(trained.pretrained_on)
    if embedder.pooling == "none":
        table["frame"] = np.concatenate([np.arange(count) for count in steps])
    return Features(table, np.concatenate(values), metadata)
