"""The 28 symbols of the character CTC recogniser: space, a to z, and the blank, which is the last (Kim & Park)."""

import re
import unicodedata

import numpy as np

CHARACTERS = " abcdefghijklmnopqrstuvwxyz"
BLANK = len(CHARACTERS)
SIZE = len(CHARACTERS) + 1

_BETWEEN_WORDS = re.compile(r"--+|[\u2012-\u2015\u2e3a\u2e3b]|\.\.+|\u2026|[/\\|]")
_UNSPELT = re.compile(r"[^a-z\s]")


def normalise(text):
    """Text as the recogniser spells it: words of a to z, one space between words, none around them.

    Lower-case, accents off (é -> e, by Unicode's compatibility decomposition; ß -> ss). Punctuation is dropped where it
    stands, also within a word (don't -> dont, well-known -> wellknown), as in the original recogniser; but what stands
    between two words without spaces (long dashes, --, ..., slashes) becomes a space. Everything else that cannot be
    spelt is dropped too: digits (write numbers as words if they are to be learnt), symbols, letters of other scripts.
    White space of any kind is one space. The result may be empty.
    """
    text = unicodedata.normalize("NFKD", _BETWEEN_WORDS.sub(" ", text)).casefold()
    return " ".join(_UNSPELT.sub("", text).split())


def encode(text):
    """Labels int32[L] of the normalised text: 0 for a space, 1 to 26 for a to z."""
    letters = np.frombuffer(normalise(text).encode("ascii"), np.uint8).astype(np.int32)
    return np.where(letters == ord(" "), 0, letters - (ord("a") - 1)).astype(np.int32)


def decode(labels):
    """The text that labels spell.

    Raises:
      ValueError: a label is none of 0 to 26 (the blank spells nothing).
    """
    labels = np.asarray(labels)
    if labels.size and not 0 <= labels.min() <= labels.max() < BLANK:
        raise ValueError(f"labels are 0 to {BLANK - 1}, not {labels.min()} to {labels.max()}")
    return "".join(CHARACTERS[label] for label in labels.tolist())


def frames_needed(labels):
    """The fewest frames over which CTC can emit these labels: one each, and a blank between two equal neighbours."""
    labels = np.asarray(labels)
    return len(labels) + int(np.sum(labels[1:] == labels[:-1]))
