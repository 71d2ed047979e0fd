"""TIMIT (Garofolo et al. 1993; LDC93S1): read English sentences with phones marked by hand.

The lists of speakers are those of the usual phone recognition: the core test set of 24 speakers (doc/testset.doc of the
corpus), and the development set of 50 other speakers of TEST (Halberstadt 1998; Kaldi, egs/timit/s5/conf/dev_spk.list).
"""

import dataclasses
import re
import sys

from ser_jax.corpora import archives
from ser_jax.corpora.by_name import BadName, ByName
from ser_jax.corpora.phones import TRANSCRIBED
from ser_jax.corpora.schema import Reject, Utterance

DEV_SPEAKERS = frozenset(
    "FAKS0 FDAC1 FJEM0 MGWT0 MJAR0 MMDB1 MMDM2 MPDF0 FCMH0 FKMS0 MBDG0 MBWM0 MCSH0 FADG0 FDMS0 FEDW0 MGJF0 MGLB0 MRTK0 "
    "MTAA0 MTDT0 MTHC0 MWJG0 FNMR0 FREW0 FSEM0 MBNS0 MMJR0 MDLS0 MDLF0 MDVC0 MERS0 FMAH0 FDRW0 MRCS0 MRJM4 FCAL1 MMWH0 "
    "FJSJ0 MAJC0 MJSW0 MREB0 FGJD0 FJMG0 MROA0 MTEB0 MJFC0 MRJR0 FMML0 MRWS1".split())
CORE_TEST_SPEAKERS = frozenset(
    "MDAB0 MWBT0 FELC0 MTAS1 MWEW0 FPAS0 MJMP0 MLNT0 FPKT0 MLLL0 MTLS0 FJLM0 MBPM0 MKLT0 FNLP0 MCMJ0 MJDH0 FMGD0 MGRT0 "
    "MNJM0 FDHC0 MJLN0 MPAM0 FMLD0".split())
LISTS = {"dev": DEV_SPEAKERS, "core-test": CORE_TEST_SPEAKERS}
GENDERS = {"F": "female", "M": "male"}
SENTENCE = re.compile(r"(S[AIX]\d+)(\.WAV)?")  # SA1.WAV.wav is a RIFF copy beside the original in some distributions
SPEAKER = re.compile(r"[FM][A-Z]{2,3}\d")
SPLITS = ("TRAIN", "TEST")


class Timit(ByName):
    """Reader of the official tree, `TRAIN/DR1/FCJF0/SX127.WAV` with its `.PHN` and `.TXT`, in upper or lower case.

    Records: id = "FCJF0_SX127", speaker_id = "FCJF0", gender from its first letter, session = dialect region "DR1",
    text from .TXT, phones = the 61 labels of .PHN with their samples, as far as there is audio. split: "train", and of
    TEST "dev" (50 speakers), "core-test" (24 speakers) and "test" (the others). extra: sentence, and how many gaps and
    overlaps the phones have if there are any (a phone ends where the next one starts).

    Args:
      source: folder that holds TRAIN and TEST, however deep, or an archive of it. Audio may be NIST SPHERE, as handed
        out, or RIFF; SPHERE that is compressed by shorten is refused, as libsndfile does not read it.
      sa: keep the dialect sentences SA1 and SA2, which every speaker says. They are left out by default: they would
        make some phones in some contexts far too frequent, and training and test would share sentences.
      scratch: where an archive is unpacked; None: `unpacked/` beside it (the verb prepare says: beside the output).
    """

    name = "timit"
    language = "en"
    licence = "LDC user agreement"
    synthetic = False
    ARCHIVES = ("TIMIT", "timit", "LDC93S1", "timit_LDC93S1")
    EXPECTED = "TRAIN and TEST, with files like TRAIN/DR1/FCJF0/SX127.WAV and .PHN"

    def __init__(self, source, sa=False, scratch=None):
        super().__init__(source, scratch)
        self.sa = sa
        self._listings = {}  # of folders: {NAME IN UPPER CASE: path}

    def options(self):
        return {"sa": self.sa}

    def describe(self, path):
        folder, region, speaker = ("", "", "", *(part.upper() for part in path.parts[:-1]))[-3:]
        sentence = SENTENCE.fullmatch(path.stem.upper())
        if not sentence:
            raise BadName("the name is not that of a sentence (SA1, SI943, SX127)")
        if folder not in SPLITS or not re.fullmatch(r"DR[1-8]", region) or not SPEAKER.fullmatch(speaker):
            raise BadName("the file is not in a folder like TRAIN/DR1/FCJF0")
        lists = LISTS if folder == "TEST" else {}
        split = next((name for name, speakers in lists.items() if speaker in speakers), folder.lower())
        return {"id": f"{speaker}_{sentence[1]}", "speaker_id": speaker, "gender": GENDERS[speaker[0]],
                "session": region, "split": split, "extra": {"sentence": sentence[1]}}

    def units(self):
        """One unit per recording; tells on stderr what is missing.

        Raises:
          UserError: the source holds no TIMIT.
        """
        self._listings = {}
        units, missing = [], {".PHN": 0, ".TXT": 0}
        for unit in super().units():
            path = self._root / unit.path
            beside = {suffix: self._beside(path, suffix) for suffix in missing}
            for suffix, file in beside.items():
                missing[suffix] += file is None
            stamps = [archives.size_and_time(file) if file else "absent" for file in beside.values()]
            units.append(dataclasses.replace(unit, stamp="/".join([unit.stamp, *stamps])))
        for suffix, count in missing.items():
            if count:
                print(f"timit: {count} of {len(units)} recordings have no {suffix}; they get none", file=sys.stderr)
        speakers = {unit.key.split("_")[0] for unit in units if f"/{SPLITS[1]}/" in f"/{unit.path.upper()}"}
        for name, listed in LISTS.items():
            if not speakers & listed:
                print(f"timit: TEST has none of the {len(listed)} speakers of the {name} list; no split {name!r}, "
                      "all others are as their folder says", file=sys.stderr)
        return units

    def load(self, unit):
        path = self._root / unit.path
        if _is_shortened(path):
            yield Reject(unit.key, unit.path, "compressed by shorten, which libsndfile does not read: "
                                              "decompress the tree first, e.g. by sph2pipe or w_decode")
            return
        for utterance in super().load(unit):
            if isinstance(utterance, Utterance):
                reason = _add_transcripts(utterance, self._beside(path, ".TXT"), self._beside(path, ".PHN"))
                if reason:
                    utterance = Reject(unit.key, unit.path, reason)
            yield utterance

    def _files(self):
        """Audio files without the SA sentences and without RIFF copies (SA1.WAV.wav) of a recording that is there."""
        found = []
        for path in super()._files():
            sentence = SENTENCE.fullmatch(path.stem.upper())
            if sentence and (sentence[1].startswith("SA") and not self.sa
                             or sentence[2] and self._beside(path, ".WAV")):
                continue
            found.append(path)
        return found

    def _beside(self, path, suffix):
        """The file of the same sentence with `suffix` (upper case) beside `path`, or None."""
        stem, folder = path.stem.upper(), path.parent
        sentence = SENTENCE.fullmatch(stem)
        if folder not in self._listings:
            self._listings[folder] = {file.name.upper(): file for file in sorted(folder.iterdir(), reverse=True)}
        return self._listings[folder].get((sentence[1] if sentence else stem) + suffix)

    def __getstate__(self):
        return {**self.__dict__, "_listings": {}}


def _add_transcripts(utterance, text, phones):
    """Fills in text and phones from their files, None where there is none; returns why they are refused, or None."""
    if text:
        words = text.read_text(encoding="utf-8", errors="replace")
        utterance.text = " ".join(re.sub(r"^\s*\d+\s+\d+\s", "", words).split())
    if phones:
        segments, faults = parse_phones(phones.read_text(encoding="utf-8", errors="replace"))
        if isinstance(faults, str):
            return faults
        size = len(utterance.speech)
        utterance.phones = [(label, start, min(end, size)) for label, start, end in segments if start < size]
        utterance.extra |= faults
    return None


def parse_phones(text):
    """Reads lines `START END LABEL`, in samples.

    Returns:
      (list of (label, start, end) that do not overlap, {"phone_gaps": n, "phone_overlaps": n} as far as there are any),
      or ([], reason) where a label is unknown or times do not rise.
    """
    segments, faults = [], {"phone_gaps": 0, "phone_overlaps": 0}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        fields = line.split()
        if len(fields) != 3 or not fields[0].isdecimal() or not fields[1].isdecimal():
            return [], f"line {number} of .PHN is not START END LABEL"
        start, end, label = int(fields[0]), int(fields[1]), fields[2].lower()
        if label not in TRANSCRIBED:
            return [], f"unknown phone {fields[2]!r} in line {number} of .PHN"
        if end <= start or segments and (start <= segments[-1][1] or end <= segments[-1][2]):
            return [], f"times do not rise in line {number} of .PHN"
        if segments and start != segments[-1][2]:
            faults["phone_gaps" if start > segments[-1][2] else "phone_overlaps"] += 1
            segments[-1] = (*segments[-1][:2], min(start, segments[-1][2]))
        segments.append((label, start, end))
    return segments, {name: count for name, count in faults.items() if count}


def _is_shortened(path):
    with open(path, "rb") as file:
        head = file.read(1024)
    return head.startswith(b"NIST_1A") and b"shorten" in head.split(b"end_head")[0]
