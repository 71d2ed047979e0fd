"""The one record schema that every corpus is brought to, and what a corpus reader must provide.

A reader lists `Unit`s cheaply (no audio is decoded) and later loads each of them, in any process, into `Utterance`s or
`Reject`s. `corpora/prepare.py` does the rest: sharding, checks, the rejects ledger, restarts, the fingerprint.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np

SAMPLE_RATE = 16_000
GENDERS = ("female", "male")
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgusted", "surprised",
            "bored", "contempt", "excited", "frustrated", "other")
NAN = float("nan")


@dataclasses.dataclass
class Utterance:
    """One utterance. What a corpus does not tell stays empty ("" or NaN); nothing is invented.

    Attributes:
      id: unique within the corpus, stable across machines.
      source: where it came from, relative to the corpus root; a segment is `path#start-end` in seconds.
      speech: int16[T], 16 kHz mono.
      gender: one of GENDERS or "".
      emotion: one of EMOTIONS or "".
      valence, arousal, dominance: on the corpus' own scale, stated in its catalogue entry.
      chunk_of: id of the longer recording ("story") that this record is a piece of, or "".
      split: the corpus' official partition, e.g. "train-clean-100", "test", or "".
      language: BCP-47 tag, e.g. "en", "de", or "".
      phones: (label, start, end) with start and end in samples at 16 kHz, end exclusive.
      extra: JSON-able, what only one corpus has.
    """

    id: str
    corpus: str
    source: str
    speech: np.ndarray
    text: str = ""
    speaker_id: str = ""
    gender: str = ""
    session: str = ""
    emotion: str = ""
    valence: float = NAN
    arousal: float = NAN
    dominance: float = NAN
    chunk_of: str = ""
    split: str = ""
    language: str = ""
    phones: list[tuple[str, int, int]] = dataclasses.field(default_factory=list)
    extra: dict = dataclasses.field(default_factory=dict)


TEXT_FIELDS = ("id", "corpus", "source", "text", "speaker_id", "gender", "session", "emotion", "chunk_of", "split", "language")
NUMBER_FIELDS = ("valence", "arousal", "dominance")


@dataclasses.dataclass(frozen=True)
class Reject:
    """An utterance that could not be taken: goes to `rejects.csv`."""

    id: str
    path: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Unit:
    """What one process loads at a time: a file, a whole TED talk, a shard of a TFDS dataset.

    Attributes:
      key: unique and stable; the utterance id where the unit is one utterance.
      path: the file behind it, for messages.
      count: number of utterances expected (for progress; a unit may yield another number only with `count=0`).
      stamp: changes when the content behind the unit changes (e.g. "size-mtime_ns"); part of the restart key.
    """

    key: str
    path: str
    count: int = 1
    stamp: str = ""


class Reader(Protocol):
    """A corpus reader: a picklable object with the corpus' facts and its two methods."""

    name: str       # corpus name, e.g. "librispeech"
    language: str
    licence: str
    synthetic: bool  # True only for the embedded corpus

    def units(self) -> list[Unit]:
        """All units of the source, cheaply. Raises UserError when the folder is not this corpus."""

    def options(self) -> dict:
        """JSON-able options that change the records (part of the fingerprint's provenance and of the restart key)."""

    def load(self, unit: Unit) -> Iterator[Utterance | Reject]:
        """Utterances of one unit. May raise `BadAudio` when the unit is a single utterance."""


class BadAudio(Exception):
    """Audio that cannot be taken; the message is the reason in the ledger."""


def check_labels(utterance):
    """Reason why the labels of `utterance` are refused, or None."""
    if utterance.gender and utterance.gender not in GENDERS:
        return f"unknown gender {utterance.gender!r} (known: {', '.join(GENDERS)})"
    if utterance.emotion and utterance.emotion not in EMOTIONS:
        return f"unknown emotion {utterance.emotion!r} (known: {', '.join(EMOTIONS)})"
    for field in NUMBER_FIELDS:
        if math.isinf(getattr(utterance, field)):
            return f"infinite {field}"
    return None
