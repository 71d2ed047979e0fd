"""Leak audit: what the training and the test side of a protocol share, and the stamps that follow into every table."""

import dataclasses
import unicodedata

from ser_jax.protocols.folds import corpus_keys

EXAMPLES = 3
_NOUNS = {"speaker": "speakers", "session": "sessions", "recording": "recordings", "audio": "audio files",
          "text": "sentences"}


@dataclasses.dataclass(frozen=True)
class Audit:
    """The outcome of `audit`.

    Attributes:
      stamps: of LEAKY, TEXT-SHARED, TRANSDUCTIVE, SYNTHETIC, UNAUDITED those that hold, in this order.
      lines: one line per finding, with counts and examples.
      shared: what is on both sides: {"speaker" | "session" | "recording" | "audio" | "text": sorted values}.
    """

    stamps: list[str]
    lines: list[str]
    shared: dict[str, list[str]]


def audit(protocol, table, linguistic=False, synthetic=False):
    """Compares train and dev with test, fold by fold.

    LEAKY: a speaker, a recording (an audio file, or a longer recording of which pieces are on both sides), or, for a
    linguistic feature, a sentence is on both sides of some fold. TEXT-SHARED: sentences are on both sides of an
    acoustic row. TRANSDUCTIVE: a tested utterance was in the pretraining data. SYNTHETIC: `synthetic`. UNAUDITED:
    speakers of some utterances are unknown, so their overlap cannot be told. A shared session is reported without a
    stamp.

    Args:
      protocol: a `Protocol`.
      table: a features table that holds every id of the protocol.
      linguistic: the features carry the words.
      synthetic: the corpus or the pretraining corpus is the embedded one.
    """
    seen = table.groupby("id")["seen_in_pretraining"].any()
    table = table.drop_duplicates("id").set_index("id", drop=False)
    keys = {
        "speaker": corpus_keys(table, "speaker_id"),
        "session": corpus_keys(table, "session"),
        "recording": corpus_keys(table, "chunk_of"),
        "audio": table["audio_sha256"].fillna(""),
        "text": table["text"].fillna("").map(normalise_text),
    }
    shared = {what: set() for what in keys}
    folds_with = dict.fromkeys(keys, 0)
    for fold in protocol.folds:
        known, tested = list(fold.train + fold.dev), list(fold.test)
        for what, column in keys.items():
            both = (set(column.loc[known]) & set(column.loc[tested])) - {""}
            shared[what] |= both
            folds_with[what] += bool(both)

    used = table.loc[sorted(protocol.ids("train") | protocol.ids("dev") | protocol.ids("test"))]
    tested = table.loc[sorted(protocol.ids("test"))]
    stamps, lines = [], []
    leaks = ("speaker", "recording", "audio", *(["text"] if linguistic else []))
    if any(shared[what] for what in leaks):
        stamps.append("LEAKY")
    if shared["text"] and not linguistic:
        stamps.append("TEXT-SHARED")
    for what, values in shared.items():
        if values:
            verdict = "LEAKY: " if what in leaks else "TEXT-SHARED: " if what == "text" else ""
            examples = ", ".join(repr(_short(value)) for value in sorted(values)[:EXAMPLES])
            noun = _NOUNS[what] if len(values) > 1 else _NOUNS[what][:-1]
            lines.append(
                f"{verdict}{len(values)} {noun} on both sides in {folds_with[what]} of "
                f"{len(protocol.folds)} folds, e.g. {examples}"
            )
    seen = seen.loc[tested.index]
    if seen.any():
        stamps.append("TRANSDUCTIVE")
        lines.append(
            f"TRANSDUCTIVE: {int(seen.sum())} of {len(tested)} tested utterances were in the pretraining data, "
            f"e.g. {_short(tested['id'][seen].iloc[0])!r}"
        )
    if synthetic:
        stamps.append("SYNTHETIC")
        lines.append(
            "SYNTHETIC: made with the embedded corpus of synthetic speech; the numbers say nothing about people"
        )
    unknown = int((keys["speaker"].loc[used.index] == "").sum())
    if unknown:
        stamps.append("UNAUDITED")
        lines.append(f"UNAUDITED: speaker unknown for {unknown} of {len(used)} utterances: overlap cannot be audited")
    silent = int((keys["audio"].loc[used.index] == "").sum())
    if silent:
        lines.append(
            f"audio hash unknown for {silent} of {len(used)} utterances: repeated audio cannot be found among them"
        )
    return Audit(stamps, lines, {what: sorted(values) for what, values in shared.items() if values})


def normalise_text(text):
    """Case, punctuation and spaces do not make two sentences different: "Dogs are  sitting!" -> "dogs are sitting"."""
    text = unicodedata.normalize("NFKC", str(text)).casefold()
    # An apostrophe joins ("don't" = "dont"); other punctuation parts words.
    text = "".join("" if c in "'’" else c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in text)
    return " ".join(text.split())


def _short(value):
    return value if len(value) <= 40 else value[:37] + "..."
