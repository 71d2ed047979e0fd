"""Pieces of utterances in padded batches of few different shapes, for evaluation and export."""

import concurrent.futures
import dataclasses

import numpy as np

from ser_jax.corpora.schema import SAMPLE_RATE

GROWTH = 1.2  # ratio of neighbouring padded lengths: at most 20 % of a row is padding (about 9 % on average)


@dataclasses.dataclass(frozen=True)
class Piece:
    """A piece of an utterance: `row` counts the utterances asked for, start and end are samples."""

    row: int
    number: int
    start: int
    end: int

    @property
    def length(self):
        return self.end - self.start


def pieces_of(lengths, task, seconds):
    """All pieces of utterances with these lengths: (list[Piece], list of rows that are too short to give one)."""
    pieces, short = [], []
    for row, length in enumerate(lengths):
        cuts = task.pieces(int(length), seconds)
        pieces += [Piece(row, number, start, end) for number, (start, end) in enumerate(cuts)]
        if not cuts:
            short.append(row)
    return pieces, short


def padded_length(length, seconds):
    """The length a piece is padded to: exact for full pieces of `seconds`, else the next step of a geometric ladder."""
    if seconds is not None and length == round(seconds * SAMPLE_RATE):
        return length
    bound = SAMPLE_RATE / 4
    while bound < length:
        bound *= GROWTH
    bound = int(np.ceil(bound))
    return min(bound, round(seconds * SAMPLE_RATE)) if seconds is not None and length <= seconds * SAMPLE_RATE else bound


def batched(pieces, batch_size, seconds):
    """Groups pieces of one padded length: list of (padded length, pieces), at most `batch_size` pieces each."""
    by_length = {}
    for piece in sorted(pieces, key=lambda piece: (piece.length, piece.row, piece.number)):
        by_length.setdefault(padded_length(piece.length, seconds), []).append(piece)
    return [(length, group[i:i + batch_size]) for length, group in by_length.items()
            for i in range(0, len(group), batch_size)]


def load(speech_of, length, pieces, rows):
    """The arrays of a batch: speech int16[rows, length], length int32[rows]; rows beyond `pieces` repeat silence.

    Args:
      speech_of: row -> int16[T].
    """
    speech, lengths = np.zeros((rows, length), np.int16), np.full(rows, length, np.int32)
    for i, piece in enumerate(pieces):
        speech[i, :piece.length] = speech_of(piece.row)[piece.start:piece.end]
        lengths[i] = piece.length
    return {"speech": speech, "length": lengths}


def ahead(make, items, depth=2, threads=2):
    """Yields `make(item)` in order while the next `depth` are made in threads, so that devices do not wait for files."""
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        waiting = []
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > depth:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()
