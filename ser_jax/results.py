"""Result rows and logs: one JSON object per line, and the tables printed from them."""

import json
import math
import sys
import time
from pathlib import Path

from ser_jax.errors import UserError

IN_PERCENT = ("UAR", "WAR", "macro_F1", "accuracy", "WER", "CER", "FER", "PER", "PER without silence")
OF_NUMBERS = ("CCC", "MSE", "Pearson")
PACKAGES = ("ser_jax", "jax", "flax", "optax", "numpy", "scikit-learn", "pandas", "pyarrow")
FIELDS = ("kind", "system", "target", "metric", "definition", "value", "ci", "ci_method", "n", "n_speakers", "chance",
          "classes", "confusion", "by_speaker", "secondary", "head", "selection", "options", "fold_pooling", "folds", "seeds", "protocol",
          "features", "corpus", "checkpoint", "experiment", "split", "stamps", "notes", "examples", "versus", "predictions",
          "versions", "created")


class JsonlWriter:
    """Appends records to a .jsonl file, one flushed line each: a killed run loses at most the line it was writing.

    A torn last line of an earlier, killed run is removed when the file is opened. Numbers that JSON cannot hold (NaN,
    infinities) are written as null; numpy and JAX scalars and arrays become numbers and lists.
    """

    def __init__(self, path):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        _mend_last_line(path)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115  (open for the life of the writer)

    def write(self, record):
        self._file.write(json.dumps(_plain(record), allow_nan=False) + "\n")
        self._file.flush()

    def close(self):
        self._file.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def append_jsonl(path, record):
    """Appends one record; see `JsonlWriter`."""
    with JsonlWriter(path) as writer:
        writer.write(record)


def read_jsonl(path):
    """All records of a .jsonl file. A torn last line (the writer was killed) is ignored.

    Raises:
      UserError: the file is missing, or another line is not JSON.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            records.append(json.loads(line))
        except ValueError:
            if number == len(lines):  # no newline after it: torn
                break
            raise UserError(f"{path}:{number}: not a line of JSON; remove the line") from None
    return records


def result_row(kind, metric, value, n, **fields):
    """A result row; `definition`, `versions` and `created` are filled in.

    Args:
      kind: "probe" or "evaluate".
      metric: its name; the definition comes from `ser_jax.metrics.METRICS` unless given.
      value: of the metric.
      n: number of units tested.
      **fields: any other of FIELDS.

    Raises:
      ValueError: a field is not in FIELDS (a report would not find it).
    """
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r} in a result row; fields: {', '.join(FIELDS)}")
    if not fields.get("definition"):
        from ser_jax.metrics import METRICS

        fields["definition"] = METRICS[metric].definition if metric in METRICS else ""
    row = {
        "kind": kind,
        "metric": metric,
        "value": value,
        "n": n,
        "stamps": [],
        "versions": versions(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **fields,
    }
    return _plain({field: row[field] for field in FIELDS if field in row})


def append_row(path, row):
    """Appends a result row to a results.jsonl."""
    append_jsonl(path, row)


def read_rows(path):
    """Result rows of a results.jsonl, or of the results.jsonl in a folder, oldest first.

    Raises:
      UserError: the file is missing or holds something else.
    """
    path = Path(path)
    path = path / "results.jsonl" if path.is_dir() else path
    rows = read_jsonl(path)
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or "metric" not in row or "value" not in row:
            raise UserError(f"{path}: record {number} is not a result row (no metric or value)")
    return rows


def versions():
    """Versions of Python and of the packages that a number can depend on; what is not installed is left out."""
    import importlib.metadata
    import platform

    import ser_jax

    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            if package == "ser_jax":
                found[package] = getattr(ser_jax, "__version__", "")
    return found


def print_table(header, rows, file=None):
    """Prints rows of cells under a header: aligned on a terminal, tab separated elsewhere (so that `cut` and a sheet
    read it).

    None is printed as "-"; a column whose cells are all numbers is aligned right.
    """
    file = file or sys.stdout
    text = [
        ["-" if cell is None else str(cell).replace("\t", " ").replace("\n", " ") for cell in row]
        for row in [header, *rows]
    ]
    if not file.isatty():
        for row in text:
            print("\t".join(row), file=file)
        return
    width = [max(len(row[column]) for row in text) for column in range(len(header))]
    right = [len(text) > 1 and all(_numeric(row[column]) for row in text[1:]) for column in range(len(header))]
    for row in text:
        cells = [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, width, right)]
        print("  ".join(cells).rstrip(), file=file)


def print_rows(rows, file=None):
    """Prints result rows as a table; the metrics of IN_PERCENT in percent. Regressions come in a table of their own.

    Where a row is of a head that depends on a seed, it is told of how many, and how far these are apart.
    """
    head = ["system", "features", "target", "head", "protocol", "metric", "value", "95% CI"]
    seeded = any(f"{row['metric']}_seed_min" in (row.get("secondary") or {}) for row in rows)
    head += [*(("seeds", "seed min", "seed max", "seed std") if seeded else ()), "fold mean"]
    tail = ["chance", "n", "speakers", "stamps"]
    of_numbers = [row for row in rows if row["metric"] in OF_NUMBERS]
    of_labels = [row for row in rows if row["metric"] not in OF_NUMBERS]
    if of_labels:
        print_table([*head, "WAR", "macro F1", *tail], [_cells(row, ("WAR", "macro_F1"), seeded) for row in of_labels],
                    file)
    if of_labels and of_numbers:
        print(file=file)
    if of_numbers:
        columns = [*head, "fold std", *OF_NUMBERS, *tail]
        print_table(columns, [_cells(row, (f"{row['metric']}_fold_std", *OF_NUMBERS), seeded) for row in of_numbers],
                    file)


def format_value(metric, value):
    """0.6543 as "65.4" for the shares of IN_PERCENT, "0.654" for other metrics; "-" when undefined."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{100 * value:.1f}" if metric in IN_PERCENT else f"{value:.3f}"


def features_cell(row):
    """What tells the features of a row from others in a table: layer and pooling, or else the name of the file."""
    features = row.get("features") or {}
    pooling = [str(features[key]) for key in ("layer", "pooling") if features.get(key)]
    return ":".join(pooling) or Path(features.get("path") or "-").name


def _cells(row, beside, seeded):
    metric, secondary = row["metric"], row.get("secondary") or {}
    ci = row.get("ci") or [None, None]
    interval = "-" if ci[0] is None else f"{format_value(metric, ci[0])}..{format_value(metric, ci[1])}"
    spread = [secondary.get(f"{metric}_seed_{key}") for key in ("min", "max", "std")] if seeded else []
    count = len(row.get("seeds") or []) if spread and spread[0] is not None else None
    return [
        row.get("system"),
        features_cell(row),
        row.get("target"),
        row.get("head"),
        (row.get("protocol") or {}).get("name") or row.get("split"),
        metric,
        format_value(metric, row["value"]),
        interval,
        *([count, *(format_value(metric, value) for value in spread)] if seeded else []),
        format_value(metric, secondary.get(f"{metric}_fold_mean")),
        *(format_value(name, secondary.get(name)) for name in beside),
        format_value(metric, row.get("chance")),
        row.get("n"),
        row.get("n_speakers"),
        " ".join(row.get("stamps") or []) or None,
    ]


def _numeric(cell):
    try:
        float(cell.rstrip("%"))
    except ValueError:
        return cell == "-"
    return True


def _plain(value):
    """The value in types that JSON has; NaN and infinities become None."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in (sorted(value) if isinstance(value, set) else value)]
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy and JAX scalars and arrays
        return _plain(value.tolist())
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _mend_last_line(path):
    """Ends a whole last line with a newline; cuts a torn one."""
    try:
        with open(path, "rb+") as file:
            data = file.read()
            if not data or data.endswith(b"\n"):
                return
            start = data.rfind(b"\n") + 1
            try:
                json.loads(data[start:])
                file.write(b"\n")
            except ValueError:
                file.truncate(start)
    except FileNotFoundError:
        return
