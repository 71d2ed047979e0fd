"""Export features of a prepared corpus: embeddings from a frozen checkpoint, one row per piece of an utterance.

With --functionals the functionals of openSMILE take the same way instead, one row per utterance. openSMILE (extra
[opensmile]) is not free software: its licence allows non-commercial use only. With --frames it is the frames of a front
end, as they are, of the start of each utterance. --fuse puts features files of one corpus side by side.

An interrupted export continues where it was when the same command is run again.
"""

import math
from pathlib import Path

from ser_jax.errors import DONE, UsageError
from ser_jax.export import frames, functionals, parts
from ser_jax.export.parts import PART_UTTERANCES

EXAMPLE = "ser-jax export --workdir runs/gender --corpus prepared/ravdess --out features/ravdess.parquet"
SOURCES = ("workdir", "functionals", "frames", "fuse")  # options that say what to export; one of them
GOES_WITH = {  # every other option -> the sources that take it
    "corpus": ("workdir", "functionals", "frames"),
    "step": ("workdir",),
    "layer": ("workdir",),
    "pooling": ("workdir",),
    "chunk_seconds": ("workdir", "frames"),
    "batch_size": ("workdir", "frames"),
    "jobs": ("functionals",),
    "max_rejects": SOURCES,
}
MAX_REJECTS, BATCH_SIZE = 0.01, 32


def add_arguments(parser):
    parser.add_argument("--workdir", type=Path, help="folder of a pretraining run (or --functionals, --frames)")
    parser.add_argument("--corpus", type=Path, help="prepared corpus")
    parser.add_argument("--out", required=True, type=Path,
                        help="features file: .parquet, .npz or .csv, or auDeep's .audeep.csv, .arff or .nc (extra "
                             "[audeep])")
    parser.add_argument("--step", help="best (default), last, or a number of steps")
    parser.add_argument("--layer", help="taps to embed, side by side: names or patterns with commas between, e.g. block_3 "
                                        "or 'gcu_*'; default: the model's feature layer")
    parser.add_argument("--pooling", help="mean, max, std, joined by +, or none (one row per step); default: the model's")
    parser.add_argument("--chunk-seconds", help="length of the pieces, or 'whole' for whole utterances; default: the "
                                                "model's. With --frames, how much of the start (default "
                                                f"{frames.SECONDS})")
    parser.add_argument("--batch-size", type=int, help=f"pieces per batch (default {BATCH_SIZE})")
    parser.add_argument("--functionals", metavar="SET",
                        help=f"{', '.join(functionals.SETS)}: functionals of openSMILE (non-commercial licence) instead of "
                             "a checkpoint's embeddings")
    parser.add_argument("--frames", metavar="NAME",
                        help=f"{', '.join(frames.FRAMES)}: frames of a front end instead of a checkpoint's embeddings, "
                             "for heads that are nets on frames")
    parser.add_argument("--fuse", metavar="FEATURES", type=Path, nargs="+",
                        help="features files to put side by side, by the ids of utterances; one alone is converted to "
                             "the format of --out")
    parser.add_argument("--jobs", type=int, help="processes for --functionals (default: the cores, at most 16)")
    parser.add_argument("--max-rejects", type=float,
                        help="largest share of utterances that may be left out, e.g. too short to embed (default "
                             f"{MAX_REJECTS}; with --fuse 0)")


def run(args):
    source = _source(args)
    if source == "fuse":
        from ser_jax.export import fuse

        fuse.export(args.fuse, args.out, args.max_rejects)
        return DONE
    if args.corpus is None:
        raise UsageError("give the prepared --corpus whose features you want")
    from ser_jax.data.prepared import PreparedCorpus

    corpus = PreparedCorpus(args.corpus)
    max_rejects = MAX_REJECTS if args.max_rejects is None else args.max_rejects
    if source == "functionals":
        functionals.export(args.functionals, corpus, args.out, jobs=args.jobs, max_rejects=max_rejects)
        return DONE
    from ser_jax import sharding

    sharding.use_compilation_cache()
    options = {"seconds": _seconds(args.chunk_seconds), "max_rejects": max_rejects,
               "batch_size": BATCH_SIZE if args.batch_size is None else args.batch_size}
    if source == "frames":
        frames.export(args.frames, corpus, args.out, **options)
    else:
        from ser_jax.checkpoint import Trained

        export(Trained(args.workdir, args.step or "best"), corpus, args.out, layer=args.layer, pooling=args.pooling,
               **options)
    return DONE


def _source(args):
    """Which of SOURCES it is, and nothing is given that does not go with it."""
    given = [name for name in SOURCES if getattr(args, name) is not None]
    if not given:
        raise UsageError(f"give the --workdir of a pretraining run, or {_options(SOURCES[1:])}")
    if len(given) > 1:
        raise UsageError(f"{_options(given, ' and ')}: give one of them")
    for name, sources in GOES_WITH.items():
        if getattr(args, name) is not None and given[0] not in sources:
            raise UsageError(f"{_options([name])} goes with {_options(sources)}, not with {_options(given)}")
    return given[0]


def _options(names, between=" or "):
    return between.join("--" + name.replace("_", "-") for name in names)


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
    from ser_jax.data import batches
    from ser_jax.export.devices import processes, wait_for_others
    from ser_jax.export.embed import Embedder

    out = parts.check_out(out)
    embedder = Embedder(trained, layer, pooling, seconds, batch_size)
    lengths, task = corpus.index["num_samples"], trained.network.task
    pieces, short = batches.pieces_of(lengths, task, embedder.seconds)
    metadata = _metadata(trained, corpus, embedder)
    identity = {name: metadata[name] for name in ("checkpoint", "corpus", "columns", "pooling", "chunk_seconds")}
    identity |= {name: metadata["experiment"][name] for name in ("model", "task")}  # e.g. task.min_samples moves pieces
    parts.write(parts.Work(
        metadata=metadata,
        identity=identity,
        pieces=pieces,
        values=lambda pieces: embedder.run(corpus.speech, pieces),
        what=f"rows of {embedder.layer}, {embedder.pooling}",
        doing=f"export {corpus.name}",
        unit="pieces",
        refused=[(row, f"{lengths.iloc[row]} samples, shorter than {task.min_samples}") for row in short],
        reason="too short to embed",
        steps=embedder.pooling == "none",
        seen=trained.pretrained_on,
    ), corpus, out, max_rejects, part_utterances, processes(), wait_for_others)


def _metadata(trained, corpus, embedder):
    from ser_jax import config, results
    return {
        "kind": config.kind_of(trained.experiment.model, "model"),
        "linguistic": False,
        "checkpoint": {"hash": trained.hash, "step": trained.step, "workdir": trained.workdir.name},
        "experiment": config.to_dict(trained.experiment),
        "corpus": parts.corpus_metadata(corpus),
        "layer": embedder.layer,
        "columns": embedder.columns,
        "pooling": embedder.pooling,
        "chunk_seconds": embedder.seconds,
        "pretrained_synthetic": trained.synthetic,
        "versions": results.versions(),
    }
