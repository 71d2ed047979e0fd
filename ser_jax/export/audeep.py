"""auDeep's files (Freitag et al. 2017): its CSV, its ARFF, and the netCDF-4 of its data sets, read and written.

They hold filename, chunk_nr, label_nominal, label_numeric and values, netCDF also the partition and folds; here these
are id, chunk, emotion, a column `label_numeric`, and split and columns `cv_fold_1`, … (0 trained on, 1 validated).
Nothing else of a features file is in them. netCDF needs the extra [audeep].
"""

import io
import json
import re
import sys

import numpy as np

from ser_jax.errors import UserError
from ser_jax.export.formats import header_of
from ser_jax.export.layers import layer_columns
from ser_jax.files import atomic_path

FILENAME, CHUNK, NOMINAL, NUMERIC = ABOUT = ("filename", "chunk_nr", "label_nominal", "label_numeric")
PARTITIONS = {"train": 0, "dev": 1, "devel": 1, "test": 2}
SPLITS = ("train", "dev", "test")
MISSING_TEXT, MISSING_NUMBER = "__MISSING_VALUE", -999999  # as earlier releases wrote them


# ------------------------------------------------------------------------------------------------ CSV


def is_csv(path):
    """Whether a .csv is auDeep's, by its header."""
    names = header_of(path)
    return FILENAME in names and "id" not in names


def write_csv(features, metadata, path):
    about, values = _about(features, path), features.embedding
    names = [*ABOUT, *(f"feature_{i}" for i in range(values.shape[1]))]
    _write_lines(path, [",".join(names)], about, values, _csv_cell, "")


def read_csv(path):
    names = header_of(path)
    with open(path, "rb") as file:
        return _read_rows(file, path, names, {name: name in (FILENAME, NOMINAL) for name in names}, skip_rows=1,
                          null_values=[""])


def _csv_cell(text):
    return '"' + text.replace('"', '""') + '"' if re.search(r'[",\r\n]', text) else text


# ------------------------------------------------------------------------------------------------ ARFF


def write_arff(features, metadata, path):
    about, values = _about(features, path), features.embedding
    labels = sorted(set(about[NOMINAL]) - {""})
    whole = not about[NUMERIC].dropna().mod(1).any()
    head = ["@RELATION 'features of ser_jax'", "", f"@ATTRIBUTE {FILENAME} STRING", f"@ATTRIBUTE {CHUNK} INTEGER",
            f"@ATTRIBUTE {NOMINAL} " + (f"{{{','.join(map(_arff_cell, labels))}}}" if labels else "STRING"),
            f"@ATTRIBUTE {NUMERIC} {'INTEGER' if whole else 'REAL'}",
            *(f"@ATTRIBUTE feature_{i} REAL" for i in range(values.shape[1])), "", "@DATA"]
    _write_lines(path, head, about, values, _arff_cell, "?")


def read_arff(path):
    """Dense ARFF with numeric, string and nominal attributes, which may be of other makers as well."""
    texts = {}
    with open(path, "rb") as file:
        for line in file:
            line = line.decode("utf-8").strip()
            if line[:5].lower() == "@data":
                break
            if line[:10].lower() == "@attribute":
                found = re.match(r"""@attribute\s+('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\S+)\s+(.+)""", line, re.I)
                name, kind = found.groups() if found else (line, "")
                texts[_unquoted(name)] = _is_text(path, name, kind)
        else:
            raise ValueError("no @data")
        rows = file.read()
    if b"%" in rows:  # comments
        rows = b"\n".join(line for line in rows.splitlines() if not line.lstrip().startswith(b"%"))
    if rows.lstrip().startswith(b"{"):
        raise ValueError("sparse rows are not supported")
    quoted = b"'" in rows or b'"' in rows
    quote = re.search(rb"(?:^|,)[ \t]*(['\"])", rows, re.M) if quoted else None  # of the first quoted cell
    return _read_rows(io.BytesIO(rows), path, list(texts), texts, null_values=["?"], escape_char="\\",
                      quote_char=quote[1].decode() if quote else "'")


def _is_text(path, name, kind):
    if kind.lower() in ("numeric", "real", "integer"):
        return False
    if kind.lower() == "string" or kind[:1] == "{":
        return True
    raise ValueError(f"attribute {name} is of type {kind[:20]!r}; numeric, string and nominal ones are supported")


def _arff_cell(text):
    if not re.search(r"""[\s'"\\%{},?]""", text):
        return text
    return "'" + re.sub(r"(['\\])", r"\\\1", " ".join(text.splitlines())) + "'"


def _unquoted(name):
    return re.sub(r"\\(.)", r"\1", name[1:-1]) if name[0] in "'\"" else name


# ------------------------------------------------------------------------------------------------ rows of text


def _write_lines(path, head, about, values, cell, missing):
    """Text lines, the values with nine digits: float32 survives, also by way of float64."""

    def number(value):
        return missing if np.isnan(value) else f"{value:.9g}"

    row = ",%.9g" * values.shape[1]
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(line + "\n" for line in head)
        for name, chunk, nominal, numeric, value in zip(*(about[column] for column in ABOUT), values):
            cells = row % tuple(value.tolist())
            cells = cells.replace(",nan", "," + missing) if np.isnan(value).any() else cells
            file.write(f"{cell(name)},{chunk},{cell(nominal) if nominal else missing},{number(numeric)}{cells}\n")


def _read_rows(file, path, names, texts, *, null_values, skip_rows=0, **quoting):
    """Rows of text after the header: every column that is not ABOUT is a value.

    Args:
      texts: {name of a column: whether it is text}.
      quoting: of `pyarrow.csv.ParseOptions`.
    """
    import pyarrow as pa
    import pyarrow.csv as pc

    if FILENAME not in names:
        raise UserError(f"{path}: no attribute {FILENAME!r}; attributes: {', '.join(names[:8])}…")
    values = [name for name in names if name not in ABOUT]
    words = [name for name in values if texts[name]]
    if words or not values:
        raise UserError(f"{path}: attribute {words[0]!r} is not a number" if words else f"{path}: no values")
    types = {name: pa.string() if texts[name] else pa.float64() if name in ABOUT else pa.float32() for name in names}
    table = pc.read_csv(
        file, pc.ReadOptions(column_names=names, skip_rows=skip_rows),
        pc.ParseOptions(newlines_in_values=True, **quoting),
        pc.ConvertOptions(column_types=types, null_values=null_values, strings_can_be_null=True,
                          quoted_strings_can_be_null=False))
    embedding = np.empty((len(table), len(values)), np.float32)
    for place, name in enumerate(values):
        embedding[:, place] = table[name].to_numpy()
    generated = all(re.fullmatch(r"feature_\d+", name) for name in values)
    return _table({name: table[name].to_pandas() for name in ABOUT if name in names}), embedding, _metadata(
        embedding, None if generated else values)


# ------------------------------------------------------------------------------------------------ netCDF


def netcdf4():
    """The module netCDF4.

    Raises:
      UserError: it is not installed.
    """
    try:
        import netCDF4
    except ImportError as error:
        raise UserError(f"auDeep's .nc files need netCDF4 ({error}): pip install 'ser_jax[audeep]'") from None
    return netCDF4


def write_netcdf(features, metadata, path):
    about, module = _about(features, path), netcdf4()
    with atomic_path(path) as temporary:
        try:
            with module.Dataset(str(temporary), "w", format="NETCDF4") as file:
                _fill(file, about, features)
        except RuntimeError as error:  # as the library tells of a full disk, among others
            raise UserError(f"{path}: cannot be written ({error}); free some space and run the same command again"
                            ) from None


def _fill(file, about, features):
    """Dimensions, variables and attributes of auDeep's data set, as xarray writes them."""
    values, table = features.embedding, features.table
    folds = [name for name in table if re.fullmatch(r"cv_fold_\d+", name)]
    partition = table["split"].map(PARTITIONS)
    numbers = {CHUNK: about[CHUNK], NUMERIC: about[NUMERIC],
               "partition": partition if partition.notna().all() else np.full(len(table), np.nan)}
    labels = dict(sorted({(label, number) for label, number in zip(about[NOMINAL], about[NUMERIC]) if label}))
    for name, size in (("instance", len(values)), ("fold", len(folds)), ("generated", values.shape[1])):
        file.createDimension(name, size)
    for name in (FILENAME, NOMINAL):
        file.createVariable(name, str, ("instance",))[:] = about[name].to_numpy(dtype=object)
    for name, column in numbers.items():
        column = np.asarray(column, np.float64)
        kind = "f8" if np.isnan(column).any() or (column % 1).any() else "i8"
        file.createVariable(name, kind, ("instance",))[:] = column
    kept = file.createVariable("cv_folds", "i8", ("instance", "fold"))
    if folds:
        kept[:] = table[folds].to_numpy(np.int64)
    file.createVariable("features", "f4", ("instance", "generated"))[:] = values
    file.feature_dims = json.dumps(["generated"])
    if labels and all(float(number).is_integer() for number in labels.values()):
        file.label_map = json.dumps([[label, int(number)] for label, number in labels.items()])


def read_netcdf(path):
    """A data set of auDeep; spectrograms (more than one dimension of features) become a layer of frames."""
    with netcdf4().Dataset(str(path)) as file:
        file.set_auto_mask(False)
        found = file.variables
        if FILENAME not in found or "features" not in found:
            raise UserError(f"{path}: not a data set of auDeep: variables {', '.join(found) or 'none'}")
        rows, *shape = found["features"].shape
        size, frames = int(np.prod(shape)), len(shape) == 2
        embedding = np.empty((rows, size + frames), np.float32)
        for first in range(0, rows, 1024):
            embedding[first:first + 1024, frames:] = found["features"][first:first + 1024].reshape(-1, size)
        columns = {name: found[name][:] for name in ABOUT if name in found}
        split = _numbers(found["partition"][:]) if "partition" in found else np.full(rows, np.nan)
        folds = found["cv_folds"][:] if "cv_folds" in found and found["cv_folds"].size else np.empty((rows, 0))
    metadata = _metadata(embedding)
    if frames:
        embedding[:, 0] = shape[0]
        metadata["columns"][0]["frames"] = shape
    table = _table(columns)
    table["split"] = [SPLITS[int(each)] if each in (0, 1, 2) else "" for each in split]
    for number, fold in enumerate(folds.T, 1):
        fold = _numbers(fold)
        if not np.isnan(fold).any():
            table[f"cv_fold_{number}"] = fold.astype(np.int64)
    return table, embedding, metadata


# ------------------------------------------------------------------------------------------------ common


def _about(features, path):
    """The columns ABOUT of a features file; says on stderr what the format does not hold."""
    import pandas as pd

    table = features.table
    numeric = table.get(NUMERIC)
    if numeric is None:
        numbers = {label: number for number, label in enumerate(sorted(set(table["emotion"]) - {""}))}
        numeric = table["emotion"].map(numbers)
    print(f"{path}: holds what auDeep's files hold, not speakers, texts and metadata; keep the features file it is made "
          "of", file=sys.stderr)
    pieces = table["id"].value_counts()
    if pieces.nunique() > 1:
        print(f"{path}: from {pieces.min()} to {pieces.max()} pieces of an utterance: auDeep wants the same number of each "
              "to fuse or validate them", file=sys.stderr)
    return pd.DataFrame({FILENAME: table["id"], CHUNK: table["chunk"], NOMINAL: table["emotion"],
                         NUMERIC: pd.to_numeric(numeric).astype(np.float64)})


def _table(columns):
    """Our table from the columns ABOUT that there are."""
    import pandas as pd

    size = len(columns[FILENAME])
    chunk = _numbers(columns.get(CHUNK, np.zeros(size)))
    if not (chunk >= 0).all() or (chunk % 1).any():
        raise ValueError(f"{CHUNK} must be whole numbers")
    table = {"id": _words(columns[FILENAME]), "chunk": chunk.astype(np.int64),
             "emotion": _words(columns.get(NOMINAL, [""] * size))}
    numeric = _numbers(columns.get(NUMERIC, np.full(size, np.nan)))
    if not np.isnan(numeric).all():
        table[NUMERIC] = numeric if np.isnan(numeric).any() or (numeric % 1).any() else numeric.astype(np.int64)
    if "" in table["id"]:
        raise ValueError(f"row {table['id'].index('')} has no {FILENAME}")
    return pd.DataFrame(table)


def _numbers(values):
    values = np.asarray(values, np.float64)
    return np.where(values == MISSING_NUMBER, np.nan, values)


def _words(values):
    return ["" if word != word or word is None or word == MISSING_TEXT else str(word) for word in values]


def _metadata(embedding, names=None):
    """All that such a file tells of its extractor: that there is one layer."""
    return {"layer": "features", "columns": layer_columns(["features"], [embedding.shape[1]])} | (
        {"names": names} if names else {})
