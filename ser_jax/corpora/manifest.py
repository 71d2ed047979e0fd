"""Any corpus described by a table: CSV, TSV or Parquet, one row per utterance, only the column `path` is required.

Columns: path, id, text, speaker_id, gender, emotion, valence, arousal, dominance, session, split, chunk_of, language,
start, end (seconds within the file). Every other column goes to `extra`. Paths are relative to the table's folder.
"""

import csv
import dataclasses
import datetime
import math
import re
from pathlib import Path, PurePosixPath

from ser_jax.corpora import audio
from ser_jax.corpora.schema import EMOTIONS, NAN, NUMBER_FIELDS, TEXT_FIELDS, BadAudio, Reject, Unit, Utterance
from ser_jax.errors import UsageError, UserError
from ser_jax.files import canonical_hash

TABLES = ("manifest.csv", "manifest.tsv", "manifest.parquet")
TIMES = ("start", "end")
COLUMNS = ("path", *(field for field in TEXT_FIELDS if field not in ("corpus", "source")), *NUMBER_FIELDS, *TIMES)

GENDERS = {"f": "female", "female": "female", "woman": "female", "m": "male", "male": "male", "man": "male"}
UNSPECIFIED_GENDER = ("o", "other", "diverse", "nonbinary", "non-binary")  # the word itself is kept in `extra`
ALIASES = {
    "neu": "neutral", "neutrality": "neutral", "calmness": "calm", "hap": "happy", "happiness": "happy", "joy": "happy",
    "sadness": "sad", "ang": "angry", "anger": "angry", "fea": "fearful", "fear": "fearful", "dis": "disgusted",
    "disgust": "disgusted", "sur": "surprised", "surprise": "surprised", "boredom": "bored", "contemptuous": "contempt",
    "exc": "excited", "excitement": "excited", "fru": "frustrated", "frustration": "frustrated", "oth": "other",
}
EMOTION_WORDS = {**{emotion: emotion for emotion in EMOTIONS}, **ALIASES}
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf(inity)?", re.ASCII)  # float() also takes "1_000"
ABSENT = ("", "nan", "na", "n/a", "none", "null", "unknown", "-")


@dataclasses.dataclass
class Row:
    """A row of the table, understood or refused (`fault`)."""

    id: str
    path: str
    fields: dict = dataclasses.field(default_factory=dict)
    extra: dict = dataclasses.field(default_factory=dict)
    start: float | None = None
    end: float | None = None
    fault: str = ""

    @property
    def source(self):
        segment = (self.start, self.end) != (None, None)
        return f"{self.path}#{_seconds(self.start, '0')}-{_seconds(self.end, 'end')}" if segment else self.path


class Manifest:
    """Reader of a table of utterances.

    Args:
      source: the table (.csv, .tsv, .parquet) or a folder with `manifest.csv`, `.tsv` or `.parquet` in it.
      name: name of the corpus; "" = name of the table's folder.
      language: language of the rows that do not tell, a BCP-47 tag.
      licence: licence of the audio, written into the prepared corpus.
    """

    synthetic = False

    def __init__(self, source, name="", language="", licence=""):
        if source is None:
            raise UsageError("manifest needs --source: a .csv, .tsv or .parquet table with a column `path`")
        self.table = _find_table(Path(source))
        self.root = self.table.resolve().parent
        self.name = name or self.root.name
        self.language = language
        self.licence = licence
        self._rows = None

    def options(self):
        return {"name": self.name, "language": self.language, "licence": self.licence}

    def units(self):
        """One unit per audio file, whatever the number of its segments. Raises UserError for an unreadable table."""
        units = []
        for path, rows in self._by_path().items():
            stamp = "missing"
            if rows[0].path:
                try:
                    status = (self.root / rows[0].path).stat()
                    stamp = f"{status.st_size}-{status.st_mtime_ns}"
                except (OSError, ValueError):
                    pass
            labels = canonical_hash([dataclasses.asdict(row) for row in rows])
            units.append(Unit(path, rows[0].path or self.table.name, len(rows), f"{stamp}-{labels}"))
        return units

    def load(self, unit):
        rows = self._by_path()[unit.key]
        file, fault = None, ""
        try:
            try:
                if any(not row.fault for row in rows):
                    file = audio.AudioFile(self.root / unit.path)
            except BadAudio as error:
                fault = str(error)
            for row in rows:
                if row.fault or fault:
                    yield Reject(row.id, row.source or unit.path, row.fault or fault)
                    continue
                try:
                    speech = file.read(row.start, row.end)
                except BadAudio as error:
                    yield Reject(row.id, row.source, str(error))
                    continue
                fields = {"language": self.language, "extra": row.extra, **row.fields}
                yield Utterance(id=row.id, corpus=self.name, source=row.source, speech=speech, **fields)
        finally:
            if file is not None:
                file.close()

    def _by_path(self):
        if self._rows is None:
            read = _read_parquet if self.table.suffix.lower() == ".parquet" else _read_csv
            rows, first = {}, {}
            for number, cells, fault in read(self.table):
                row = parse_row(cells, fault, f"row-{number}")
                before = first.setdefault(row.id, (number, row.source))
                if before[0] != number:
                    row.fault = row.fault or f"duplicate id (first: row {before[0]}, {before[1]})"
                rows.setdefault(row.path or f"row-{number}", []).append(row)
            if not rows:
                raise UserError(f"{self.table}: no rows below the header")
            self._rows = rows
        return self._rows


def parse_row(cells, fault="", fallback_id="row"):
    """One row, {column: text or value}, as a `Row`; what is wrong with it is in `fault`."""
    texts = {column: _text(cells.get(column)) for column in COLUMNS}
    path = PurePosixPath(texts["path"]).as_posix() if texts["path"] else ""
    row = Row(texts["id"] or fallback_id, path, fault=fault)
    others = {column: value for column, value in cells.items() if column not in COLUMNS and not _absent(value)}
    row.extra = {column: _json_value(value) for column, value in others.items()}
    if fault:
        return row
    if not path:
        row.fault = "no path"
        return row
    faults = []
    for field in TIMES:
        value = _number(texts[field])
        if value is None:
            faults.append(f"{field} {texts[field]!r} is not a number")
        elif not math.isnan(value):
            setattr(row, field, value)
    row.id = texts["id"] or default_id(path, row.start, row.end)
    for field in TEXT_FIELDS:
        if texts.get(field) and field not in ("id", "gender", "emotion"):
            row.fields[field] = texts[field]
    for field in NUMBER_FIELDS:
        value = _number(texts[field])
        if value is None or math.isinf(value):
            faults.append(f"{field} {texts[field]!r} is not a number")
        elif not math.isnan(value):
            row.fields[field] = value
    gender, emotion = texts["gender"].lower(), texts["emotion"].lower()
    if gender in UNSPECIFIED_GENDER:
        row.extra["gender"] = texts["gender"]
    elif gender in GENDERS:
        row.fields["gender"] = GENDERS[gender]
    elif gender not in ABSENT:
        faults.append(f"unknown gender {texts['gender']!r}")
    if emotion in EMOTION_WORDS:
        row.fields["emotion"] = EMOTION_WORDS[emotion]
    elif emotion not in ABSENT:
        faults.append(f"unknown emotion {texts['emotion']!r}")
    row.fault = "; ".join(faults)
    return row


def default_id(path, start=None, end=None):
    """The path without its suffix, plus the times of a segment."""
    stem = PurePosixPath(path).with_suffix("").as_posix()
    return stem if (start, end) == (None, None) else f"{stem}-{_seconds(start, '0')}-{_seconds(end, 'end')}"


def _find_table(source):
    if source.is_dir():
        found = [source / name for name in TABLES if (source / name).is_file()]
        if len(found) != 1:
            state = "has none of" if not found else "has more than one of"
            raise UserError(f"{source} {state} {', '.join(TABLES)}: give the table itself as --source")
        return found[0]
    if source.suffix.lower() not in (".csv", ".tsv", ".parquet"):
        raise UserError(f"{source}: a manifest is a .csv, .tsv or .parquet file")
    if not source.is_file():
        raise UserError(f"{source}: no such manifest")
    return source


def _read_csv(table):
    """Yields (line number, {column: text}, fault) of each row."""
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, delimiter="\t" if table.suffix.lower() == ".tsv" else ",", strict=True)
            header = [name.strip() for name in next(lines, [])]
            _check_header(table, header)
            for cells in lines:
                if not any(cell.strip() for cell in cells):
                    continue
                fault = "" if len(cells) == len(header) else f"{len(cells)} fields where the header has {len(header)}"
                yield lines.line_num, dict(zip(header, cells, strict=False)), fault
    except UnicodeDecodeError as error:
        raise UserError(f"{table}: not UTF-8 text (byte {error.object[error.start]:#04x}); save it as UTF-8") from None
    except csv.Error as error:
        raise UserError(f"{table}: line {lines.line_num}: not readable as CSV ({error})") from None


def _read_parquet(table):
    import pyarrow
    from pyarrow import parquet

    try:
        content = parquet.read_table(table)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{table}: not readable as Parquet ({str(error).splitlines()[0]})") from None
    _check_header(table, content.column_names)
    for number, cells in enumerate(content.to_pylist(), start=1):
        yield number, cells, ""


def _check_header(table, header):
    if "path" not in header:
        shown = ", ".join(name for name in header if name)[:200]
        raise UserError(f"{table}: no column `path` in the header ({shown})")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise UserError(f"{table}: column {twice[0]!r} appears twice in the header")


def _absent(value):
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _text(value):
    """Cell to text. Parquet tables made by pandas hold codes as floats when a value is missing: 36.0 is "36"."""
    if _absent(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _json_value(value):
    if isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, (list, tuple)):
        return [_json_value(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return None if value is None else str(value)


def _number(text):
    """Text to float: NaN when absent, None when it is not a number."""
    if text.lower() in ABSENT:
        return NAN
    return float(text) if NUMBER.fullmatch(text.lower()) else None


def _seconds(value, absent):
    return absent if value is None else f"{value:.3f}".rstrip("0").rstrip(".")
