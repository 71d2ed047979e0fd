"""RAVDESS: the Ryerson audio-visual database of emotional speech and song (Livingstone and Russo 2018).

File names are seven two-digit fields, `modality-channel-emotion-intensity-statement-repetition-actor`; the table is in
the corpus' own description (doi:10.5281/zenodo.1188976) and is repeated below.
"""

import re
from pathlib import Path

from ser_jax.corpora import audio
from ser_jax.corpora.schema import BadAudio, Reject, Unit, Utterance
from ser_jax.errors import UsageError, UserError

AUDIO_ONLY = "03"
CHANNELS = {"01": "speech", "02": "song"}
EMOTIONS = {"01": "neutral", "02": "calm", "03": "happy", "04": "sad",
            "05": "angry", "06": "fearful", "07": "disgusted", "08": "surprised"}
INTENSITIES = {"01": "normal", "02": "strong"}
STATEMENTS = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
REPETITIONS = {"01": 1, "02": 2}
ACTORS = range(1, 25)
NAME = re.compile(r"\d\d(-\d\d){6}")


class Ravdess:
    """Reader of a folder tree with RAVDESS audio files, WAV or FLAC at any rate, in any folders.

    Args:
      source: folder that holds `Actor_01`, ..., or `Audio_Speech_Actors_01-24` and `Audio_Song_Actors_01-24`.
      channel: "all", "speech" or "song".
    """

    name = "ravdess"
    language = "en"
    licence = "CC BY-NC-SA 4.0"
    synthetic = False

    def __init__(self, source, channel="all"):
        if source is None:
            raise UsageError("ravdess needs --source: the folder with Actor_01, Actor_02, ...")
        if channel not in ("all", *CHANNELS.values()):
            raise UsageError(f"--option channel={channel}: choose all, speech or song")
        self.source = Path(source)
        self.channel = channel
        self._left_out = () if channel == "all" else [known for known in CHANNELS.values() if known != channel]
        self._first_path = {}

    def options(self):
        return {"channel": self.channel}

    def units(self):
        """One unit per audio file; files of other kinds (video, texts, hidden files) are no part of this corpus."""
        units, self._first_path = [], {}
        for path in audio.files_below(self.source):
            if NAME.fullmatch(path.stem) and CHANNELS.get(path.stem[3:5]) in self._left_out:
                continue
            relative = path.relative_to(self.source).as_posix()
            first = self._first_path.setdefault(path.stem, relative)
            key = path.stem if first == relative else relative
            status = path.stat()
            units.append(Unit(key, relative, 1, f"{status.st_size}-{status.st_mtime_ns}"))
        if not any(NAME.fullmatch(stem) for stem in self._first_path):
            raise UserError(f"{self.source}: no RAVDESS audio in this folder (names like 03-01-06-01-02-01-12.wav)")
        return units

    def load(self, unit):
        path = self.source / unit.path
        reason = name_fault(path) or self._twice(path.stem, unit.path)
        if reason:
            yield Reject(unit.key, unit.path, reason)
            return
        _, channel, emotion, intensity, statement, repetition, actor = path.stem.split("-")
        try:
            speech = audio.read(path)
        except BadAudio as error:
            yield Reject(unit.key, unit.path, str(error))
            return
        yield Utterance(
            id=path.stem, corpus=self.name, source=unit.path, speech=speech, text=STATEMENTS[statement],
            speaker_id=actor, gender="male" if int(actor) % 2 else "female", emotion=EMOTIONS[emotion],
            language=self.language,
            extra={"vocal_channel": CHANNELS[channel], "intensity": INTENSITIES[intensity],
                   "repetition": REPETITIONS[repetition], "statement": int(statement)})

    def _twice(self, stem, relative):
        first = self._first_path.get(stem, relative)
        return None if first == relative else f"same name twice in the source (first: {first})"


def name_fault(path):
    """Why a file name is refused as RAVDESS audio, or None."""
    if not NAME.fullmatch(path.stem):
        return "the name is not MM-VC-EE-II-SS-RR-AA"
    fields = path.stem.split("-")
    if fields[0] != AUDIO_ONLY:
        return f"modality {fields[0]}: only {AUDIO_ONLY} (audio only) is taken"
    known = (("vocal channel", CHANNELS), ("emotion", EMOTIONS), ("intensity", INTENSITIES),
             ("statement", STATEMENTS), ("repetition", REPETITIONS))
    for (what, table), code in zip(known, fields[1:6], strict=True):
        if code not in table:
            return f"unknown {what} {code!r} in the name"
    if int(fields[6]) not in ACTORS:
        return f"unknown actor {fields[6]!r} in the name"
    folder = re.fullmatch(r"Actor_(\d\d)", path.parent.name)
    if folder and folder[1] != fields[6]:
        return f"the name says actor {fields[6]}, the folder {path.parent.name}"
    return None
