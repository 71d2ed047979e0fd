"""The work of an export in parts of a fixed number of utterances, joined at the end.

Every finished part is committed by one rename under a key made of everything that determines it, so an interrupted
export continues, never computes a part twice, and can never pick up a part of other settings.
"""

import contextlib
import csv
import shutil
from pathlib import Path

from ser_jax.errors import UsageError, UserError
from ser_jax.files import atomic_path, canonical_hash
from ser_jax.progress import Progress

PART_UTTERANCES = 512
INDEX_COLUMNS = ["id", "corpus", "speaker_id", "gender", "session", "split", "text", "emotion", "valence", "arousal",
                 "dominance", "chunk_of", "language", "audio_sha256"]  # of a prepared corpus, copied as they are


@contextlib.contextmanager
def joined(out, identity, work, make, metadata, what, unit, processes=(0, 1), barrier=lambda: None):
    """Computes the parts that are missing and yields all of them as one `Features`; None on all processes but the first.

    The parts are removed when the block ends without an error; write the features file inside it.

    Args:
      out: Path of the features file; the parts lie in `<out>.parts` meanwhile.
      identity: JSON-able, everything that determines the values.
      work: {number of the part: list of its items}.
      make: (items, Progress) -> Features of a part.
      metadata: of the whole.
      what, unit: for `Progress`.
      processes: (index of this one, how many); they share the parts.
      barrier: waits for the other processes.
    """
    folder = out.with_name(out.name + ".parts") / canonical_hash(identity)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {number: folder / f"part-{number:05d}.parquet" for number in work}
    index, count = processes
    mine = [number for number in work if number % count == index]
    todo = [number for number in mine if not paths[number].exists()]
    total = sum(len(work[number]) for number in mine)
    with Progress(total, what, unit, total - sum(len(work[number]) for number in todo)) as progress:
        from ser_jax.export.features import write_features

        for number in todo:
            write_features(make(work[number], progress), paths[number])
    barrier()
    if index:
        yield None
        return
    yield _join(sorted(paths.values()), metadata)
    shutil.rmtree(folder)
    with contextlib.suppress(OSError):  # parts of an interrupted export with other settings stay
        folder.parent.rmdir()


def _join(paths, metadata):
    import numpy as np
    import pandas

    from ser_jax.export.features import Features, read_features

    parts = [read_features(path) for path in paths]
    table = pandas.concat([part.table for part in parts], ignore_index=True)
    return Features(table, np.concatenate([part.embedding for part in parts]), metadata)


def check_out(out):
    """Path of the features file.

    Raises:
      UsageError: of unknown format.
    """
    from ser_jax.export.features import FORMATS

    out = Path(out)
    if out.suffix not in FORMATS:
        raise UsageError(f"--out {out}: end it in one of {', '.join(FORMATS)}")
    return out


def check_rejects(out, index, refused, what, max_rejects, write=True):
    """Lists what is left out in `<out>.rejects.csv`, or removes that of an earlier export where nothing is.

    Args:
      out: Path of the features file.
      index: of the prepared corpus.
      refused: list of (row of the index, reason).
      what: what is wrong with them, e.g. "are too short to embed".
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


def in_parts(items, row, part_utterances):
    """{number of the part: list of items}; `row` gives an item's utterance."""
    parts = {}
    for item in items:
        parts.setdefault(row(item) // part_utterances, []).append(item)
    return parts
