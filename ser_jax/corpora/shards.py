"""One shard of a prepared corpus: ArrayRecord of TFDS examples, and its sidecar with index rows and rejects.

The sidecar is written after the shard and names what the shard was made from, so a later run knows whether to keep it.
"""

import contextlib
import errno
import hashlib
import json
import re

import numpy as np

from ser_jax.corpora import audio
from ser_jax.corpora.schema import NUMBER_FIELDS, TEXT_FIELDS, BadAudio, Reject, check_labels
from ser_jax.errors import UserError
from ser_jax.files import atomic_path, canonical_hash, write_text

FORMAT = 1
SPLIT = "full"  # TFDS reserves the name "all": it reads every split there is, here this one
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Stopped(Exception):
    """The run is ending; this shard is given up."""


def tfds_name(corpus):
    """Corpus name as TFDS allows it: a letter, then letters, digits and underscores."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", corpus)
    return name if re.match(r"[A-Za-z]", name) else f"corpus_{name}"


def shard_name(corpus, number, shards):
    return f"{tfds_name(corpus)}-{SPLIT}.array_record-{number:05d}-of-{shards:05d}"


def record_features():
    """TFDS features of a record. `speech` as bytes is read five times faster than the `Audio` feature."""
    from tensorflow_datasets import features

    return features.FeaturesDict({
        **{field: features.Text() for field in TEXT_FIELDS},
        **{field: features.Scalar(dtype=np.float32) for field in NUMBER_FIELDS},
        "speech": features.Tensor(shape=(None,), dtype=np.int16, encoding="bytes"),
        "phones": features.Sequence({"label": features.Text(), "start": np.int64, "end": np.int64}),
        "extra": features.Text(),
    })


def unit_hash(text):
    """Order of units, shuffled but the same everywhere."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


@contextlib.contextmanager
def full_disk_is_user_error(folder):
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            raise UserError(f"{folder}: {error.strerror}; make room and run the same command again") from None
        raise


@contextlib.contextmanager
def _write_errors(folder):
    """ArrayRecord reports every failure, a full disk too, as RuntimeError with a long text."""
    try:
        yield
    except RuntimeError as error:
        known = ("No space left on device", "File too large", "quota exceeded")
        reason = next((text for text in known if text in str(error)), str(error).splitlines()[0])
        raise UserError(f"{folder}: cannot write ({reason}); make room and run the same command again") from None


def write_shard(reader, units, path, sidecar, made_from, advance):
    """Loads `units` in order and writes their records to `path`, then index rows and rejects to `sidecar`.

    Args:
      reader: schema.Reader.
      units: list of schema.Unit; the utterances of one unit are stored in the order of the hash of their ids.
      path, sidecar: files to write, each whole or absent.
      made_from: hash of everything the shard depends on, stored in the sidecar.
      advance: called with the number of utterances done; may raise `Stopped`.

    Raises:
      UserError: the disk is full or the folder cannot be written.
    """
    from array_record.python import array_record_module
    from tensorflow_datasets.core import example_serializer

    features = record_features()
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    rows, rejects = [], []
    with full_disk_is_user_error(path.parent), atomic_path(path) as temporary:
        writer = array_record_module.ArrayRecordWriter(str(temporary), "group_size:1")
        try:
            for unit in units:
                taken, refused = load_unit(reader, unit)
                rejects += refused
                for utterance in taken:
                    record = _record(utterance)
                    example = serializer.serialize_example(features.encode_example(record))
                    with _write_errors(path.parent):
                        writer.write(example)
                    rows.append(_index_row(record))
                if not writer.ok():
                    break  # closing says why
                advance(len(taken) + len(refused))
            with _write_errors(path.parent):
                writer.close()
        finally:
            if writer.is_open():
                with contextlib.suppress(RuntimeError):
                    writer.close()
        stored = array_record_module.ArrayRecordReader(str(temporary))
        count = stored.num_records()
        stored.close()
        if count != len(rows):
            raise UserError(f"{path}: {count} of {len(rows)} records arrived on the disk; run the command again")
        size = temporary.stat().st_size
    ledger = [[_printable(text) for text in (reject.id, reject.path, reject.reason)] for reject in rejects]
    content = {"made_from": made_from, "bytes": size, "rows": rows, "rejects": ledger}
    with full_disk_is_user_error(path.parent):
        write_text(sidecar, json.dumps(content, allow_nan=False))


def load_unit(reader, unit):
    """Loads one unit. Returns (list of Utterance ordered by the hash of their ids, list of Reject)."""
    taken, refused, sources = [], [], {}
    try:
        for item in reader.load(unit):
            if isinstance(item, Reject):
                refused.append(item)
                continue
            reason = _fault(item)
            if reason is None and item.id in sources:
                reason = f"duplicate id (first: {sources[item.id]})"
            sources.setdefault(item.id, item.source)
            if reason:
                refused.append(Reject(item.id, item.source, reason))
            else:
                taken.append(item)
    except BadAudio as error:
        if unit.count != 1 or taken or refused:
            error.add_note(f"while loading {unit.path}: a unit of several utterances must yield rejects instead")
            raise
        refused.append(Reject(unit.key, unit.path, str(error)))
    except Exception as error:
        error.add_note(f"while loading {unit.path}")
        raise
    if unit.count and len(taken) + len(refused) != unit.count:
        raise AssertionError(f"{unit.path}: {unit.count} planned, {len(taken)} loaded and {len(refused)} refused")
    return sorted(taken, key=lambda utterance: unit_hash(utterance.id)), refused


def _fault(utterance):
    if utterance.speech.dtype != np.int16 or utterance.speech.ndim != 1:
        raise AssertionError(f"{utterance.id}: speech is {utterance.speech.dtype} {utterance.speech.shape}")
    for field in TEXT_FIELDS:
        try:
            getattr(utterance, field).encode("utf-8")
        except UnicodeEncodeError:
            return f"{field} is not valid Unicode"
    try:
        audio.check(utterance.speech)
    except BadAudio as error:
        return str(error)
    return check_labels(utterance)


def _record(utterance):
    record = {field: getattr(utterance, field) for field in (*TEXT_FIELDS, *NUMBER_FIELDS, "speech")}
    record["phones"] = [{"label": label, "start": start, "end": end} for label, start, end in utterance.phones]
    record["extra"] = json.dumps(utterance.extra, sort_keys=True, allow_nan=False)
    return record


def _index_row(record):
    row = {field: record[field] for field in (*TEXT_FIELDS, "extra")}
    for field in NUMBER_FIELDS:
        value = float(np.float32(record[field]))
        row[field] = None if np.isnan(value) else value
    row["num_samples"] = len(record["speech"])
    row["audio_sha256"] = hashlib.sha256(record["speech"].astype("<i2").tobytes()).hexdigest()
    content = {key: value for key, value in row.items() if key not in ("corpus", "source")}
    phones = [[phone["label"], int(phone["start"]), int(phone["end"])] for phone in record["phones"]]
    row["content_hash"] = canonical_hash({**content, "phones": phones})
    return row


def _printable(text):
    """One line of valid Unicode: file names may hold bytes that are not."""
    return " ".join(text.encode("utf-8", "backslashreplace").decode("utf-8").split())
