"""Segments of phones in time, and the labels that they give to frames."""

import collections
import re

import numpy as np

from ser_jax.audio.logmel import FAYEK2016 as FRAMES
from ser_jax.corpora import phones as timit
from ser_jax.corpora.phones import STATES
from ser_jax.corpora.schema import SAMPLE_RATE
from ser_jax.errors import UserError


def thirds(segments, phones, num_frames):
    """Labels of frames: each phone's frames in three parts that are as equal as can be.

    The frames of a segment are those whose centres it holds; the k-th of n gets the third floor(3 (k + ½) / n). So one
    frame is the middle, and two are the first and the last third.

    Args:
      segments: (phone, start, end) in samples, in time order, without overlap.
      phones: {name: number}.

    Returns:
      int16[num_frames]: 3 · number + third, −1 where no segment is.
    """
    labels = np.full(num_frames, -1, np.int16)
    for name, start, end in segments:
        # the first frames whose centre, hop · f + window / 2, is at or after each side
        first, last = (min(num_frames, max(0, -(-(side - FRAMES.window // 2) // FRAMES.hop))) for side in (start, end))
        count = last - first
        labels[first:last] = STATES * phones[name] + STATES * (2 * np.arange(count) + 1) // (2 * max(count, 1))
    return labels


def modelled(segments):
    """TIMIT's segments with the 48 labels of the models; those of q join the phone before (at first: after) it."""
    found, waiting = [], None
    for label, start, end in segments:
        label = timit.to_48(label)
        if label is not None:
            found.append((label, start if waiting is None else waiting, end))
            waiting = None
        elif found:
            found[-1] = (*found[-1][:2], end)
        elif waiting is None:
            waiting = start
    return found


def read_ctm(path):
    """Reads `UTTERANCE CHANNEL START DURATION PHONE [CONFIDENCE]`, in seconds, a phone per line; `;;` begins a comment.

    Position suffixes (_B, _I, _E, _S) are removed and silence in any case is written "sil".

    Returns:
      {utterance: list of (phone, start, end) in samples, in time order, without overlap: the next one cuts a phone}.

    Raises:
      UserError: no such file, or a line that is none of these.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    found = collections.defaultdict(list)
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields or line.startswith(";;"):
            continue
        try:
            name, _, start, duration, phone = fields[:5]
            start, end = float(start), float(start) + float(duration)
            if not 0 <= start < end < np.inf:
                raise ValueError
        except ValueError:
            raise UserError(f"{path}, line {number}: not UTTERANCE CHANNEL START DURATION PHONE, times in "
                            "seconds") from None
        phone = re.sub("_[BIES]$", "", phone)
        found[name].append((round(start * SAMPLE_RATE), round(end * SAMPLE_RATE),
                            "sil" if phone.lower() == "sil" else phone))
    if not found:
        raise UserError(f"{path}: no phone in it")
    segments_of = {}
    for name, parts in found.items():
        parts.sort(key=lambda part: part[:2])
        nexts = [start for start, _, _ in parts[1:]] + [parts[-1][1]]
        segments_of[name] = [(phone, start, min(end, after))
                             for (start, end, phone), after in zip(parts, nexts, strict=True)]
    return segments_of
