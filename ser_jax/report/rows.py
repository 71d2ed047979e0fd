"""Reads what a report is made of: result rows (results.jsonl) and the training logs of workdirs (metrics.jsonl)."""

import dataclasses
import hashlib
import json
import math
from pathlib import Path

from ser_jax.errors import UserError

EMBEDDED_CORPUS = "espeak"  # of ser_jax.corpora.espeak
LOWER_IS_BETTER = ("WER", "CER", "PER", "FER", "LOSS", "ERROR", "MSE", "MAE", "RMSE")


@dataclasses.dataclass
class Row:
    """One result row and where it was read: `data` is the JSON object, `number` its place (R1, R2, ...)."""

    data: dict
    file: str
    line: int
    number: int = 0

    def __getitem__(self, key):
        return self.data.get(key)

    @property
    def name(self):
        return f"R{self.number}"

    @property
    def stamps(self):
        return self.data.get("stamps") or []

    @property
    def synthetic(self):
        return "SYNTHETIC" in self.stamps


@dataclasses.dataclass
class Log:
    """The training log of one workdir: `records` are the lines of metrics.jsonl, the last one of each (kind, step)."""

    workdir: str
    name: str
    records: list
    config: dict | None
    corpora: dict  # name -> (utterances, speakers), from pretrained_on.parquet
    synthetic: bool = False


def number(value):
    """`value` as a finite float, or None (absent, NaN, infinite, or no number at all)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        value = float(value)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def name_of(value):
    """The name of a corpus or protocol that a row gives as {"name": ...}, as text, or as a list of either."""
    if isinstance(value, dict):
        return str(value.get("name") or "")
    if isinstance(value, list):
        return " + ".join(filter(None, map(name_of, value)))
    return "" if value is None else str(value)


def lower_is_better(metric):
    return any(metric.upper().endswith(ending) for ending in LOWER_IS_BETTER)


def read_rows(paths):
    """Reads result rows from files, or from the results.jsonl files in and below folders.

    Rows are ordered for reading: probes before evaluations, in each SYNTHETIC ones last, then by corpus, target and
    metric, the best first, LEAKY ones last.

    Returns:
      (rows, sources, warnings): sources are (file, number of rows, sha256), warnings are lines for the user.

    Raises:
      UserError: a file is missing, unreadable, malformed (names file and line) or there is no row at all.
    """
    rows, sources, warnings = [], [], []
    for file in _files(paths, "results.jsonl"):
        records, digest = _read_lines(file, warnings)
        for line, data in records:
            _check_row(data, f"{file}:{line}")
            rows.append(Row(data, str(file), line))
        sources.append((str(file), len(records), digest))
    newest = {json.dumps({k: v for k, v in row.data.items() if k not in ("created", "versions")}, sort_keys=True): row
              for row in rows}
    if len(newest) < len(rows):
        warnings.append(f"{len(rows) - len(newest)} repeated rows left out (a verb was run again with the same result)")
        rows = list(newest.values())
    if not rows:
        named = ", ".join(map(str, paths))
        raise UserError(f"{named}: no result rows; run `ser-jax probe` or `ser-jax evaluate` first")
    rows.sort(key=_order)
    for place, row in enumerate(rows):
        row.number = place + 1
    return rows, sources, warnings


def read_logs(workdirs):
    """Reads the metrics.jsonl (and config.json, pretrained_on.parquet where they exist) of pretraining workdirs.

    A log is synthetic if the embedded corpus is among those it was pretrained on.

    Returns:
      (logs, warnings).

    Raises:
      UserError: no metrics.jsonl, or a malformed one.
    """
    logs, warnings = [], []
    for workdir in dict.fromkeys(Path(path) for path in workdirs):
        file = workdir / "metrics.jsonl"
        if not file.is_file():
            raise UserError(f"{workdir}: no metrics.jsonl there; --workdir takes the work folder of `ser-jax pretrain`")
        last = {}
        for line, record in _read_lines(file, warnings)[0]:
            step = number(record.get("step")) if isinstance(record, dict) else None
            if step is None:
                raise UserError(f"{file}:{line}: not a training record (an object with a step)")
            last[str(record.get("kind", "train")), step] = record  # a resumed run logs some steps again
        records = [last[key] for key in sorted(last, key=lambda key: (key[1], key[0]))]
        corpora = _pretrained_on(workdir / "pretrained_on.parquet", warnings)
        name = workdir.name or workdir.resolve().name
        config = _config(workdir / "config.json", warnings)
        logs.append(Log(str(workdir), name, records, config, corpora, synthetic=EMBEDDED_CORPUS in corpora))
    return logs, warnings


def _files(paths, name):
    files = []
    for path in map(Path, paths):
        if path.is_dir():
            found = [path / name] if (path / name).is_file() else sorted(path.rglob(name))
            if not found:
                raise UserError(f"{path}: no {name} in this folder")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"{path}: no such file; give the {name} of `ser-jax probe` or `ser-jax evaluate`")
    first = {}
    for file in files:
        first.setdefault(file.resolve(), file)
    return list(first.values())


def _read_lines(file, warnings):
    """[(line number, value)] and the sha256 of the file. A last line without a line end that is no JSON is left out."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from error
    records, lines = [], content.split(b"\n")
    for place, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            records.append((place, json.loads(line.decode("utf-8"))))
        except (ValueError, RecursionError) as error:
            if place == len(lines):
                warnings.append(f"{file}:{place}: the last line is torn (its writer was stopped); left out")
                continue
            raise UserError(f"{file}:{place}: not a line of JSON ({error}); mend or remove this line") from error
    return records, hashlib.sha256(content).hexdigest()[:16]


def _check_row(data, where):
    def wrong(what):
        raise UserError(f"{where}: not a result row: {what}")

    if not isinstance(data, dict):
        wrong("not a JSON object")
    if not isinstance(data.get("metric"), str) or "value" not in data:
        wrong("metric and value are needed")
    if not _is_number(data["value"]):
        wrong("value must be a number")
    ci = data.get("ci")
    if ci is not None and not (isinstance(ci, list) and len(ci) == 2 and all(_is_number(end) for end in ci)):
        wrong("ci must be [low, high]")
    for key, kind in (("stamps", list), ("classes", list), ("folds", list), ("secondary", dict), ("confusion", list),
                      ("examples", list), ("seeds", list)):
        if data.get(key) is not None and not isinstance(data[key], kind):
            wrong(f"{key} must be {'a list' if kind is list else 'an object'}")
    if any(not isinstance(stamp, str) for stamp in data.get("stamps") or []):
        wrong("stamps must be texts")
    if any(isinstance(seed, dict | list) for seed in data.get("seeds") or []):
        wrong("seeds must be numbers")
    for key in ("folds", "examples"):
        if any(not isinstance(part, dict) for part in data.get(key) or []):
            wrong(f"{key} must be objects")
    matrix = data.get("confusion")
    if matrix:
        size = len(matrix)
        if any(not isinstance(line, list) or len(line) != size for line in matrix):
            wrong("confusion must be square")
        if any((number(count) is None or count < 0) for line in matrix for count in line):
            wrong("confusion must hold counts")
        if data.get("classes") and len(data["classes"]) != size:
            wrong(f"confusion is {size} x {size} but there are {len(data['classes'])} classes")


def _is_number(value):
    """A number or null, which stands for one that JSON cannot hold."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _order(row):
    value = number(row["value"])
    better = math.inf if value is None else value if lower_is_better(row["metric"]) else -value
    kind = {"probe": 0, "evaluate": 1}.get(str(row["kind"]), 2)
    leaky = "LEAKY" in row.stamps  # never above the honest figure
    return kind, row.synthetic, name_of(row["corpus"]), str(row["target"] or ""), row["metric"], leaky, better


def _config(file, warnings):
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        warnings.append(f"{file}: cannot be read ({error}); the configuration is not shown")
        return None


def _pretrained_on(file, warnings):
    if not file.is_file():
        return {}
    import pandas

    try:
        table = pandas.read_parquet(file, columns=["corpus", "speaker_id", "part"])
    except (ValueError, OSError, KeyError) as error:
        warnings.append(f"{file}: cannot be read ({str(error).splitlines()[0]}); the training corpora are not shown")
        return {}
    groups = table[table["part"] == "train"].groupby("corpus", sort=True)["speaker_id"]
    return {str(name): (len(speakers), int(speakers.nunique())) for name, speakers in groups}
