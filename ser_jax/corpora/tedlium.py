"""TED-LIUM 1 to 3 (Rousseau et al., LREC 2012 and 2014; Hernandez et al., SPECOM 2018): tree, archive or TFDS."""

import dataclasses
import functools
import hashlib
import math
import re
import sys
from pathlib import Path

import numpy as np

from ser_jax.corpora import archives, audio
from ser_jax.corpora.schema import SAMPLE_RATE, BadAudio, Reject, Unit, Utterance
from ser_jax.corpora.tfds_official import OfficialBuilder, to_int16
from ser_jax.errors import UsageError, UserError

ROOTS = {"1": "TEDLIUM_release1", "2": "TEDLIUM_release2", "3": "TEDLIUM_release-3"}
URLS = {"1": "http://www.openslr.org/resources/7/TEDLIUM_release1.tar.gz",
        "2": "http://www.openslr.org/resources/19/TEDLIUM_release2.tar.gz",
        "3": "http://www.openslr.org/resources/51/TEDLIUM_release-3.tgz"}
TFDS_SPLITS = {"train": "train", "validation": "dev", "test": "test"}
GENDERS = {"female": "female", "F": "female", "male": "male", "M": "male"}
GAP = "ignore_time_segment_in_scoring"


class Tedlium:
    """Reads TED-LIUM, whole or in part. One unit is one talk, decoded once; its segments are cut from the signal.

    Records agree with the official TFDS builder (id, speech, text, speaker_id, gender, split): id =
    `speaker-start-end-label` as written in the stm file, segment bounds are truncated to milliseconds, and the gaps
    between segments that dev and test list (speaker `inter_segment_gap`, text `ignore_time_segment_in_scoring`) are
    records too, unless gaps="drop". session = talk (not told by the TFDS builder: empty there).

    Args:
      source: via="tree": the folder that contains `TEDLIUM_release2/`, that folder itself, or the original archive (or
        a folder that has it). via="tfds": a TFDS data folder or the folder of one version, prepared earlier, or a
        folder with the original archive, from which the official builder is run (Beam, in this process, which keeps
        the whole corpus in memory: for the full corpus use via="tree", or a TFDS folder built elsewhere).
      via: "tree" or "tfds".
      release: "1", "2" or "3" (legacy dev and test; train = `data/`, as in TFDS); None: the one that is there.
      gaps: "keep" or "drop".
      talks: only so many of the training talks, those whose names have the smallest sha256, so that fewer are among
        more; 0 = all. Dev and test stay whole. Not with via="tfds", which does not tell the talk.
      scratch: where the archive is unpacked (and the official builder writes); None: `unpacked/` beside the archive
        (the verb prepare says: beside the output).
    """

    name = "tedlium"
    language = "en"
    licence = "CC BY-NC-ND 3.0"
    synthetic = False

    def __init__(self, source, via="tree", release=None, gaps="keep", talks=0, scratch=None):
        if via not in ("tree", "tfds"):
            raise UsageError(f"tedlium: via={via!r} is not known; use tree or tfds")
        if gaps not in ("keep", "drop"):
            raise UsageError(f"tedlium: gaps={gaps!r} is not known; use keep or drop")
        if release is not None and str(release) not in ROOTS:
            raise UsageError(f"tedlium: release={release!r} is not known; use {', '.join(ROOTS)}")
        if talks < 0 or (talks and via == "tfds"):
            raise UsageError(f"tedlium: talks={talks} is a number of training talks, 0 = all; with via=tree alone")
        if source is None:
            raise UsageError("tedlium: say with --source where the corpus or its archive is")
        self.source, self.via, self.gaps, self.talks, self.scratch = Path(source), via, gaps, talks, scratch
        if not self.source.exists():
            raise UserError(f"{self.source}: no such file or folder; give the TED-LIUM folder or archive as --source")
        self.release = str(release) if release is not None else None
        if via == "tfds":
            archive = self._archive()
            wanted = self.release or (archive[0] if archive else "2")
            self._official = OfficialBuilder(
                self.name, f"release{self.release}" if self.release else None, self.source, [URLS[wanted]], scratch,
                build_config=f"release{wanted}")

    def options(self):
        options = {"via": self.via, "release": self.release, "gaps": self.gaps}
        return {**options, "talks": self.talks} if self.talks else options

    def units(self):
        """One unit per talk (per shard with via="tfds").

        Raises:
          UserError: the source holds no TED-LIUM.
        """
        if self.via == "tfds":
            units = self._official.units(TFDS_SPLITS)
            return units if self.gaps == "keep" else [dataclasses.replace(unit, count=0) for unit in units]
        units, silent = [], 0
        for split, folder in self._folders.items():
            transcripts = sorted((self._root / folder / "stm").glob("*.stm"))
            for path in self._chosen(transcripts) if split == "train" else transcripts:
                sph = self._root / folder / "sph" / f"{path.stem}.sph"
                stamp = f"{archives.size_and_time(sph)}/{archives.size_and_time(path)}"
                units.append(Unit(f"{split}/{path.stem}", f"{folder}/sph/{sph.name}", len(self._lines(path)), stamp))
            with_transcript = {path.stem for path in transcripts}
            silent += sum(path.stem not in with_transcript for path in (self._root / folder / "sph").glob("*.sph"))
        if silent:
            print(f"tedlium: {silent} talks have no stm file and therefore no segments", file=sys.stderr)
        if not units:
            raise UserError(f"{self._root}: no stm file under {', '.join(self._folders.values())}")
        return units

    def load(self, unit):
        """Segments of one talk, or of one shard of the official builder."""
        if self.via == "tfds":
            yield from self._load_official(unit)
            return
        split, talk = unit.key.split("/")
        folder = self._root / self._folders[split]
        decoded, speech, problem = None, None, None
        for number, line in self._lines(folder / "stm" / f"{talk}.stm"):
            segment = parse_stm_line(line)
            if segment is None:
                yield Reject(f"{talk}:{number}", unit.path, f"not a stm line: {line[:60]!r}")
                continue
            path = folder / "sph" / f"{segment.talk}.sph"
            if decoded != path:
                decoded, speech, problem = path, *_decode(path)
            place = f"{self._folders[split]}/sph/{path.name}#{segment.start}-{segment.end}"
            if problem or segment.problem:
                yield Reject(segment.id, place, problem or segment.problem)
                continue
            yield Utterance(
                id=segment.id, corpus=self.name, source=place, speech=cut(speech, segment.start, segment.end),
                text=segment.text, speaker_id=segment.speaker, gender=segment.gender, session=segment.talk, split=split,
                language=self.language)

    def _chosen(self, transcripts):
        if len(transcripts) < self.talks:
            raise UserError(f"{self._root}: {len(transcripts)} training talks; lower the option talks={self.talks}")
        by_hash = sorted(transcripts, key=lambda path: hashlib.sha256(path.stem.encode()).hexdigest())
        return sorted(by_hash[:self.talks or None])

    def _lines(self, path):
        """(number, line) of a stm file, without blank lines and NIST comments (`;;`)."""
        try:
            with open(path, encoding="utf-8") as file:
                lines = [(number, line.strip()) for number, line in enumerate(file, 1)]
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from error
        return [(number, line) for number, line in lines
                if line and not line.startswith(";;") and (self.gaps == "keep" or not line.endswith(f" {GAP}"))]

    def _archive(self):
        """(release, path) of the only archive in the source folder (or beside a source file); None without one."""
        wanted = [self.release] if self.release else list(ROOTS)
        folder = self.source.parent if self.source.is_file() else self.source
        found = archives.find(folder, [ROOTS[release] for release in wanted])
        if len(found) > 1:
            raise UserError(f"{self.source}: holds {', '.join(found)}; choose one with the option release")
        return next(((release, found[ROOTS[release]]) for release in wanted if ROOTS[release] in found), None)

    @functools.cached_property
    def _root(self):
        folder = self.source
        if folder.is_file():
            if archives.stem(folder) is None:
                raise UserError(f"{folder}: neither a folder nor an archive ({', '.join(archives.SUFFIXES)})")
            folder = archives.unpack(folder, archives.scratch_for(folder, self.scratch))
        elif not _is_tree(folder) and not any(_is_tree(folder / root) for root in ROOTS.values()):
            archive = self._archive()
            if archive:
                folder = archives.unpack(archive[1], archives.scratch_for(folder, self.scratch))
        if _is_tree(folder):
            return folder
        found = [folder / ROOTS[release] for release in ([self.release] if self.release else ROOTS)]
        found = [root for root in found if _is_tree(root)]
        if len(found) != 1:
            problem = "no TED-LIUM found (expected TEDLIUM_release2/{train,dev,test}/{sph,stm} or its archive)"
            if found:
                problem = f"holds {', '.join(root.name for root in found)}; choose one with the option release"
            raise UserError(f"{self.source}: {problem}")
        return found[0]

    @functools.cached_property
    def _folders(self):
        """{split: folder under the root}."""
        if (self._root / "legacy").is_dir():
            train = "data" if (self._root / "data" / "stm").is_dir() else "legacy/train"
            folders = {"train": train, "dev": "legacy/dev", "test": "legacy/test"}
        else:
            folders = {split: split for split in ("train", "dev", "test")}
        return {split: folder for split, folder in folders.items() if (self._root / folder / "stm").is_dir()}

    def _load_official(self, unit):
        split, _ = unit.key.split("#")
        genders = self._official.class_names("gender")
        for example in self._official.examples(unit):
            identity, text = example["id"].decode("utf-8"), example["text"].decode("utf-8")
            if text == GAP and self.gaps == "drop":
                continue
            gender = int(example["gender"])  # -1: missing
            try:
                speech = to_int16(example["speech"])
            except BadAudio as error:
                yield Reject(identity, f"{unit.path}#{identity}", str(error))
                continue
            yield Utterance(
                id=identity, corpus=self.name, source=f"{unit.path}#{identity}", speech=speech, text=text,
                speaker_id=example["speaker_id"].decode("utf-8"),
                gender=GENDERS.get(genders[gender], "") if gender >= 0 else "", split=TFDS_SPLITS[split],
                language=self.language)


@dataclasses.dataclass(frozen=True)
class Segment:
    """One line of a stm file. start, end: seconds, as written; problem: why it cannot be cut, or ""."""

    talk: str
    speaker: str
    start: str
    end: str
    label: str
    text: str
    problem: str = ""

    @property
    def id(self):
        return f"{self.speaker}-{self.start}-{self.end}-{self.label}"

    @property
    def gender(self):
        """`<o,f0,female>` -> "female", `<F0_M>` -> "male", `<o,,unknown>`, `<NA>` -> ""."""
        return GENDERS.get(re.split("[,_]", self.label)[-1][:-1], "")


def parse_stm_line(line):
    """A `Segment`, or None when the line is not `talk channel speaker start end <label> words`.

    As in TFDS: a last word that begins with '(' is the segment's key in release 1, no part of the text.
    """
    fields = line.split(" ", 6)
    if len(fields) < 6:
        return None
    talk, channel, speaker, start, end, label = fields[:6]
    try:
        bounds = float(start), float(end)
    except ValueError:
        return None
    problem = ""
    if channel != "1":
        problem = f"channel {channel} of a mono file"
    elif not (math.isfinite(bounds[1]) and 0 <= bounds[0] <= bounds[1]):
        problem = f"segment from {start} s to {end} s"
    words = fields[6] if len(fields) > 6 else ""
    first, space, last = words.rpartition(" ")
    if space and last.startswith("("):
        words = first
    return Segment(talk, speaker, start, end, label, words, problem)


def cut(speech, start, end):
    """Samples from `start` to `end` seconds as the official builder cuts them, by way of pydub.

    Bounds are truncated to whole milliseconds and end with the talk, whose length is rounded to milliseconds: at
    most 8 zeros are appended where that goes beyond the last sample.

    Args:
      speech: int16[T], 16 kHz.
      start, end: seconds (numbers or their text).
    """
    per_millisecond = SAMPLE_RATE // 1000
    length = round(1000 * (len(speech) / SAMPLE_RATE))
    first, last = (min(int(float(seconds) * 1000), length) * per_millisecond for seconds in (start, end))
    piece = speech[first:last]
    return np.pad(piece, (0, last - first - len(piece)))


def _is_tree(folder):
    return (folder / "legacy").is_dir() or any((folder / split / "stm").is_dir() for split in ("train", "dev", "test"))


def _decode(path):
    """(speech, "") or (None, reason)."""
    if not path.exists():
        return None, "missing file (its stm line is there)"
    try:
        return audio.read(path), ""
    except BadAudio as error:
        return None, str(error)
