"""Export embeddings of a prepared corpus from a frozen checkpoint: one row per piece of an utterance.

The work is cut into parts of a fixed number of utterances. Every finished part is committed by one rename under a key
made of everything that determines it (checkpoint values, corpus fingerprint, layer, pooling, pieces), so an interrupted
export continues, never computes a part twice, and can never pick up a part of other settings.
"""

import contextlib
import math
import shutil
from pathlib import Path

from ser_jax.errors import DONE, UsageError, UserError

EXAMPLE = "ser-jax export --workdir runs/gender --corpus prepared/ravdess --out features/ravdess.parquet"
PART_UTTERANCES = 512


def add_arguments(parser):
    parser.add_argument("--workdir", required=True, type=Path, help="folder of a pretraining run")
    parser.add_argument("--corpus", required=True, type=Path, help="prepared corpus")
    parser.add_argument("--out", required=True, type=Path, help="features file: .parquet, .npz or .csv")
    parser.add_argument("--step", default="best", help="best (default), last, or a number of steps")
    parser.add_argument("--layer", default="", help="tap to embed, e.g. block_3; default: the feature layer")
    parser.add_argument("--pooling", default="mean+max", help="mean, max, std, joined by +, or none (one row per step)")
    parser.add_argument("--chunk-seconds", default="5", help="length of the pieces, or 'whole' for whole utterances")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-rejects", type=float, default=0.01,
                        help="largest share of utterances that may be too short to embed")


def run(args):
    from ser_jax import sharding
    from ser_jax.checkpoint import Trained
    from ser_jax.data.prepared import PreparedCorpus

    sharding.use_compilation_cache()
    export(Trained(args.workdir, args.step), PreparedCorpus(args.corpus), args.out, layer=args.layer,
           pooling=args.pooling, seconds=_seconds(args.chunk_seconds), batch_size=args.batch_size,
           max_rejects=args.max_rejects)
    return DONE


def _seconds(text):
    if text == "whole":
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < math.inf:
        raise UsageError(f"--chunk-seconds {text}: give a length in seconds, or 'whole'")
    return seconds


def export(trained, corpus, out, *, layer="", pooling="mean+max", seconds=5.0, batch_size=32, max_rejects=0.01,
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
    from ser_jax.export.features import FORMATS, write_features
    from ser_jax.files import canonical_hash
    from ser_jax.progress import Progress

    out = Path(out)
    if out.suffix not in FORMATS:
        raise UsageError(f"--out {out}: end it in one of {', '.join(FORMATS)}")
    embedder = Embedder(trained, layer, pooling, seconds, batch_size)
    index = corpus.index
    pieces, short = batches.pieces_of(index["num_samples"], trained.network.task, seconds)
    _check_rejects(index, short, max_rejects, trained.network.task, out, lead=jax.process_index() == 0)
    metadata = _metadata(trained, corpus, embedder)
    identity = {name: metadata[name] for name in ("checkpoint", "corpus", "layer", "pooling", "chunk_seconds")}
    identity |= {name: metadata["experiment"][name] for name in ("model", "task")}  # e.g. task.min_samples moves pieces
    folder = out.with_name(out.name + ".parts") / canonical_hash([identity, part_utterances])
    folder.mkdir(parents=True, exist_ok=True)
    parts = {}
    for piece in pieces:
        parts.setdefault(piece.row // part_utterances, []).append(piece)
    paths = {number: folder / f"part-{number:05d}.parquet" for number in parts}

    mine = [n for n in parts if n % jax.process_count() == jax.process_index()]
    todo = [n for n in mine if not paths[n].exists()]
    done = sum(len(parts[n]) for n in mine) - sum(len(parts[n]) for n in todo)
    with Progress(sum(len(parts[n]) for n in mine), f"export {corpus.name}", "pieces", done) as progress:
        for number in todo:
            write_features(_part(trained, corpus, embedder, parts[number], metadata, progress), paths[number])
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils
        multihost_utils.sync_global_devices("export parts")
    if jax.process_index() == 0:
        count = _join(list(paths.values()), metadata, out)
        print(f"{out}: {count} rows of {embedder.layer}, {pooling}, {len(index) - len(short)} utterances"
              + (f", {len(short)} too short (listed in {out}.rejects.csv)" if short else ""))
        shutil.rmtree(folder)
        with contextlib.suppress(OSError):  # parts of an interrupted export with other settings stay
            folder.parent.rmdir()


def _check_rejects(index, short, max_rejects, task, out, lead):
    import csv

    from ser_jax.files import atomic_path
    if not len(index):
        raise UserError("the corpus has no utterance to embed")
    ledger = Path(f"{out}.rejects.csv")
    if lead and not short:
        ledger.unlink(missing_ok=True)  # of an earlier export: not of this one
    elif lead:
        with atomic_path(ledger) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "path", "reason"])
            for row in short:
                length = index["num_samples"].iloc[row]
                writer.writerow([index["id"].iloc[row], index["source"].iloc[row],
                                 f"{length} samples, shorter than {task.min_samples}"])
    if len(short) == len(index):
        raise UserError(f"all {len(index)} utterances are too short to embed; see {ledger}")
    if len(short) > max_rejects * len(index):
        raise UserError(f"{len(short)} of {len(index)} utterances are too short to embed, more than --max-rejects "
                        f"{max_rejects:g}; see {ledger}")


def _metadata(trained, corpus, embedder):
    from ser_jax import config, results
    return {
        "kind": config.kind_of(trained.experiment.model, "model"),
        "linguistic": False,
        "checkpoint": {"hash": trained.hash, "step": trained.step, "workdir": trained.workdir.name},
        "experiment": config.to_dict(trained.experiment),
        "corpus": {"name": corpus.name, "fingerprint": corpus.fingerprint, "synthetic": corpus.info["synthetic"]},
        "layer": embedder.layer,
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
    columns = ["id", "corpus", "speaker_id", "gender", "session", "split", "text", "emotion", "valence", "arousal",
               "dominance", "chunk_of", "language", "audio_sha256"]
    table = corpus.index[columns].iloc[np.repeat([piece.row for piece in pieces], steps)].reset_index(drop=True)
    table["chunk"] = np.repeat([piece.number for piece in pieces], steps)
    table["start"] = np.repeat([piece.start / SAMPLE_RATE for piece in pieces], steps)
    table["end"] = np.repeat([piece.end / SAMPLE_RATE for piece in pieces], steps)
    table["seen_in_pretraining"] = table["audio_sha256"].isin(trained.pretrained_on)
    if embedder.pooling == "none":
        table["frame"] = np.concatenate([np.arange(count) for count in steps])
    return Features(table, np.concatenate(values), metadata)


def _join(paths, metadata, out):
    """Joins the parts, in order, into one features file."""
    import numpy as np
    import pandas

    from ser_jax.export.features import Features, read_features, write_features

    parts = [read_features(path) for path in sorted(paths)]
    table = pandas.concat([part.table for part in parts], ignore_index=True)
    write_features(Features(table, np.concatenate([part.embedding for part in parts]), metadata), out)
    return len(table)
