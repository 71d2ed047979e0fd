"""VCTK (Veaux, Yamagishi and MacDonald; doi:10.7488/ds/2645), releases 0.80 and 0.92: tree, archive or TFDS."""

import functools
import sys
from pathlib import Path

import numpy as np

from ser_jax.corpora import archives, audio
from ser_jax.corpora.schema import BadAudio, Reject, Unit, Utterance
from ser_jax.corpora.tfds_official import OfficialBuilder, to_int16
from ser_jax.errors import UsageError, UserError
from ser_jax.files import canonical_hash

URL = "https://datashare.is.ed.ac.uk/bitstream/handle/10283/3443/VCTK-Corpus-0.92.zip"
ROOTS = ("VCTK-Corpus-0.92", "VCTK-Corpus")
# Release: folder of the sound, end of a file name by microphone.
FOLDERS = {"0.92": ("wav48_silence_trimmed", {"1": "_mic1.flac", "2": "_mic2.flac"}), "0.80": ("wav48", {"1": ".wav"})}
GENDERS = {"F": "female", "M": "male"}
RATE = 48_000  # of every file, and of what the official builder gives


class Vctk:
    """Reads VCTK, whole or some of its speakers: one record for each recording of one microphone.

    Records: id = "p225_001" (of either microphone), speaker_id = "p225", gender from speaker-info.txt, text as in its
    file, "" where there is none (speaker p315). No official split and no session: both empty. extra: accent, age,
    region and comments of the speaker as far as speaker-info.txt tells, microphone.

    Args:
      source: via="tree": the folder that holds `speaker-info.txt`, its parent, or the original archive
        (`VCTK-Corpus-0.92.zip`, `VCTK-Corpus.tar.gz`) or a folder that has it. via="tfds": a TFDS data folder or the
        folder of one version, prepared earlier, or a folder with the original archive of 0.92, from which the official
        builder is run. Both give equal records but for `source`.
      via: "tree" or "tfds".
      mic: microphone, "1" (omni-directional) or "2" (0.92 only, without speakers p280 and p315).
      scratch: where the archive is unpacked (and the official builder writes); None: `unpacked/` beside the archive
        (the verb prepare says: beside the output).
    """

    name = "vctk"
    language = "en"
    licence = "CC BY 4.0 (release 0.92; 0.80: ODC-By 1.0)"
    synthetic = False

    def __init__(self, source, via="tree", mic="1", scratch=None):
        if via not in ("tree", "tfds"):
            raise UsageError(f"vctk: via={via!r} is not known; use tree or tfds")
        if str(mic) not in ("1", "2"):
            raise UsageError(f"vctk: mic={mic!r} is not known; use 1 or 2")
        if source is None:
            raise UsageError("vctk: say with --source where the corpus or its archive is")
        self.source, self.via, self.mic, self.scratch = Path(source), via, str(mic), scratch
        if not self.source.exists():
            raise UserError(f"{self.source}: no such file or folder; --source is the VCTK folder or archive")
        if via == "tfds":
            config = f"mic{mic}"
            self._official = OfficialBuilder(self.name, config, self.source, [URL], scratch, build_config=config)

    def options(self):
        return {"via": self.via, "mic": self.mic}

    def units(self):
        """One unit per recording (per shard with via="tfds"); tells on stderr what is missing.

        Raises:
          UserError: the source holds no VCTK, or not this microphone.
        """
        if self.via == "tfds":
            return self._official.units(["train"])
        folder, end = self._sound
        recordings = {path.name.removesuffix(end): path for path in sorted((self._root / folder).glob(f"*/*{end}"))
                      if not path.name.startswith(".")}
        if not recordings:
            raise UserError(f"{self._root / folder}: no recording like p225/p225_001{end}")
        texts = {path.stem: path for path in (self._root / "txt").glob("*/*.txt") if not path.name.startswith(".")}
        facts = {speaker: canonical_hash(fields) for speaker, fields in self._speakers.items()}
        units = []
        for identity, path in recordings.items():
            text = archives.size_and_time(texts[identity]) if identity in texts else "absent"
            stamp = f"{archives.size_and_time(path)}/{text}/{facts.get(path.parent.name, '')}"
            units.append(Unit(key=identity, path=path.relative_to(self._root).as_posix(), stamp=stamp))
        self._tell(recordings, texts)
        return units

    def load(self, unit):
        """The utterance of `unit`, or the utterances of a shard of the official builder."""
        if self.via == "tfds":
            yield from self._load_official(unit)
            return
        path = self._root / unit.path
        text = self._root / "txt" / path.parent.name / f"{unit.key}.txt"
        words = text.read_text(encoding="utf-8", errors="replace").strip() if text.exists() else ""
        yield self._utterance(unit.key, unit.path, audio.read(path), words, path.parent.name, self._speakers)

    def _utterance(self, identity, place, speech, text, speaker, speakers):
        fields = speakers.get(speaker, {})
        gender = GENDERS.get(fields.get("gender"), "")
        extra = {key: value for key, value in fields.items() if key != "gender"}
        return Utterance(id=identity, corpus=self.name, source=place, speech=speech, text=text, speaker_id=speaker,
                         gender=gender, language=self.language, extra={**extra, "microphone": int(self.mic)})

    def _load_official(self, unit):
        speakers = parse_speakers(self._official.metadata()["speaker_info"])
        names = self._official.class_names("speaker")
        for example in self._official.examples(unit):
            identity, text = example["id"].decode("utf-8"), example["text"].decode("utf-8")
            place = f"{unit.path}#{identity}"
            try:
                speech = audio.resample(to_int16(example["speech"]).astype(np.float32) / 32768, RATE)
            except BadAudio as error:
                yield Reject(identity, place, str(error))
                continue
            yield self._utterance(identity, place, speech, text, names[int(example["speaker"])], speakers)

    @functools.cached_property
    def _root(self):
        source = self.source
        if source.is_dir() and not _trees(source):
            found = archives.find(source, ROOTS)
            if len(found) > 1:
                names = ", ".join(path.name for path in found.values())
                raise UserError(f"{source}: holds {names}; name one as --source")
            source = next(iter(found.values()), source)
        if source.is_file():
            if archives.stem(source) is None:
                raise UserError(f"{source}: neither a folder nor an archive ({', '.join(archives.SUFFIXES)})")
            source = archives.unpack(source, archives.scratch_for(source, self.scratch))
        found = _trees(source)
        if len(found) > 1:
            raise UserError(f"{source}: holds {', '.join(root.name for root in found)}; name one as --source")
        if not found:
            raise UserError(f"{self.source}: no VCTK found (expected wav48_silence_trimmed/ or wav48/ beside txt/, or "
                            "the archive VCTK-Corpus-0.92.zip or VCTK-Corpus.tar.gz)")
        return found[0]

    @functools.cached_property
    def _sound(self):
        """(folder of the sound, end of the names of its files)."""
        release = _release(self._root)
        folder, ends = FOLDERS[release]
        if self.mic not in ends:
            raise UserError(f"{self._root}: release {release} has one microphone; leave out the option mic")
        return folder, ends[self.mic]

    @functools.cached_property
    def _speakers(self):
        path = self._root / "speaker-info.txt"
        return parse_speakers(path.read_text(encoding="utf-8-sig", errors="replace")) if path.exists() else {}

    def _tell(self, recordings, texts):
        untold = {path.parent.name for path in recordings.values()} - set(self._speakers)
        names = ", ".join(sorted(untold))
        messages = [(len(untold), f"speakers are not in speaker-info.txt, their gender is unknown: {names}"),
                    (len(recordings.keys() - texts.keys()), "recordings have no text; it is left empty"),
                    (len(texts.keys() - recordings.keys()), f"texts have no recording of microphone {self.mic}")]
        for count, message in messages:
            if count:
                print(f"vctk: {count} {message}", file=sys.stderr)


def parse_speakers(text):
    """{speaker: {"age", "gender", "accent", "region", "comments"}} of lines `p225  23  F  English  Southern  England`.

    The first line names the columns. Release 0.80 leaves out the p of "p225". Comments stand in parentheses. What a
    line does not tell is left out.
    """
    speakers = {}
    for line in text.split("\n")[1:]:
        facts, _, comments = line.partition("(")
        fields = facts.split()
        if len(fields) >= 3:
            speaker = f"p{fields[0]}" if fields[0].isdecimal() else fields[0]
            told = {"age": int(fields[1]) if fields[1].isdecimal() else "", "gender": fields[2],
                    "accent": "".join(fields[3:4]), "region": " ".join(fields[4:]),
                    "comments": comments.strip().removesuffix(")")}
            speakers[speaker] = {key: value for key, value in told.items() if value != ""}
    return speakers


def _release(folder):
    """Key of FOLDERS, or None where the folder is no VCTK."""
    return next((release for release, (sound, _) in FOLDERS.items() if (folder / sound).is_dir()), None)


def _trees(folder):
    return [root for root in (folder, *(folder / name for name in ROOTS)) if _release(root)]
