"""Which values of an embedding belong to which layer, and what made them; all of it is metadata."""

import numpy as np

from ser_jax.files import canonical_hash

# What must be equal for a head to accept features: the extractor, not the corpus or the versions.
EXTRACTOR_KEYS = ("kind", "linguistic", "layer", "pooling", "chunk_seconds", "front_end", "fitted")


def layer_columns(layers, widths):
    """Metadata `columns` of layers side by side, each so many values wide."""
    return side_by_side([{"layer": layer, "start": 0, "stop": width} for layer, width in zip(layers, widths)])


def side_by_side(columns):
    """Entries of metadata `columns` with their places moved so that they follow each other."""
    stops = np.cumsum([column["stop"] - column["start"] for column in columns]).tolist()
    return [{**column, "start": start, "stop": stop} for column, start, stop in zip(columns, [0, *stops], stops)]


def extractor_hash(metadata, dimension):
    """Hash of what made the embedding: checkpoint or front end, layers, pooling, chunking, size; equal for any corpus
    and package version. Fused features are of one extractor if their layers are, whatever the files were called."""
    if metadata.get("fused"):
        return canonical_hash(["fused", *(_extractor_of_fused(metadata, column) for column in metadata["columns"])])
    made = {key: metadata.get(key) for key in EXTRACTOR_KEYS}
    for key in ("front_end", "fitted"):
        if made[key] is None:
            del made[key]  # so that heads saved before there were any are still accepted
    columns = metadata.get("columns") or []
    if len(columns) > 1:  # the same layers may be asked for by a pattern or by their names
        made["layer"] = ",".join(column["layer"] for column in columns)
    checkpoint = (metadata.get("checkpoint") or {}).get("hash")
    return canonical_hash({**made, "checkpoint": checkpoint, "dimension": int(dimension)})


def _extractor_of_fused(metadata, column):
    """Hash of what made one layer of fused features."""
    number, name = column["from"]
    part, size = metadata["fused"][number], column["stop"] - column["start"]
    columns = part.get("columns") or []
    if part.get("fused"):
        return _extractor_of_fused(part, next(each for each in columns if each["layer"] == name))
    if len(columns) > 1:  # whatever other layers that file has
        part = {**part, "layer": name, "columns": []}
    return extractor_hash(part, size)


def check_layers(columns, dimension):
    stop, seen = 0, set()
    for column in columns:
        if not stop == column["start"] < column["stop"] or column["layer"] in seen:
            raise ValueError(f"metadata columns do not follow each other: {column}")
        if column.get("frames"):
            steps, size = column["frames"]
            if column["stop"] - column["start"] != 1 + steps * size:
                raise ValueError(f"metadata columns name {column['frames']} frames in other than 1 + "
                                 f"{steps * size} values")
        stop = column["stop"]
        seen.add(column["layer"])
    if stop != dimension:
        raise ValueError(f"metadata columns name {stop} values of an embedding of {dimension}")
