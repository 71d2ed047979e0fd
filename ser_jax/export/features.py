"""The features file: one row per utterance (or chunk of one), an embedding, and where they come from.

Formats, by the end of the name: `.parquet` (of choice: column `embedding` is FixedSizeList<float32>, metadata is JSON
under the schema key `ser_jax`), `.npz` (one array per column, no pickle) and `.csv` (columns e0, e1, …; metadata in
`<file>.json` beside it). Float32 values survive each of them bit for bit. A file made elsewhere needs only `id` and the
embedding. With a column `frame` (pooling "none") a piece of an utterance has one row per frame. An embedding may be
several layers side by side: metadata `columns` = [{"layer", "start", "stop"}, …] names the values of each, in order.
auDeep's formats, `.audeep.csv` (or a .csv with its header), `.arff` and `.nc`, hold less: see `export.audeep`.

A layer may hold the frames of an utterance: an entry of `columns` with "frames": [T, D] stands for 1 + T·D values,
first the number n of frames that the utterance has (at most T), then T rows of D values, zero beyond the first n.
"""

import dataclasses
import errno
import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np

from ser_jax.errors import UserError, suggestion
from ser_jax.export import audeep, formats
from ser_jax.export.layers import EXTRACTOR_KEYS as EXTRACTOR_KEYS
from ser_jax.export.layers import check_layers, side_by_side
from ser_jax.export.layers import extractor_hash as extractor_hash
from ser_jax.export.layers import layer_columns as layer_columns
from ser_jax.export.table import COLUMNS, TEXT_COLUMNS, complete, key_of

FORMATS = (".parquet", ".npz", ".csv")  # that hold all that features are
AUDEEP = (".audeep.csv", ".arff", ".nc")
OF_FRAMES = (".parquet", ".npz")  # formats that hold layers of frames: tens of thousands of values a row


@dataclasses.dataclass
class Features:
    """Features of a corpus.

    Attributes:
      table: pandas table, one row per embedding, with COLUMNS first; other columns of the file follow.
      embedding: float32[N, D].
      metadata: JSON-able; `export.run._metadata` says what of. `features_hash` is kept current by `read_features` and `write_features`.
    """

    table: "pandas.DataFrame"  # noqa: F821  (pandas is imported where it is used)
    embedding: np.ndarray
    metadata: dict

    def __post_init__(self):
        self.table = complete(self.table)
        self.embedding = np.ascontiguousarray(self.embedding, dtype=np.float32)
        if self.embedding.ndim != 2 or len(self.embedding) != len(self.table):
            raise ValueError(f"embedding of shape {self.embedding.shape} for {len(self.table)} rows; expected [rows, D]")
        if self.metadata.get("columns") is not None:
            check_layers(self.metadata["columns"], self.embedding.shape[1])

    def rows(self, keep):
        """The features of the rows where bool[N] `keep` holds."""
        keep = np.asarray(keep)
        return Features(self.table[keep].reset_index(drop=True), self.embedding[keep], self.metadata)

    @property
    def layers(self):
        """Names of the layers whose values make the embedding, in its order; [] where the file does not tell."""
        return [column["layer"] for column in self.metadata.get("columns") or []]

    def select_layers(self, names):
        """The features of some layers only, side by side in the order of `names`.

        Metadata `columns` and `layer` tell of these layers; `features_hash` stays that of the file, as in `rows`. All
        layers in their order are the features as they are.

        Raises:
          UserError: an unknown layer, one named twice, or none.
        """
        if not self.layers:
            raise UserError("the features do not tell which values belong to which layer; export them again")
        columns = {column["layer"]: column for column in self.metadata["columns"]}
        for name in names:
            if name not in columns:
                raise UserError(f"no layer {name!r} in the features{suggestion(name, columns)}; "
                                f"layers: {', '.join(columns)}")
        if not names or len(set(names)) < len(names):
            raise UserError(f"layers {', '.join(names) or 'none'}: name at least one, and each once")
        if list(names) == self.layers:
            return self
        chosen = [columns[name] for name in names]
        blocks = [self.embedding[:, column["start"]:column["stop"]] for column in chosen]
        metadata = {**self.metadata, "layer": ",".join(names), "columns": side_by_side(chosen)}
        return Features(self.table, np.concatenate(blocks, axis=1), metadata)

    @property
    def frame_layers(self):
        """Names of the layers that hold frames."""
        return [column["layer"] for column in self.metadata.get("columns") or [] if column.get("frames")]

    def frames(self, layer):
        """The frames of a layer of `frame_layers`.

        Returns:
          (float32[N, T, D], a view of the embedding, zero beyond an utterance's frames; int64[N], how many it has).

        Raises:
          UserError: the layer is unknown or does not hold frames; a number of frames that cannot be.
        """
        column = {column["layer"]: column for column in self.metadata.get("columns") or []}.get(layer)
        if not (column or {}).get("frames"):
            raise UserError(f"no layer {layer!r} of frames in the features; layers of frames: "
                            f"{', '.join(self.frame_layers) or 'none'}")
        steps, size = column["frames"]
        counts = self.embedding[:, column["start"]]
        wrong = ~((counts >= 0) & (counts <= steps) & (counts == np.floor(counts)))
        if wrong.any():
            row = int(wrong.argmax())
            raise UserError(f"layer {layer} of {self.table['id'].iloc[row]!r} has {counts[row]:g} frames of {steps}: "
                            "not written by `ser-jax export`?")
        values = self.embedding[:, column["start"] + 1:column["stop"]].reshape(len(counts), steps, size)
        return values, counts.astype(np.int64)

    @property
    def units(self):
        """The voting unit of each row: the longer recording it is a piece of, or its own id."""
        return self.table["chunk_of"].where(self.table["chunk_of"] != "", self.table["id"])


def read_features(path):
    """Reads a features file.

    Missing columns become empty (text), NaN (numbers) or False. A file without our metadata is accepted with a line on
    stderr.

    Raises:
      UserError: missing, of unknown format, damaged, without ids or embedding, or with repeated (id, chunk), or
        (id, chunk, frame) where there are frames.
    """
    path = Path(path)
    reader, _ = _doors(path)
    if not path.exists():
        raise UserError(f"{path}: no such features file; make one with `ser-jax export`")
    try:
        table, embedding, metadata = reader(path)
    except (OSError, ValueError, KeyError, EOFError) as error:  # those of pyarrow are among them
        raise UserError(f"{path}: cannot be read as {path.suffix[1:]} features ({_one_line(error)})") from None
    if "id" not in table:
        raise UserError(f"{path}: no column 'id'; columns: {', '.join(map(str, table.columns))}")
    if "kind" not in (metadata or {}):
        print(f"{path}: no ser_jax metadata: the extractor, its pretraining data and the corpus are taken as unknown",
              file=sys.stderr)
        metadata = {"kind": "unknown", **(metadata or {})}
    try:
        features = Features(table, embedding, metadata)
    except (ValueError, TypeError, KeyError) as error:  # e.g. a word in a column of numbers
        raise UserError(f"{path}: a column does not hold what it should ({_one_line(error)})") from None
    key = key_of(features.table)
    twice = features.table.duplicated(key)
    if twice.any():
        row = features.table[twice].iloc[0]
        first = " ".join([repr(row["id"]), *(f"{name} {row[name]}" for name in key[1:])])
        raise UserError(f"{path}: {int(twice.sum())} rows repeat an {' and '.join(key)}, first {first}")
    now = content_hash(features)
    if metadata.get("features_hash") not in (None, now):
        print(f"{path}: the content is not what was exported (changed by hand?); its features_hash is now {now}",
              file=sys.stderr)
    features.metadata = {**metadata, "features_hash": now}
    return features


def write_features(features, path):
    """Writes features atomically and returns their `features_hash`; the format follows from the end of `path`.

    Raises:
      UserError: unknown format, one that does not hold frames, or no space left (nothing is left half-written).
    """
    path = Path(path)
    _, writer = _doors(path)
    check_writable(features, path)
    metadata = {**features.metadata, "features_hash": content_hash(features)}
    json.dumps(metadata, allow_nan=False)  # fail before anything is written
    try:
        writer(features, metadata, path)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise
        reason = os.strerror(error.errno).lower()
        raise UserError(f"{path}: {reason}; free some space and run the same command again") from None
    features.metadata = metadata
    return metadata["features_hash"]


def check_writable(features, path):
    """Refuses a format that does not hold what the features are.

    Raises:
      UserError: layers of frames in other than OF_FRAMES, rows per step in one of AUDEEP.
    """
    if "frame" in features.table and format_of(path) in AUDEEP:
        raise UserError(f"{path}: one row per step (pooling none), where {format_of(path)} has one per piece; the name "
                        f"must end in {', '.join(FORMATS)}")
    if features.frame_layers and path.suffix not in OF_FRAMES:
        raise UserError(f"{path}: layer {features.frame_layers[0]} holds frames, too many values for {path.suffix}; the "
                        f"name must end in {' or '.join(OF_FRAMES)}")


def content_hash(features):
    """Hash of rows and embeddings: the same for each file format and order of rows; metadata is not in it."""
    table = features.table
    key = key_of(table)
    order = np.lexsort([table[name].to_numpy(dtype="U" if name == "id" else None) for name in reversed(key)])
    digest = hashlib.sha256()
    for column in (*COLUMNS, *key[2:]):
        values = table[column].to_numpy()[order]
        if column in TEXT_COLUMNS:
            digest.update(json.dumps([column, values.tolist()]).encode())
        else:
            number = values.astype(np.float64)
            digest.update(column.encode() + np.where(np.isnan(number), np.nan, number).tobytes())
    digest.update(repr(features.embedding.shape).encode())
    size = formats.slice_rows(features.embedding.shape[1])
    for first in range(0, len(order), size):
        digest.update(features.embedding[order[first:first + size]].reshape(-1).view(np.uint8))
    return digest.hexdigest()[:16]


def format_of(path):
    """The end of a name that tells the format, of FORMATS or AUDEEP if it is one."""
    return ".audeep.csv" if path.name.endswith(".audeep.csv") else path.suffix


def _doors(path):
    """(reader, writer) of the format of a file."""
    doors = {".parquet": (formats.read_parquet, formats.write_parquet), ".npz": (formats.read_npz, formats.write_npz),
             ".csv": (_read_csv, formats.write_csv), ".audeep.csv": (audeep.read_csv, audeep.write_csv),
             ".arff": (audeep.read_arff, audeep.write_arff), ".nc": (audeep.read_netcdf, audeep.write_netcdf)}
    if format_of(path) not in doors:
        raise UserError(f"{path}: unknown features format {path.suffix!r}; the name must end in {', '.join(doors)}")
    return doors[format_of(path)]


def _read_csv(path):
    return audeep.read_csv(path) if audeep.is_csv(path) else formats.read_csv(path)


def _one_line(error):
    return " ".join(str(error).split())[:200] or type(error).__name__
