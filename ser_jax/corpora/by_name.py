"""Readers of corpora whose labels stand in the names of the audio files: one file, one utterance."""

import functools
from pathlib import Path

import numpy as np

from ser_jax.corpora import archives, audio
from ser_jax.corpora.schema import BadAudio, Reject, Unit, Utterance
from ser_jax.corpora.tfds_official import to_int16
from ser_jax.errors import UsageError, UserError

TFDS_SPLITS = ("train", "validation", "test")


class BadName(Exception):
    """A file whose name (or place) does not tell what it should; the message is the reason in the ledger."""


class ByName:
    """Base of such readers. A subclass has the facts of `schema.Reader` and says what a name means.

    Attributes:
      ARCHIVES: names without suffix under which the corpus is handed out, looked for in a folder without audio.
      EXPECTED: what to look for, in the message for a folder that is something else.

    Args:
      source: folder of the corpus, however deep its audio lies, or its archive.
      scratch: where an archive is unpacked; None: `unpacked/` beside it (the verb prepare says: beside the output).
    """

    ARCHIVES = ()
    EXPECTED = ""

    def __init__(self, source, scratch=None):
        if source is None:
            raise UsageError(f"{self.name} needs --source: the folder with {self.EXPECTED}")
        self.source, self.scratch = Path(source), scratch
        if not self.source.exists():
            raise UserError(f"{self.source}: no such file or folder; --source is the folder with {self.EXPECTED}")
        self._first_path = {}

    def describe(self, path):
        """{field: value} of the utterance in `path`, with its `id`. Raises `BadName`."""
        raise NotImplementedError

    def options(self):
        return {}

    def units(self):
        """One unit per audio file; other files, and hidden ones, are no part of the corpus.

        Raises:
          UserError: no file has a name of this corpus.
        """
        units, self._first_path, known = [], {}, 0
        for path in self._files():
            relative = path.relative_to(self._root).as_posix()
            try:
                identity = self.describe(path)["id"]
                known += 1
            except BadName:
                identity = relative
            first = self._first_path.setdefault(identity, relative)
            units.append(Unit(identity if first == relative else relative, relative, 1, archives.size_and_time(path)))
        if not known:
            raise UserError(f"{self.source}: no {self.name} in this folder (expected {self.EXPECTED})")
        return units

    def load(self, unit):
        path = self._root / unit.path
        try:
            fields = self.describe(path)
        except BadName as error:
            yield Reject(unit.key, unit.path, str(error))
            return
        first = self._first_path.get(fields["id"], unit.path)
        if first != unit.path:
            yield Reject(unit.key, unit.path, f"same name twice in the source (first: {first})")
            return
        yield Utterance(corpus=self.name, source=unit.path, speech=audio.read(path), language=self.language, **fields)

    def _files(self):
        return audio.files_below(self._root)

    @functools.cached_property
    def _root(self):
        source = self.source
        if source.is_dir() and self.ARCHIVES and not audio.files_below(source):
            source = next(iter(archives.find(source, self.ARCHIVES).values()), source)
        if source.is_file():
            if archives.stem(source) is None:
                raise UserError(f"{source}: neither a folder nor an archive ({', '.join(archives.SUFFIXES)})")
            source = archives.unpack(source, archives.scratch_for(source, self.scratch))
        return source


class ByNameOrTfds(ByName):
    """A corpus that the official TFDS builder gives, too: sound, label and speaker, without the names of the files.

    Records of via="tfds" have therefore another id (`<split>-<shard>-<number>`), a split (that of TFDS, by speaker)
    and nothing that only a name tells; sound, speaker, gender and emotion are those of via="tree".

    Attributes:
      RATE: sample rate of the official builder, in Hz.
      LABELS: {label of TFDS: emotion}.
      SPEAKERS: {speaker: gender}.

    Args:
      source: via="tree": as for `ByName`. via="tfds": a TFDS data folder or the folder of one version, prepared
        earlier, or a folder with what the official builder needs, which is then run.
      via: "tree" or "tfds".
      scratch: as for `ByName`; the official builder writes there, too.
    """

    RATE = 0
    LABELS = {}
    SPEAKERS = {}

    def __init__(self, source, via="tree", scratch=None):
        if via not in ("tree", "tfds"):
            raise UsageError(f"{self.name}: via={via!r} is not known; use tree or tfds")
        super().__init__(source, scratch)
        self.via = via
        if via == "tfds":
            self._official = self.official()

    def official(self):
        """The `OfficialBuilder` on the source."""
        raise NotImplementedError

    def options(self):
        return {"via": self.via}

    def units(self):
        return self._official.units(TFDS_SPLITS) if self.via == "tfds" else super().units()

    def load(self, unit):
        yield from self._load_official(unit) if self.via == "tfds" else super().load(unit)

    def _load_official(self, unit):
        split, shard = unit.key.split("#")
        names = self._official.class_names("label")
        for number, example in enumerate(self._official.examples(unit)):
            identity = f"{split}-{int(shard):05d}-{number:05d}"
            speaker = example["speaker_id"].decode("utf-8")
            try:
                speech = audio.resample(to_int16(example["audio"]).astype(np.float32) / 32768, self.RATE)
            except BadAudio as error:
                yield Reject(identity, f"{unit.path}#{identity}", str(error))
                continue
            yield Utterance(
                id=identity, corpus=self.name, source=f"{unit.path}#{identity}", speech=speech, speaker_id=speaker,
                gender=self.SPEAKERS.get(speaker, ""), emotion=self.LABELS[names[int(example["label"])]], split=split,
                language=self.language)


def code(table, key, what):
    """`table[key]`; raises `BadName` that says what `key` stands for."""
    if key not in table:
        raise BadName(f"unknown {what} {key!r} in the name")
    return table[key]
