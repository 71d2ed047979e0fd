"""Our formats of a features file: .parquet, .npz and .csv; see `ser_jax.export.features` for what they hold.

A reader gives (pandas table of the columns as they are, float[N, D], metadata or None); a writer is atomic. In .parquet
and .npz the embedding is in memory once, besides a slice of it: 10,000 utterances of 20,000 values are meant to pass.
"""

import json

import numpy as np

from ser_jax.errors import UserError, suggestion
from ser_jax.export.table import NUMBER_COLUMNS, TEXT_COLUMNS
from ser_jax.files import atomic_path, write_json

METADATA_KEY = b"ser_jax"
SLICE = 2**24  # values of an embedding that are handled at a time, 64 MiB


def slice_rows(dimension):
    """Number of rows that make about SLICE values."""
    return int(np.clip(SLICE // max(dimension, 1), 1, 2**20))


def write_parquet(features, metadata, path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    dimension = features.embedding.shape[1]
    table = pa.Table.from_pandas(features.table, preserve_index=False)
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(features.embedding.reshape(-1)), dimension)
    table = table.append_column("embedding", embedding)
    table = table.replace_schema_metadata({METADATA_KEY: json.dumps(metadata, sort_keys=True)})
    with atomic_path(path) as temporary:
        # Dictionary encoding of floats would only cost time.
        pq.write_table(table, temporary, row_group_size=slice_rows(dimension),
                       use_dictionary=[name for name in table.column_names if name in TEXT_COLUMNS])


def read_parquet(path):
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, pre_buffer=False) as file:  # or the whole file would be in memory as well
        schema = file.schema_arrow
        if "embedding" not in schema.names:
            raise UserError(f'{path}: no column "embedding"{suggestion("embedding", schema.names)}')
        embedding = _embedding_column(file, path)
        rest = file.read([name for name in schema.names if name != "embedding"])
    metadata = (schema.metadata or {}).get(METADATA_KEY)
    # The pandas metadata of a foreign file may name an index; the columns are all that counts.
    return (rest.replace_schema_metadata(None).to_pandas(), embedding,
            None if metadata is None else json.loads(metadata))


def _embedding_column(file, path):
    """The column "embedding" of an open file, slice by slice into one array."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = file.schema_arrow.field("embedding").type
    dimension = kind.list_size if pa.types.is_fixed_size_list(kind) else None
    embedding = None if dimension is None else np.empty((file.metadata.num_rows, dimension), np.float32)
    first, shortest, longest = 0, None, None
    for batch in file.iter_batches(slice_rows(dimension or 2**14), columns=["embedding"]):
        column = batch["embedding"]
        if column.null_count:
            raise UserError(f"{path}: row {first + column.is_null().to_pylist().index(True)} has no embedding")
        if dimension is None and len(column):
            lengths = pc.min_max(pc.list_value_length(column)).as_py()
            shortest = min(filter(lambda x: x is not None, (shortest, lengths["min"])))
            longest = max(filter(lambda x: x is not None, (longest, lengths["max"])))
            if shortest != longest:
                raise UserError(f"{path}: the embeddings are not all of the same length ({shortest} to {longest})")
            if embedding is None:
                embedding = np.empty((file.metadata.num_rows, longest), np.float32)
        values = column.flatten().to_numpy(zero_copy_only=False)
        embedding[first:first + len(column)] = values.reshape(len(column), -1)
        first += len(column)
    if embedding is None:
        raise ValueError("no rows")
    return embedding


def write_npz(features, metadata, path):
    arrays = {name: plain_array(name, column) for name, column in features.table.items()}
    arrays |= {"embedding": features.embedding, "metadata": np.array(json.dumps(metadata, sort_keys=True))}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)


def plain_array(name, column):
    if column.dtype.kind in "biuf":
        return column.to_numpy()
    # A trailing NUL would be lost in a fixed-width array.
    return np.array([text.rstrip("\0") for text in column.fillna("").astype(str)], dtype="U")


def read_npz(path):
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


def write_csv(features, metadata, path):
    import pyarrow as pa
    import pyarrow.csv as pc

    table = pa.Table.from_pandas(features.table, preserve_index=False)
    for number, values in enumerate(features.embedding.T):
        table = table.append_column(f"e{number}", pa.array(np.ascontiguousarray(values)))
    with atomic_path(path) as temporary:
        pc.write_csv(table.replace_schema_metadata(None), str(temporary))
        # Before the rename of the rows: a reader never sees new rows with the metadata missing.
        write_json(_sidecar(path), metadata)


def header_of(path):
    """Names of the columns of a .csv."""
    import csv

    with open(path, encoding="utf-8", newline="") as file:
        return next(csv.reader(file), [])


def read_csv(path):
    import pyarrow as pa
    import pyarrow.csv as pc

    names = header_of(path)
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
