"""LibriSpeech (Panayotov et al., ICASSP 2015; openslr.org/12): official tree, archives or official TFDS builder."""

import functools
import sys
from pathlib import Path

from ser_jax.corpora import archives, audio
from ser_jax.corpora.schema import BadAudio, Reject, Unit, Utterance
from ser_jax.corpora.tfds_official import OfficialBuilder, to_int16
from ser_jax.errors import UsageError, UserError

OFFICIAL = ("dev-clean", "dev-other", "test-clean", "test-other",
            "train-clean-100", "train-clean-360", "train-other-500")
MINI = ("dev-clean-2", "train-clean-5")  # openslr.org/31, same layout
TFDS_SPLITS = {name.replace("-", "_", 1).replace("-", ""): name for name in OFFICIAL}
GENDERS = {"F": "female", "M": "male"}


class LibriSpeech:
    """Reads LibriSpeech, whole or in part.

    Records: id = official utterance id, speaker_id = reader, session = chapter, split = subset, text as in the
    transcript file ("" for chapters without one), gender from SPEAKERS.TXT.

    Args:
      source: via="tree": the folder that contains `LibriSpeech/`, that folder itself, one original archive
        (`train-clean-100.tar.gz`) or a folder of them. via="tfds": a TFDS data folder or the folder of one version,
        prepared earlier, or a folder with all seven original archives, from which the official builder is run.
      via: "tree" or "tfds". Both give equal id, speech, text, speaker_id, gender, session and split; the official
        builder leaves out utterances without transcript and does not tell the file, so `source` differs.
      subsets: e.g. "train-clean-100,dev-clean" or a tuple; None takes all that is there.
      scratch: where archives are unpacked (and the official builder writes); None: `unpacked/` beside the archives
        (the verb prepare says: beside the output).
    """

    name = "librispeech"
    language = "en"
    licence = "CC BY 4.0"
    synthetic = False

    def __init__(self, source, via="tree", subsets=None, scratch=None):
        if via not in ("tree", "tfds"):
            raise UsageError(f"librispeech: via={via!r} is not known; use tree or tfds")
        if source is None:
            raise UsageError("librispeech: say with --source where the corpus or its archives are")
        self.source, self.via = Path(source), via
        self.subsets = tuple(subsets.replace(" ", "").split(",")) if isinstance(subsets, str) else subsets
        self.scratch = scratch
        if not self.source.exists():
            raise UserError(f"{self.source}: no such file or folder; --source is the LibriSpeech folder or archive")
        if via == "tfds":
            urls = {split: f"http://www.openslr.org/resources/12/{name}.tar.gz" for split, name in TFDS_SPLITS.items()}
            self._official = OfficialBuilder(self.name, None, self.source, list(urls.values()), scratch)

    def options(self):
        return {"via": self.via, "subsets": sorted(self.subsets) if self.subsets else None}

    def units(self):
        """One unit per utterance (per shard with via="tfds").

        Raises:
          UserError: the source holds no LibriSpeech, or not a subset that was asked for.
        """
        if self.via == "tfds":
            self._check_subsets(TFDS_SPLITS.values())
            wanted = [split for split, name in TFDS_SPLITS.items() if not self.subsets or name in self.subsets]
            return self._official.units(wanted)
        subsets = self._subset_folders
        self._check_subsets(subsets)
        speakers = self._speakers
        units = []
        for name, folder in subsets.items():
            if not self.subsets or name in self.subsets:
                for chapter in sorted(folder.glob("[0-9]*/[0-9]*")):
                    units.extend(_chapter_units(chapter, speakers))
        if not units:
            raise UserError(f"{self.source}: no utterance found under {', '.join(subsets)}")
        self._warn_unknown_genders(units)
        return units

    def load(self, unit):
        """The utterance of `unit`, or the utterances of a shard of the official builder."""
        if self.via == "tfds":
            yield from self._load_official(unit)
            return
        reader, chapter, _ = unit.path.split("/")[-3:]
        subset = unit.path.split("/")[0]
        path = self._subset_folders[subset].parent / unit.path
        if not path.exists():
            yield Reject(unit.key, unit.path, "missing file (its transcript is there)")
            return
        transcripts = read_transcripts(path.parent)
        yield Utterance(
            id=unit.key, corpus=self.name, source=unit.path, speech=audio.read(path),
            text=transcripts.get(unit.key, ""), speaker_id=reader, gender=self._speakers.get(reader, ""),
            session=chapter, split=subset, language=self.language)

    @functools.cached_property
    def _roots(self):
        if self.source.is_file():
            if archives.stem(self.source) is None:
                raise UserError(f"{self.source}: neither a folder nor an archive ({', '.join(archives.SUFFIXES)})")
            found = [self.source]
        else:
            tree = self.source / "LibriSpeech"
            if tree.is_dir():
                return [tree]
            if _subset_folders(self.source):
                return [self.source]
            by_name = archives.find(self.source, OFFICIAL + MINI)
            if by_name:
                self._check_subsets(by_name)
            found = [path for name, path in by_name.items() if not self.subsets or name in self.subsets]
        scratch = archives.scratch_for(self.source, self.scratch)
        return [archives.unpack(path, scratch) / "LibriSpeech" for path in found]

    @functools.cached_property
    def _subset_folders(self):
        found = {}
        for root in self._roots:
            found.update(_subset_folders(root))
        if not found:
            raise UserError(f"{self.source}: no LibriSpeech found (expected LibriSpeech/<subset>/<reader>/<chapter>/ "
                            "or archives such as train-clean-100.tar.gz)")
        return found

    @functools.cached_property
    def _speakers(self):
        genders = {}
        for root in self._roots:
            path = root / "SPEAKERS.TXT"
            if path.exists():
                genders.update(parse_speakers(path.read_text(encoding="utf-8-sig", errors="replace"), path))
        return genders

    def _check_subsets(self, known):
        for name in self.subsets or ():
            if name not in known:
                raise UserError(f"{self.source}: no subset {name!r}; there is {', '.join(known)}")

    def _warn_unknown_genders(self, units):
        readers = {unit.path.split("/")[1] for unit in units}
        unknown = sum(not self._speakers.get(reader) for reader in readers)
        if unknown:
            missing = "" if self._speakers else " (SPEAKERS.TXT is missing or empty)"
            print(f"librispeech: gender unknown for {unknown} of {len(readers)} readers{missing}", file=sys.stderr)

    def _load_official(self, unit):
        split, _ = unit.key.split("#")
        speakers = {str(key): value["gender"] for key, value in self._official.metadata()["speakers"].items()}
        for example in self._official.examples(unit):
            speaker = str(int(example["speaker_id"]))
            identity = example["id"].decode("utf-8")
            place = f"{unit.path}#{identity}"
            try:
                speech = to_int16(example["speech"])
            except BadAudio as error:
                yield Reject(identity, place, str(error))
                continue
            yield Utterance(
                id=identity, corpus=self.name, source=place, speech=speech, text=example["text"].decode("utf-8"),
                speaker_id=speaker, gender=GENDERS.get(speakers.get(speaker), ""),
                session=str(int(example["chapter_id"])), split=TFDS_SPLITS[split], language=self.language)


def parse_speakers(text, path="SPEAKERS.TXT"):
    """{reader id: "female", "male" or ""} from the lines `id | sex | subset | minutes | name`.

    Lines that begin with ';' are comments; the name may hold any character, '|' and ';' included.
    """
    genders = {}
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line or line.startswith(";"):
            continue
        fields = [field.strip() for field in line.split("|", 4)]
        if len(fields) < 2 or not fields[0].isdecimal():
            raise UserError(f"{path}: line {number} is not `id | sex | subset | minutes | name`: {line[:60]!r}")
        genders[str(int(fields[0]))] = GENDERS.get(fields[1].upper(), "")
    return genders


def parse_transcripts(text, path="trans.txt"):
    """{utterance id: transcript} from the lines `id WORDS OF THE UTTERANCE`; an id alone has the transcript ""."""
    transcripts = {}
    for line in text.split("\n"):
        identity, _, words = line.strip().partition(" ")
        if identity in transcripts:
            raise UserError(f"{path}: {identity} is there twice")
        if identity:
            transcripts[identity] = words
    return transcripts


def read_transcripts(chapter):
    """Transcripts of one chapter folder, {} where it has none."""
    transcripts = {}
    for path in sorted(chapter.glob("*.trans.txt")):
        try:
            transcripts.update(parse_transcripts(path.read_text(encoding="utf-8"), path))
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 ({error.reason} at byte {error.start})") from error
    return transcripts


def _subset_folders(root):
    """{subset: folder} of the folders that hold reader folders (which are named by a number)."""
    if not root.is_dir():
        return {}
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    return {folder.name: folder for folder in folders if any(folder.glob("[0-9]*/[0-9]*/"))}


def _chapter_units(chapter, speakers):
    place = "/".join(chapter.parts[-3:])
    files = {path.stem: path for path in chapter.glob("*.flac")}
    labels = "+".join(archives.size_and_time(path) for path in sorted(chapter.glob("*.trans.txt")))
    gender = speakers.get(chapter.parts[-2], "")
    for identity in sorted({*files, *read_transcripts(chapter)}):
        stamp = archives.size_and_time(files[identity]) if identity in files else "absent"
        yield Unit(key=identity, path=f"{place}/{identity}.flac", stamp=f"{stamp}/{labels}/{gender}")
