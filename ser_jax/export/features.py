"""The features file: one row per utterance (or chunk of one), an embedding, and where they come from.

Formats, by the end of the name: `.parquet` (of choice: column `embedding` is FixedSizeList<float32>, metadata is JSON
under the schema key `ser_jax`), `.npz` (one array per column, no pickle) and `.csv` (columns e0, e1, …; metadata in
`<file>.json` beside it). Float32 values survive each of them bit for bit. A file made elsewhere needs only `id` and the
embedding. With a column `frame` (pooling "none") a piece of an utterance has one row per frame. An embedding may be
several layers side by side: metadata `columns` = [{"layer", "start", "stop"}, …] names the values of each, in order.
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
from ser_jax.files import atomic_path, canonical_hash, write_json

TEXT_COLUMNS = ("id", "corpus", "speaker_id", "gender", "session", "split", "text", "emotion", "chunk_of", "language",
                "audio_sha256")
NUMBER_COLUMNS = ("start", "end", "valence", "arousal", "dominance")
COLUMNS = ("id", "chunk", "start", "end", "corpus", "speaker_id", "gender", "session", "split", "text", "emotion",
           "valence", "arousal", "dominance", "chunk_of", "language", "audio_sha256", "seen_in_pretraining")
FORMATS = (".parquet", ".npz", ".csv")
METADATA_KEY = b"ser_jax"
# What must be equal for a head to accept features: the extractor, not the corpus or the versions.
EXTRACTOR_KEYS = ("kind", "linguistic", "layer", "pooling", "chunk_seconds")


@dataclasses.dataclass
class Features:
    """Features of a corpus.

    Attributes:
      table: pandas table, one row per embedding, with COLUMNS first; other columns of the file follow.
      embedding: float32[N, D].
      metadata: JSON-able; see design §4. `features_hash` is kept current by `read_features` and `write_features`.
    """

    table: "pandas.DataFrame"  # noqa: F821  (pandas is imported where it is used)
    embedding: np.ndarray
    metadata: dict

    def __post_init__(self):
        self.table = _complete(self.table)
        self.embedding = np.ascontiguousarray(self.embedding, dtype=np.float32)
        if self.embedding.ndim != 2 or len(self.embedding) != len(self.table):
            raise ValueError(f"embedding of shape {self.embedding.shape} for {len(self.table)} rows; expected [rows, D]")
        if self.metadata.get("columns") is not None:
            _check_layers(self.metadata["columns"], self.embedding.shape[1])

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
        blocks = [self.embedding[:, columns[name]["start"]:columns[name]["stop"]] for name in names]
        metadata = {**self.metadata, "layer": ",".join(names),
                    "columns": layer_columns(names, [block.shape[1] for block in blocks])}
        return Features(self.table, np.concatenate(blocks, axis=1), metadata)

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
    reader = _for_format({".parquet": _read_parquet, ".npz": _read_npz, ".csv": _read_csv}, path)
    if not path.exists():
        raise UserError(f"{path}: no such features file; make one with `ser-jax export`")
    try:
        table, embedding, metadata = reader(path)
    except (OSError, ValueError, KeyError, EOFError) as error:  # those of pyarrow are among them
        raise UserError(f"{path}: cannot be read as {path.suffix[1:]} features ({_one_line(error)})") from None
    if "id" not in table:
        raise UserError(f"{path}: no column 'id'; columns: {', '.join(map(str, table.columns))}")
    if metadata is None:
        print(f"{path}: no ser_jax metadata: the extractor, its pretraining data and the corpus are taken as unknown",
              file=sys.stderr)
        metadata = {"kind": "unknown"}
    try:
        features = Features(table, embedding, metadata)
    except (ValueError, TypeError, KeyError) as error:  # e.g. a word in a column of numbers
        raise UserError(f"{path}: a column does not hold what it should ({_one_line(error)})") from None
    key = _key(features.table)
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
      UserError: unknown format, or no space left (nothing is left half-written).
    """
    path = Path(path)
    writer = _for_format({".parquet": _write_parquet, ".npz": _write_npz, ".csv": _write_csv}, path)
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


def content_hash(features):
    """Hash of rows and embeddings: the same for each file format and order of rows; metadata is not in it."""
    table = features.table
    key = _key(table)
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
    for first in range(0, len(order), 4096):
        digest.update(features.embedding[order[first : first + 4096]].tobytes())
    return digest.hexdigest()[:16]


def layer_columns(layers, widths):
    """Metadata `columns` of layers side by side, each so many values wide."""
    stops = np.cumsum(widths).tolist()
    return [{"layer": layer, "start": stop - width, "stop": stop} for layer, width, stop in zip(layers, widths, stops)]


def extractor_hash(metadata, dimension):
    """Hash of what made the embedding: checkpoint, layers, pooling, chunking, size; equal for any corpus and package
    version."""
    made = {key: metadata.get(key) for key in EXTRACTOR_KEYS}
    columns = metadata.get("columns") or []
    if len(columns) > 1:  # the same layers may be asked for by a pattern or by their names
        made["layer"] = ",".join(column["layer"] for column in columns)
    checkpoint = (metadata.get("checkpoint") or {}).get("hash")
    return canonical_hash({**made, "checkpoint": checkpoint, "dimension": int(dimension)})


def _check_layers(columns, dimension):
    stop, seen = 0, set()
    for column in columns:
        if not stop == column["start"] < column["stop"] or column["layer"] in seen:
            raise ValueError(f"metadata columns do not follow each other: {column}")
        stop = column["stop"]
        seen.add(column["layer"])
    if stop != dimension:
        raise ValueError(f"metadata columns name {stop} values of an embedding of {dimension}")


def _key(table):
    """Names of the columns that tell the rows apart."""
    return ["id", "chunk", "frame"] if "frame" in table else ["id", "chunk"]


def _complete(table):
    """The table with all COLUMNS in order and of fixed types, then the others."""
    import pandas as pd

    columns = {}
    for column in COLUMNS:
        given = table.get(column)
        if column in TEXT_COLUMNS:
            columns[column] = [""] * len(table) if given is None else given.fillna("").astype(str).to_numpy()
        elif column in NUMBER_COLUMNS:
            columns[column] = (np.full(len(table), np.nan) if given is None
                               else pd.to_numeric(given).to_numpy(np.float64, na_value=np.nan))
        else:
            kind = np.int64 if column == "chunk" else bool
            columns[column] = np.zeros(len(table), kind) if given is None else given.fillna(0).to_numpy().astype(kind)
    others = {column: table[column].to_numpy() for column in table.columns if column not in COLUMNS}
    if "frame" in others:
        others["frame"] = others["frame"].astype(np.int64)
    complete = pd.DataFrame(columns | others, index=range(len(table)))
    return complete.astype(dict.fromkeys(TEXT_COLUMNS, "str"))


def _for_format(doors, path):
    if path.suffix not in doors:
        raise UserError(f"{path}: unknown features format {path.suffix!r}; the name must end in {', '.join(FORMATS)}")
    return doors[path.suffix]


def _one_line(error):
    return " ".join(str(error).split())[:200] or type(error).__name__


def _write_parquet(features, metadata, path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(features.table, preserve_index=False)
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(features.embedding.reshape(-1)), features.embedding.shape[1])
    table = table.append_column("embedding", embedding)
    table = table.replace_schema_metadata({METADATA_KEY: json.dumps(metadata, sort_keys=True)})
    with atomic_path(path) as temporary:
        # Dictionary encoding of floats would only cost time.
        pq.write_table(table, temporary, use_dictionary=[name for name in table.column_names if name in TEXT_COLUMNS])


def _read_parquet(path):
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    if "embedding" not in table.column_names:
        raise UserError(f'{path}: no column "embedding"{suggestion("embedding", table.column_names)}')
    column = table["embedding"].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    if column.null_count:
        raise UserError(f"{path}: row {column.is_null().to_pylist().index(True)} has no embedding")
    if not pa.types.is_fixed_size_list(column.type):
        lengths = set(pc.list_value_length(column).to_pylist())
        if len(lengths) > 1:
            raise UserError(f"{path}: the embeddings are not all of the same length ({min(lengths)} to {max(lengths)})")
    values = column.flatten().to_numpy(zero_copy_only=False)
    metadata = (table.schema.metadata or {}).get(METADATA_KEY)
    # The pandas metadata of a foreign file may name an index; the columns are all that counts.
    rest = table.drop_columns("embedding").replace_schema_metadata(None).to_pandas()
    return rest, values.reshape(len(table), -1), None if metadata is None else json.loads(metadata)


def _write_npz(features, metadata, path):
    arrays = {name: _plain_array(name, column) for name, column in features.table.items()}
    arrays |= {"embedding": features.embedding, "metadata": np.array(json.dumps(metadata, sort_keys=True))}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def _plain_array(name, column):
    if column.dtype.kind in "biuf":
        return column.to_numpy()
    # A trailing NUL would be lost in a fixed-width array.
    return np.array([text.rstrip("\0") for text in column.fillna("").astype(str)], dtype="U")


def _read_npz(path):
    import zipfile

    import pandas as pd

    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from None
    if "embedding" not in arrays:
        raise UserError(f'{path}: no array "embedding"{suggestion("embedding", arrays)}; arrays: {", ".join(arrays)}')
    embedding, metadata = arrays.pop("embedding"), arrays.pop("metadata", None)
    if embedding.ndim != 2 or any(array.shape != (len(embedding),) for array in arrays.values()):
        raise UserError(f"{path}: embedding must have two dimensions and the other arrays one value per row of it")
    return pd.DataFrame(arrays), embedding, None if metadata is None else json.loads(str(metadata))


def _write_csv(features, metadata, path):
    import pyarrow as pa
    import pyarrow.csv as pc

    table = pa.Table.from_pandas(features.table, preserve_index=False)
    for number, values in enumerate(features.embedding.T):
        table = table.append_column(f"e{number}", pa.array(np.ascontiguousarray(values)))
    with atomic_path(path) as temporary:
        pc.write_csv(table.replace_schema_metadata(None), str(temporary))
        # Before the rename of the rows: a reader never sees new rows with the metadata missing.
        write_json(_sidecar(path), metadata)


def _read_csv(path):
    import pyarrow as pa
    import pyarrow.csv as pc

    with open(path, encoding="utf-8", newline="") as file:
        import csv

        names = next(csv.reader(file), [])
    dimensions = [name for name in names if name[:1] == "e" and name[1:].isdigit()]
    if not dimensions or set(dimensions) != {f"e{i}" for i in range(len(dimensions))}:
        some = ", ".join(names[:8])
        raise UserError(f"{path}: the embedding must be in columns e0, e1, … without gaps; columns: {some}…")
    types = {**dict.fromkeys(TEXT_COLUMNS, pa.string()), **dict.fromkeys(NUMBER_COLUMNS, pa.float64()),
             "chunk": pa.int64(), "seen_in_pretraining": pa.bool_(), **dict.fromkeys(dimensions, pa.float32())}
    # Parsed as float32 at once: by way of float64 a value could be rounded twice.
    table = pc.read_csv(
        path,
        parse_options=pc.ParseOptions(newlines_in_values=True),
        convert_options=pc.ConvertOptions(column_types=types, strings_can_be_null=False),
    )
    embedding = np.stack([table[f"e{i}"].to_numpy() for i in range(len(dimensions))], axis=1)
    sidecar = _sidecar(path)
    metadata = json.loads(sidecar.read_text(encoding="utf-8")) if sidecar.exists() else None
    return table.drop_columns(dimensions).to_pandas(), embedding, metadata


def _sidecar(path):
    return path.with_name(path.name + ".json")
