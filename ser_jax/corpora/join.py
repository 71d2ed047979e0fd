"""Joins the shards of a finished run into a prepared corpus: checks, index, ledger, TFDS metadata, `prepared.json`."""

import collections
import csv
import platform
import re
from importlib import metadata

import soundfile

from ser_jax import __version__
from ser_jax.corpora.schema import NUMBER_FIELDS, SAMPLE_RATE, TEXT_FIELDS
from ser_jax.corpora.shards import SPLIT, record_features, tfds_name
from ser_jax.errors import UserError
from ser_jax.files import atomic_path, canonical_hash, write_json


def join(reader, out, source, facts, plan, jobs, max_rejects):
    """Joins the sidecars, checks the whole, writes index, ledger, TFDS metadata and, last, `prepared.json`."""
    contents = [job.content() for job in jobs]
    if None in contents:
        raise UserError(f"{out}: shards vanished while preparing; run the same command again")
    rows = [{**row, "shard": shard, "row": number}
            for shard, content in enumerate(contents) for number, row in enumerate(content["rows"])]
    rejects = sorted(reject for content in contents for reject in content["rejects"])
    counts = {"in": len(rows) + len(rejects), "out": len(rows), "rejects": len(rejects)}
    planned = [unit.count for job in jobs for unit in job.units]
    assert 0 in planned or counts["in"] == sum(planned), (counts, sum(planned))
    _write_rejects(out / "rejects.csv", rejects)
    _check_unique(rows)
    reasons = collections.Counter(re.split(r": | \(", reason)[0] for _, _, reason in rejects)
    if not rows or len(rejects) > max_rejects * counts["in"]:
        reason, times = reasons.most_common(1)[0] if reasons else ("nothing to read", 0)
        raise UserError(f"{len(rejects)} of {counts['in']} utterances refused, more than --max-rejects {max_rejects:g} "
                        f"({times} times: {reason}); see {out / 'rejects.csv'}")
    _write_index(out / "index.parquet", rows)
    _write_tfds_metadata(out, reader, contents)
    info = {**facts, "plan": plan, "source": "" if source is None else str(source), "counts": counts,
            "fingerprint": canonical_hash(sorted([row["id"], row["content_hash"]] for row in rows)),
            "shard_lengths": [len(content["rows"]) for content in contents],
            "seconds": sum(row["num_samples"] for row in rows) / SAMPLE_RATE,
            "speakers": len({row["speaker_id"] for row in rows} - {""}),
            "genders": dict(sorted(collections.Counter(row["gender"] for row in rows).items())),
            "reject_reasons": dict(sorted(reasons.items())), "versions": _versions()}
    write_json(out / "prepared.json", info)
    return info


def _write_rejects(path, rejects):
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("id", "path", "reason"), *rejects])


def _check_unique(rows):
    first = {}
    for row in rows:
        if row["id"] in first:
            raise UserError(f"two utterances with the id {row['id']!r}: {first[row['id']]} and {row['source']}; "
                            "remove one of them from the source")
        first[row["id"]] = row["source"]


def _write_index(path, rows):
    import pyarrow
    from pyarrow import parquet

    kinds = {**dict.fromkeys(TEXT_FIELDS, pyarrow.string()), **dict.fromkeys(NUMBER_FIELDS, pyarrow.float32()),
             "extra": pyarrow.string(), "shard": pyarrow.int32(), "row": pyarrow.int32(),
             "num_samples": pyarrow.int64(), "audio_sha256": pyarrow.string()}
    columns = {name: pyarrow.array([row[name] for row in rows], kind) for name, kind in kinds.items()}
    with atomic_path(path) as temporary:
        parquet.write_table(pyarrow.table(columns), temporary)


def _write_tfds_metadata(out, reader, contents):
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(dataset_name=tfds_name(reader.name), data_dir=out, split=SPLIT,
                                             filetype_suffix="array_record")
    split = tfds.core.SplitInfo(name=SPLIT, shard_lengths=[len(content["rows"]) for content in contents],
                                num_bytes=sum(content["bytes"] for content in contents), filename_template=template)
    tfds.folder_dataset.write_metadata(
        data_dir=out, features=record_features(), split_infos=[split], version="1.0.0", check_data=False,
        description=f"{reader.name}, 16 kHz mono, prepared by ser_jax {__version__}")


def _versions():
    packages = ("numpy", "soundfile", "soxr", "tensorflow-datasets", "array-record")
    return {"ser_jax": __version__, "python": platform.python_version(), "libsndfile": soundfile.__libsndfile_version__,
            **{package: metadata.version(package) for package in packages}}
