"""From the phone state posteriors of a net to phones: the hybrid recogniser and its error rates.

A net gives log p(state | frame) of three states per phone; less the log prior of the state this is a scaled
log-likelihood (Bourlard and Morgan 1994). The best path through a loop over all phones, weighted by a phone bigram
(`ser_jax.tasks.viterbi`), is the recognised sequence. Runs on the host but for the search itself. Shapes: T frames,
P phones, S = 3 P states.
"""

import collections
import dataclasses

import jax
import numpy as np

from ser_jax import metrics
from ser_jax.corpora import phones as phone_sets
from ser_jax.corpora.phones import SILENCE, STATES
from ser_jax.tasks import viterbi

EQUAL = float(np.log(0.5))  # of staying and of leaving: no state is favoured, so the net alone tells how long it lasts
GRID = tuple((scale, penalty) for scale in (0.5, 0.7, 1.0, 1.4, 2.0) for penalty in (-2.0, 0.0, 2.0, 4.0))
_ROWS, _FRAMES = 16, 65_536  # at most these in a batch: 38 MB of scores of 144 states, 16 MB for the way back
# (but one utterance, however long, is one batch)


class Bigram:
    """P(phone | the phone before it), with the start and the end of an utterance.

    Witten-Bell (1991): P(b | a) = (n(a b) + d(a) · P(b)) / (n(a) + d(a)), where n counts occurrences and d different
    successors; alike P(b) = (n(b) + d / (P + 1)) / (n + d), over the P phones and the end, so nothing is impossible.
    After a phone that was never seen it is P(b). At the start the end is left out, as every utterance has a phone.

    Args:
      transcripts: sequences of phones, one of each utterance; empty ones are left out.
      phones: the P phones, in the order of the states.

    Attributes:
      follow: f32[P, P], log P(phone j | phone i) at [i, j].
      start, end: f32[P], log P(phone | start of the utterance) and log P(end of the utterance | phone).
      phones: as given.

    Raises:
      ValueError: no transcript with a phone, or a phone that is not in `phones`.
    """

    def __init__(self, transcripts, phones):
        self.phones = tuple(phones)
        size, edge = len(self.phones), len(self.phones)  # the edge is the start as a context, the end as a successor
        counts = np.zeros((size + 1, size + 1))
        for numbers in (phone_numbers(transcript, self.phones) for transcript in transcripts):
            if len(numbers):
                np.add.at(counts, (np.append(edge, numbers), np.append(numbers, edge)), 1)
        if not counts.any():
            raise ValueError("no transcript with a phone: a bigram needs some")
        singles = counts.sum(0)
        different = np.count_nonzero(singles)
        singles = (singles + different / (size + 1)) / (singles.sum() + different)
        successors = np.maximum(np.count_nonzero(counts, axis=1), 1)[:, None]
        table = (counts + successors * singles) / (counts.sum(1, keepdims=True) + successors)
        table[edge] /= 1 - table[edge, edge]
        table = np.log(table).astype(np.float32)
        self.follow, self.start, self.end = table[:size, :size], table[edge, :size], table[:size, edge]


def phone_numbers(transcript, phones):
    """int32[N] places in `phones` of the phones of a transcript.

    Raises:
      ValueError: a phone is not in `phones`.
    """
    places = {phone: place for place, phone in enumerate(phones)}
    try:
        return np.array([places[phone] for phone in transcript], np.int32)
    except KeyError as error:
        raise ValueError(f"phone {error.args[0]!r} is not among the {len(places)} of the net") from None


def priors(labels, num_states, floor=0.01):
    """Log prior of each state, from the labels of the training frames.

    Args:
      labels: arrays int[T], negative = no label.
      num_states: S.
      floor: the least probability, as a share of 1/S: a state that (almost) never occurs must not be favoured without
        bounds when the posterior is divided by its prior.

    Returns:
      f32[S], natural logarithms; not normalised again after the floor.

    Raises:
      ValueError: no frame has a label.
    """
    counts = np.zeros(num_states, np.int64)
    for values in labels:
        values = np.asarray(values)
        counts += np.bincount(values[values >= 0], minlength=num_states)
    if not counts.any():
        raise ValueError("no frame with a label: priors need some")
    return np.log(np.maximum(counts / counts.sum(), floor / num_states)).astype(np.float32)


def scaled(log_posteriors, log_priors):
    """log p(frame | state) of each state but for a constant of the frame: f32[…, S] = log posterior − log prior."""
    return log_posteriors - log_priors


def phones_of(states):
    """Numbers of the phones along a path: a new one where the phone changes or goes back to a first state.

    Args:
      states: int[T], negative ones (beyond the length) are left out.

    Returns:
      list of int.
    """
    states = np.asarray(states)
    states = states[states >= 0]
    phone, third = np.divmod(states, STATES)
    new = np.ones(len(states), bool)
    new[1:] = (phone[1:] != phone[:-1]) | ((third[1:] == 0) & (third[:-1] != 0))
    return phone[new].tolist()


@dataclasses.dataclass(frozen=True, eq=False)
class Decoder:
    """Recognises phones: argmax over paths of scale · Σ scaled log-likelihoods + log P(phones) − penalty · phones.

    Attributes:
      bigram: a Bigram.
      log_priors: f32[S], of `priors`.
      acoustic_scale: weight of the net against the bigram.
      insertion_penalty: taken off for each phone: more of it gives fewer phones.
    """

    bigram: Bigram
    log_priors: np.ndarray
    acoustic_scale: float = 1.0
    insertion_penalty: float = 0.0

    def __post_init__(self):
        priors, phones = len(self.log_priors), len(self.bigram.phones)
        if priors != STATES * phones:
            raise ValueError(f"{priors} priors for {phones} phones of {STATES} states")
        if not self.acoustic_scale > 0:
            raise ValueError(f"acoustic scale {self.acoustic_scale:g}: give a positive number")

    @property
    def graph(self):
        """The viterbi.PhoneLoop that is searched."""
        shape = len(self.bigram.phones), STATES
        equal, penalty = np.full(shape, EQUAL, np.float32), np.float32(self.insertion_penalty)
        return viterbi.PhoneLoop(stay=equal, leave=equal, follow=self.bigram.follow - penalty,
                                 start=self.bigram.start - penalty, end=self.bigram.end)

    def decode(self, log_posteriors):
        """Recognised phones of each utterance, in time order, silence included.

        Args:
          log_posteriors: list of f32[T, S].

        Returns:
          list of lists of str; an empty one for an utterance of less than three frames.
        """
        graph, scale = self.graph, np.float32(self.acoustic_scale)
        found = [None] * len(log_posteriors)
        for members, batch, lengths in _batches(log_posteriors):
            states = np.asarray(_decode(batch, lengths, self.log_priors, scale, graph))
            for row, member in enumerate(members):
                found[member] = [self.bigram.phones[number] for number in phones_of(states[row])]
        return found


@jax.jit
def _decode(log_posteriors, lengths, log_priors, scale, graph):
    return viterbi.decode(scale * scaled(log_posteriors, log_priors), lengths, graph)[0]


def tune(make, log_posteriors, references, phone_set, grid=GRID):
    """Chooses acoustic scale and insertion penalty by the phone error rate (silence included) of a development set.

    Args:
      make: function (acoustic_scale, insertion_penalty) -> Decoder.
      log_posteriors: list of f32[T, S].
      references: transcripts, silence included.
      phone_set: of both, as `phones.fold` takes it.
      grid: pairs (acoustic_scale, insertion_penalty) to try.

    Returns:
      ((acoustic_scale, insertion_penalty) of the lowest error rate, the first such in the grid; list of dicts
      acoustic_scale, insertion_penalty, PER: all that were tried).
    """
    truth = [folded(transcript, phone_set) for transcript in references]
    tried = []
    for scale, penalty in grid:
        answers = [folded(phones, phone_set) for phones in make(scale, penalty).decode(log_posteriors)]
        error = metrics.evaluate(PER, truth, answers)
        tried.append({"acoustic_scale": scale, "insertion_penalty": penalty, "PER": error})
    best = min(tried, key=lambda row: row["PER"])
    return (best["acoustic_scale"], best["insertion_penalty"]), tried


def realign(log_posteriors, transcripts, log_priors, phones=None):
    """Forced alignment: the state of each frame on the best way through the phones of the transcript.

    Args:
      log_posteriors: list of f32[T, S].
      transcripts: the phones of each utterance in time order, silence included: their names, or, without `phones`,
        their numbers.
      log_priors: f32[S], of `priors`.
      phones: the P phones, in the order of the states.

    Returns:
      list of int16[T] states, or None where there is no way: fewer frames than states, no phone, posteriors of 0.
    """
    if phones is not None:
        transcripts = [phone_numbers(transcript, phones) for transcript in transcripts]
    third = np.arange(STATES, dtype=np.int32)
    sequences = [np.add.outer(STATES * np.asarray(numbers, np.int32), third).ravel() for numbers in transcripts]
    found = [None] * len(log_posteriors)
    for members, batch, lengths in _batches(log_posteriors):
        counts = np.zeros(len(lengths), np.int32)
        counts[:len(members)] = [len(sequences[member]) for member in members]
        states = np.zeros((len(lengths), _padded(counts.max(), 96, 2)), np.int32)
        for row, member in enumerate(members):
            states[row, :counts[row]] = sequences[member]
        places, scores = map(np.asarray, _align(batch, lengths, states, counts, log_priors))
        for row, member in enumerate(members):
            if np.isfinite(scores[row]):
                found[member] = sequences[member][places[row, :lengths[row]]].astype(np.int16)
    return found


@jax.jit
def _align(log_posteriors, lengths, states, num_states, log_priors):
    return viterbi.align(scaled(log_posteriors, log_priors), lengths, states, num_states)


def _batches(arrays):
    """Batches of arrays float[T, S] of similar length: (their numbers, f32[B, T', S] padded by 0, int32[B] lengths).

    T' is one of few lengths and B follows from it, so that few programs are compiled; the search itself ends with the
    longest utterance of the batch.
    """
    by_size = collections.defaultdict(list)
    for number in sorted(range(len(arrays)), key=lambda number: len(arrays[number])):
        by_size[_padded(len(arrays[number]), 256, 4)].append(number)
    for size, numbers in sorted(by_size.items()):
        rows = max(1, min(_ROWS, _FRAMES // size))
        for first in range(0, len(numbers), rows):
            members = numbers[first:first + rows]
            batch = np.zeros((rows, size, arrays[members[0]].shape[1]), np.float32)
            lengths = np.zeros(rows, np.int32)
            for row, member in enumerate(members):
                lengths[row] = len(arrays[member])
                batch[row, :lengths[row]] = arrays[member]
            yield members, batch, lengths


def _padded(length, size, factor):
    """The least of size, size · factor, size · factor², … that holds the length."""
    while size < length:
        size *= factor
    return size


# ---------------------------------------------------------------------------------------------- error rates


def folded(phones, phone_set):
    """The phones as they are scored, in one text with spaces between them, as PER and PER_WITHOUT_SILENCE take it.

    Phones of TIMIT are folded to 39 (`phones.fold`). Consecutive equal labels are kept as they are, except silences,
    which become one.
    """
    return " ".join(_merged([phone_sets.fold(phone, phone_set) for phone in phones]))


def _merged(labels):
    return [label for before, label in zip([None, *labels], labels) if not label == before == SILENCE]


def frame_errors(labels, states):
    """(frames that have a label, those of them where the state is another), as FER takes them.

    Args:
      labels: int[T], negative = no label.
      states: int[T], e.g. the most probable state of each frame.
    """
    labels, states = np.asarray(labels), np.asarray(states)
    if labels.shape != states.shape:
        raise ValueError(f"labels of {labels.shape} frames but states of {states.shape}")
    return int((labels >= 0).sum()), int(((labels >= 0) & (labels != states)).sum())


def _phone_errors(silence):
    """The `sums` of PER: errors and phones of the reference, float64[groups, 2]."""

    def sums(truth, prediction, group, groups, classes):
        if len(truth) != len(prediction):
            raise ValueError(f"{len(truth)} references but {len(prediction)} predictions")
        edits = [_edits(str(a), str(b), silence) for a, b in zip(truth, prediction)]
        return np.stack([np.bincount(group, weights=column, minlength=groups) for column in zip(*edits)], axis=1)

    return sums


def _edits(truth, prediction, silence):
    """(Levenshtein distance, phones of the reference) of two texts of phones."""
    from rapidfuzz.distance import Levenshtein

    truth, prediction = (_merged(text.split()) if silence else [label for label in text.split() if label != SILENCE]
                         for text in (truth, prediction))
    return Levenshtein.distance(truth, prediction), len(truth)


def _deaf_phone_errors(silence):
    """What one answer to everything would get: the most frequent reference, or nothing at all (an error rate of 1)."""

    def chance(truth, classes):
        texts, counts = np.unique([str(text) for text in truth], return_counts=True)
        errors, length = np.sum([_edits(str(text), str(texts[counts.argmax()]), silence) for text in truth], axis=0)
        return min(1.0, float(errors / length)) if length else None

    return chance


def _frame_sums(frames, wrong, group, groups, classes):
    return np.stack([np.bincount(group, weights=weights, minlength=groups) for weights in (wrong, frames)], axis=1)


def _rate(sums):
    return np.divide(sums[..., 0], sums[..., 1], out=np.full(sums.shape[:-1], np.nan), where=sums[..., 1] > 0)


_DEFINITION = ("phone error rate: substitutions, deletions and insertions over the phones of the reference (TIMIT: "
               "folded to 39), summed over utterances; ")
PER = metrics.Metric(
    "PER", _DEFINITION + "silence is a phone, consecutive silences are one", _phone_errors(True), _rate,
    _deaf_phone_errors(True), False)
PER_WITHOUT_SILENCE = metrics.Metric(
    "PER without silence", _DEFINITION + "silence is left out of both sides", _phone_errors(False), _rate,
    _deaf_phone_errors(False), False)
FER = metrics.Metric(
    "FER", "frame error rate: labelled frames whose most probable class is another one, over all labelled frames",
    _frame_sums, _rate, lambda truth, classes: None, False)
