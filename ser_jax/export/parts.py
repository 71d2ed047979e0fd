"""The work of an export in parts of a fixed number of utterances, joined at the end.

Every finished part is committed by one rename under a key made of everything that determines it, so an interrupted
export continues, never computes a part twice, and can never pick up a part of other settings.
"""

import contextlib
import csv
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

from ser_jax.errors import UsageError, UserError
from ser_jax.files import atomic_path, canonical_hash
from ser_jax.progress import Progress

PART_UTTERANCES = 512
INDEX_COLUMNS = ["id", "corpus", "speaker_id", "gender", "session", "split", "text", "emotion", "valence", "arousal",
                 "dominance", "chunk_of", "language", "audio_sha256"]  # of a prepared corpus, copied as they are


@dataclasses.dataclass
class Work:
    """What an export computes, and by what.

    Attributes:
      metadata: of the features file.
      identity: JSON-able, everything that determines the values.
      pieces: list of `data.batches.Piece`, what is computed, in the order of the corpus.
      values: list of pieces -> iterator of (piece, float32[D]), or float32[steps, D] for a row per step, in any order.
      what: said of the file, e.g. "rows of gcu_15, mean".
      doing, unit: for `Progress`.
      refused: list of (row of the corpus, reason): utterances without a piece.
      reason: what is wrong with the refused, e.g. "too short".
      check: Features -> {row of them: reason}: what turns out to be of no use once it is computed.
      steps: one row per step.
      seen: hashes of the audio that the extractor was trained on.
    """

    metadata: dict
    identity: object
    pieces: list
    values: Callable
    what: str
    doing: str
    unit: str = "utterances"
    refused: list = dataclasses.field(default_factory=list)
    reason: str = "too short"
    check: Callable = lambda features: {}
    steps: bool = False
    seen: frozenset = frozenset()


def write(work, corpus, out, max_rejects=0.01, part_utterances=PART_UTTERANCES, processes=(0, 1), barrier=lambda: None):
    """Computes the parts that are missing and writes a features file; the parts are removed when it is there.

    Args:
      work: `Work`.
      corpus: PreparedCorpus.
      out: path of the features file; parts lie in `<out>.parts` meanwhile, what is left out in `<out>.rejects.csv`.
      max_rejects: largest share of the utterances that may be refused.
      part_utterances: utterances per part.
      processes: (index of this one, how many); they share the parts, the first one joins them.
      barrier: waits for the other processes.

    Raises:
      UserError: too many rejects, an empty corpus, or a full disk (finished parts are kept).
    """
    from ser_jax.export.features import write_features

    out, index, first = check_out(out), corpus.index, processes[0] == 0
    check_rejects(out, index, work.refused, f"are {work.reason}", max_rejects, write=first)
    folder = out.with_name(out.name + ".parts") / canonical_hash([work.identity, part_utterances])
    folder.mkdir(parents=True, exist_ok=True)
    paths = _compute(work, corpus, folder, part_utterances, processes)
    barrier()
    if not first:
        return
    features, refused = _join(paths, work.metadata), work.refused
    useless = work.check(features)
    if useless:
        reasons = {features.table["id"].iloc[row]: reason for row, reason in useless.items()}
        wrong = index["id"].isin(reasons)
        refused = [*refused, *((row, reasons[index["id"].iloc[row]]) for row in wrong.to_numpy().nonzero()[0])]
        check_rejects(out, index, refused, f"are {work.reason}", max_rejects)
        features = features.rows(~features.table["id"].isin(reasons))
    write_features(features, out)
    print(f"{out}: {len(features.table)} {work.what} ({features.embedding.shape[1]} values), "
          f"{len(index) - len(refused)} utterances"
          + (f", {len(refused)} {work.reason} (listed in {out}.rejects.csv)" if refused else ""))
    shutil.rmtree(folder)
    with contextlib.suppress(OSError):  # parts of an interrupted export with other settings stay
        folder.parent.rmdir()


def _compute(work, corpus, folder, part_utterances, processes):
    """Writes the parts of this process that are not there yet; paths of all parts, in order."""
    from ser_jax.export.features import write_features

    parts = {}
    for piece in work.pieces:
        parts.setdefault(piece.row // part_utterances, []).append(piece)
    paths = {number: folder / f"part-{number:05d}.parquet" for number in parts}
    index, count = processes
    mine = [number for number in parts if number % count == index]
    todo = [number for number in mine if not paths[number].exists()]
    total = sum(len(parts[number]) for number in mine)
    with Progress(total, work.doing, work.unit, total - sum(len(parts[number]) for number in todo)) as progress:
        for number in todo:
            write_features(_part(work, corpus, parts[number], progress), paths[number])
    return sorted(paths.values())


def _part(work, corpus, pieces, progress):
    """Features of the pieces of one part, in the order of the corpus."""
    import numpy as np

    from ser_jax.corpora.schema import SAMPLE_RATE
    from ser_jax.export.features import Features

    found = {}
    for piece, value in work.values(pieces):
        found[piece] = value
        progress.update()
    pieces = sorted(found, key=lambda piece: (piece.row, piece.number))
    values = [np.atleast_2d(found.pop(piece)) for piece in pieces]
    steps = [len(value) for value in values]
    table = corpus.index[INDEX_COLUMNS].iloc[np.repeat([piece.row for piece in pieces], steps)].reset_index(drop=True)
    table["chunk"] = np.repeat([piece.number for piece in pieces], steps)
    table["start"] = np.repeat([piece.start / SAMPLE_RATE for piece in pieces], steps)
    table["end"] = np.repeat([piece.end / SAMPLE_RATE for piece in pieces], steps)
    table["seen_in_pretraining"] = table["audio_sha256"].isin(work.seen)
    if work.steps:
        table["frame"] = np.concatenate([np.arange(count) for count in steps])
    return Features(table, np.concatenate(values), work.metadata)


def _join(paths, metadata):
    """The features of all parts, which are read one by one: beside the whole there is never more than one of them."""
    import numpy as np
    import pandas
    import pyarrow.parquet as pq

    from ser_jax.export.features import Features, read_features

    embedding, tables, first = None, [], 0
    for path in paths:
        part = read_features(path)
        if embedding is None:
            total = sum(pq.read_metadata(path).num_rows for path in paths)
            embedding = np.empty((total, part.embedding.shape[1]), np.float32)
        embedding[first:first + len(part.table)] = part.embedding
        first += len(part.table)
        tables.append(part.table)
    return Features(pandas.concat(tables, ignore_index=True), embedding, metadata)


def check_out(out, formats=None):
    """Path of the features file.

    Args:
      out: path.
      formats: the ends of names that will do; default: all.

    Raises:
      UsageError: of unknown format, or of one that will not do.
      UserError: the package for that format is not installed.
    """
    from ser_jax.export.features import AUDEEP, FORMATS, format_of

    out, formats = Path(out), formats or (*FORMATS, *AUDEEP)
    if format_of(out) not in formats:
        raise UsageError(f"--out {out}: end it in one of {', '.join(formats)}")
    if format_of(out) == ".nc":
        from ser_jax.export.audeep import netcdf4
        netcdf4()
    return out


def corpus_metadata(corpus):
    """What the metadata of a features file tell of the corpus."""
    return {"name": corpus.name, "fingerprint": corpus.fingerprint, "synthetic": corpus.info["synthetic"]}


def check_rejects(out, index, refused, what, max_rejects, write=True):
    """Lists what is left out in `<out>.rejects.csv`, or removes that of an earlier export where nothing is.

    Args:
      out: Path of the features file.
      index: of the prepared corpus.
      refused: list of (row of the index, reason).
      what: what is wrong with them, e.g. "are too short".
      max_rejects: largest share of the utterances that may be refused.
      write: False on a process that leaves the ledger to another.

    Raises:
      UserError: an empty corpus, too many rejects or nothing else.
    """
    if not len(index):
        raise UserError("the corpus has no utterance to embed")
    ledger = Path(f"{out}.rejects.csv")
    if write and not refused:
        ledger.unlink(missing_ok=True)
    elif write:
        with atomic_path(ledger) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "path", "reason"])
            writer.writerows([index["id"].iloc[row], index["source"].iloc[row], reason] for row, reason in refused)
    if len(refused) == len(index):
        raise UserError(f"all {len(index)} utterances {what}; see {ledger}")
    if len(refused) > max_rejects * len(index):
        raise UserError(f"{len(refused)} of {len(index)} utterances {what}, more than --max-rejects {max_rejects:g}; "
                        f"see {ledger}")
