"""Frame labels of utterances: a Parquet file beside a prepared corpus, written by `ser-jax align`, read by frame tasks.

A row per utterance, sorted by id: `id`, `labels` (list<int16>, one per frame, −1 = none), `transcript` (list<string>, phones in
time order, silence included; empty for voice activity). Frame f covers the samples [hop · f, hop · f + window).
"""

import json

import numpy as np
import pyarrow
from pyarrow import parquet

from ser_jax.errors import UserError
from ser_jax.files import atomic_path

KINDS = ("phone states", "voice activity")
_KEY = b"ser_jax"
_SCHEMA = pyarrow.schema([("id", pyarrow.string()), ("labels", pyarrow.list_(pyarrow.int16())),
                          ("transcript", pyarrow.list_(pyarrow.string()))])


def write_frame_labels(path, rows, meta):
    """Writes a file of frame labels, whole or not at all.

    Args:
      rows: (id, int[F] labels, transcript) of each utterance, in any order.
      meta: JSON-able dict: `kind` (one of KINDS), `classes` (names of the labels 0, 1, …), `window` and `hop` in samples,
        `source` (how they were made), `corpora` (list of name, fingerprint, synthetic); of phone states also `phones` (state
        s belongs to phone s // 3) and `phone_set`.
    """
    ids, labels, transcripts = zip(*sorted(rows, key=lambda row: row[0]), strict=True)
    labels = [np.asarray(values, np.int16) for values in labels]
    table = pyarrow.table([list(ids), labels, [list(words) for words in transcripts]], schema=_SCHEMA)
    with atomic_path(path) as temporary:
        parquet.write_table(table.replace_schema_metadata({_KEY: json.dumps(meta)}), temporary, compression="zstd")


class FrameLabels:
    """The frame labels of one or several files of equal kind and classes.

    Attributes:
      meta: that of the first file.
      kind, classes, phones, phone_set: of the metadata; phones () and phone_set "" where there are none.
      ids: set of the utterances.

    Raises:
      UserError: no such file, not one of frame labels, files that do not fit each other, an utterance in two of them.
    """

    def __init__(self, paths):
        self.meta, self._labels, self._transcripts = None, {}, {}
        for path in paths:
            meta, ids, labels, transcripts = _read(path)
            self.meta = self.meta or meta
            for name in ("kind", "classes", "window", "hop"):
                if meta[name] != self.meta[name]:
                    raise UserError(f"{path}: other {name} than in {paths[0]}; make them by the same `ser-jax align`")
            for number, name in enumerate(ids):
                if name in self._labels:
                    raise UserError(f"{path}: the utterance {name} has frame labels in another file too; name one of them")
                self._labels[name], self._transcripts[name] = labels[number], transcripts[number]
        self.kind, self.classes = self.meta["kind"], tuple(self.meta["classes"])
        self.phones, self.phone_set = tuple(self.meta.get("phones", ())), self.meta.get("phone_set", "")
        self.ids = self._labels.keys()

    def labels(self, name):
        """int16[F] of the utterance with this id."""
        return self._labels[name]

    def transcript(self, name):
        """Phones of the utterance with this id, in their order."""
        return self._transcripts[name]


def _read(path):
    try:
        table = parquet.read_table(path)
        meta = json.loads(table.schema.metadata[_KEY])
        if meta["kind"] not in KINDS:
            raise KeyError(meta["kind"])
        ids, column = table["id"].to_pylist(), table["labels"].combine_chunks()
        transcripts = [tuple(words) for words in table["transcript"].to_pylist()]
    except FileNotFoundError:
        raise UserError(f"no file of frame labels {path}; make one with `ser-jax align`") from None
    except (OSError, ValueError, KeyError, TypeError, pyarrow.ArrowException):
        raise UserError(f"{path}: not a file of frame labels (made by `ser-jax align`)") from None
    values, ends = column.values.to_numpy(zero_copy_only=False), column.offsets.to_numpy()
    return meta, ids, [values[a:b] for a, b in zip(ends[:-1], ends[1:], strict=True)], transcripts
