"""Reads a prepared corpus: random access to its records, without JAX and without TensorFlow."""

import json
import os
from pathlib import Path

import numpy as np
from tensorflow_datasets.proto import tf_example_pb2

from ser_jax.corpora.schema import NUMBER_FIELDS, TEXT_FIELDS, Utterance
from ser_jax.errors import UserError
from ser_jax.files import read_json

FORMAT = 1

# Resolved here and not where it is used: TFDS imports its parts at first use, behind locks of its own, and Grain's reader
# threads, all asking at the same moment, then wait for each other for ever.
Example = tf_example_pb2.Example


class PreparedCorpus:
    """The records of a prepared corpus, in their stored order.

    Picklable and safe to use in several processes and threads: files are opened when first read in each process.

    Args:
      path: folder written by `ser-jax prepare`.

    Attributes:
      path: Path of the folder.
      name: corpus name.
      fingerprint: hash of ids, audio and labels of all records.
      info: content of `prepared.json`.

    Raises:
      UserError: the folder is not a (complete) prepared corpus.
    """

    def __init__(self, path):
        self.path = Path(path)
        try:
            self.info = read_json(self.path / "prepared.json")
        except FileNotFoundError:
            started = (self.path / ".prepare").exists()
            state = "is not complete: run its `ser-jax prepare` again" if started else "is not a prepared corpus"
            raise UserError(f"{self.path} {state} (no prepared.json)") from None
        if self.info.get("format") != FORMAT:
            raise UserError(f"{self.path}: format {self.info.get('format')} of another ser_jax; prepare it again")
        self.name = self.info["name"]
        self.fingerprint = self.info["fingerprint"]
        self._ends = np.cumsum(self.info["shard_lengths"])
        self._readers, self._pid, self._index = {}, None, None

    def __getstate__(self):
        return {**self.__dict__, "_readers": {}, "_pid": None, "_index": None}

    def __len__(self):
        return int(self._ends[-1])

    def __repr__(self):
        return f"PreparedCorpus({str(self.path)!r}, {self.name}, {len(self)} utterances, {self.fingerprint})"

    @property
    def index(self):
        """pandas.DataFrame, row i describes record i: labels, `extra` (JSON), shard, row, num_samples, audio_sha256."""
        if self._index is None:
            import pandas

            self._index = pandas.read_parquet(self.path / "index.parquet")
        return self._index

    def speech(self, i):
        """Speech of record i: int16[T], 16 kHz, read only."""
        return np.frombuffer(self._features(i)["speech"].bytes_list.value[0], np.dtype("<i2"))

    def record(self, i):
        """Record i as an `Utterance`."""
        features = self._features(i)
        fields = {field: features[field].bytes_list.value[0].decode("utf-8") for field in TEXT_FIELDS}
        fields |= {field: features[field].float_list.value[0] for field in NUMBER_FIELDS}
        labels = [label.decode("utf-8") for label in features["phones/label"].bytes_list.value]
        spans = (features[f"phones/{side}"].int64_list.value for side in ("start", "end"))
        speech = np.frombuffer(features["speech"].bytes_list.value[0], np.dtype("<i2"))
        extra = json.loads(features["extra"].bytes_list.value[0])
        return Utterance(speech=speech, phones=list(zip(labels, *spans, strict=True)), extra=extra, **fields)

    def _features(self, i):
        if not 0 <= i < len(self):
            raise IndexError(f"record {i} of {len(self)} in {self.path}")
        shard = int(np.searchsorted(self._ends, i, side="right"))
        row = int(i) - int(self._ends[shard - 1] if shard else 0)
        return Example.FromString(self._reader(shard).read([row])[0]).features.feature

    def _reader(self, shard):
        if self._pid != os.getpid():  # a forked process must not share the readers' threads and file positions
            self._readers, self._pid = {}, os.getpid()
        reader = self._readers.get(shard)
        if reader is None:
            from array_record.python import array_record_module

            shards = sorted(self.path.glob("*.array_record-*"))
            if len(shards) != len(self._ends):
                raise UserError(f"{self.path}: {len(shards)} of {len(self._ends)} shards are there; prepare it again")
            reader = array_record_module.ArrayRecordReader(str(shards[shard]), "readahead_buffer_size:0")
            self._readers[shard] = reader
        return reader  # not from the dict: another thread may just have emptied it
