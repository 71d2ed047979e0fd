"""From the log-probabilities of a CTC recogniser to text: the best path, or prefix beam search."""

import numpy as np

from ser_jax.tasks import alphabet

BEAM_WIDTH = 100
# Chosen on the watched speakers of two recognisers: a weak one of 0.7 h of real speech, which wants a bonus of 1 to 1.5
# at any weight, and one of synthetic speech, which hardly minds (weights of 0.5 to 1.2, bonuses of 0 to 2).
LM_WEIGHT = 0.5
LENGTH_BONUS = 1.0


def collapse(path):
    """The text of one path: repeats merged, then blanks removed.

    Args:
      path: symbols int[T].
    """
    path = np.asarray(path)
    starts = np.ones(len(path), bool)
    starts[1:] = path[1:] != path[:-1]
    return alphabet.decode(path[starts & (path != alphabet.BLANK)])


def greedy(log_probs):
    """The text of the best path: the most probable symbol of each frame, collapsed.

    Args:
      log_probs: float[T, 28].
    """
    return collapse(np.argmax(log_probs, axis=1))


def beam_search(log_probs, width=BEAM_WIDTH, language_model=None, lm_weight=LM_WEIGHT, length_bonus=LENGTH_BONUS):
    """The most probable text: the first of `beam`, whose arguments these are."""
    prefixes, node, score = _search(log_probs, width, language_model, lm_weight, length_bonus)
    return prefixes.text(node[_largest(score, 1)[0]])


def beam(log_probs, width=BEAM_WIDTH, language_model=None, lm_weight=LM_WEIGHT, length_bonus=LENGTH_BONUS):
    """Prefix beam search (Graves 2012, §7.5; Hannun et al. 2014): all paths of one text count together.

    A text's score is log P(text | audio), summed over the paths that were kept; with a language model also
    + lm_weight · log P_LM(text and its end) + length_bonus · characters.

    Args:
      log_probs: natural logarithms float[T, 28] of each frame's probabilities.
      width: number of prefixes kept after each frame.
      language_model: language_model.CharacterModel or None.
      lm_weight: of the language model.
      length_bonus: per character, against the language model's taste for short texts; not used without one.

    Returns:
      list of (text, score), best first, at most `width`. Equal scores are in an order that does not change.

    Raises:
      ValueError: wrong shape, NaN, or no path of any probability.
    """
    prefixes, node, score = _search(log_probs, width, language_model, lm_weight, length_bonus)
    return [(prefixes.text(node[i]), float(score[i])) for i in _largest(score, width)]


def _search(log_probs, width, language_model, lm_weight, length_bonus):
    """(prefixes, the nodes that are left after the last frame, their scores)."""
    log_probs = np.asarray(log_probs, np.float64)
    if log_probs.ndim != 2 or log_probs.shape[1] != alphabet.SIZE or np.isnan(log_probs).any():
        raise ValueError(f"log_probs of shape {log_probs.shape}: wanted [T, {alphabet.SIZE}] without NaN")
    if width < 1:
        raise ValueError(f"a beam of width {width}")
    prefixes = _Prefixes(len(log_probs) * width + 1)
    node = np.zeros(1, np.int64)                         # the prefix of each row of the beam; 0 is the empty one
    blank, letter = np.zeros(1), np.full(1, -np.inf)     # log P of its paths that end in a blank, in its last letter
    bonus = np.zeros(1)                                  # what the language model and the length add to its score
    state = None if language_model is None else np.full(1, language_model.start)
    added = 0.0
    for frame in log_probs:
        last = prefixes.letter[node]
        total = np.logaddexp(blank, letter)
        grown = total[:, None] + frame[:alphabet.BLANK]  # [beam, 27]: prefix + one letter
        rows = np.flatnonzero(last >= 0)
        grown[rows, last[rows]] = blank[rows] + frame[last[rows]]  # a letter again needs a blank in between
        kept_blank = total + frame[alphabet.BLANK]
        kept_letter = letter + frame[last]               # of the empty prefix: -inf + the blank's

        shorter = prefixes.row_of_parent(node)           # a grown prefix that is in the beam already joins its row
        rows = np.flatnonzero(shorter >= 0)
        kept_letter[rows] = np.logaddexp(kept_letter[rows], grown[shorter[rows], last[rows]])
        grown[shorter[rows], last[rows]] = -np.inf

        if language_model is not None:
            added = lm_weight * language_model.table[state, :alphabet.BLANK] + length_bonus
        kept_score = np.logaddexp(kept_blank, kept_letter) + bonus
        score = np.concatenate([kept_score, (grown + bonus[:, None] + added).ravel()])
        best = _largest(score, width)
        if not len(best):
            raise ValueError("no path has any probability")
        kept, new = best[best < len(node)], best[best >= len(node)] - len(node)
        row, symbol = np.divmod(new, alphabet.BLANK)
        if language_model is not None:
            bonus = np.concatenate([bonus[kept], bonus[row] + added[row, symbol]])
            state = np.concatenate([state[kept], language_model.next[state[row], symbol]])
        else:
            bonus = np.zeros(len(best))
        blank = np.concatenate([kept_blank[kept], np.full(len(new), -np.inf)])
        letter = np.concatenate([kept_letter[kept], grown[row, symbol]])
        node = np.concatenate([node[kept], prefixes.grow(node[row], symbol)])
    score = np.logaddexp(blank, letter) + bonus
    if language_model is not None:
        score = score + lm_weight * language_model.table[state, alphabet.BLANK]
    return prefixes, node, score


class _Prefixes:
    """A tree of prefixes: the same text is always the same node, also when it left the beam and comes back."""

    def __init__(self, size):
        self.letter, self._parent = np.full(size, -1), np.full(size, -1)  # of the root: none
        self._child = {}
        self._row = np.full(size, -1)
        self._count = 1

    def row_of_parent(self, node):
        """For each node, the position of its parent in `node`, or -1."""
        self._row[node] = np.arange(len(node))
        parent = self._parent[node]
        rows = np.where(parent >= 0, self._row[parent], -1)
        self._row[node] = -1
        return rows

    def grow(self, parent, letter):
        """The nodes of parent + letter."""
        found = np.empty(len(parent), np.int64)
        for i, key in enumerate((parent * alphabet.BLANK + letter).tolist()):
            found[i] = child = self._child.setdefault(key, self._count)
            self._count += child == self._count
        self.letter[found], self._parent[found] = letter, parent
        return found

    def text(self, node):
        letters = []
        while node:
            letters.append(self.letter[node])
            node = self._parent[node]
        return alphabet.decode(letters[::-1])


def _largest(score, count):
    """Positions of the `count` largest finite scores, best first; of equals the first."""
    least = np.partition(score, -count)[-count] if count < len(score) else -np.inf
    best = np.flatnonzero((score >= least) & (score > -np.inf))
    return best[np.argsort(-score[best], kind="stable")[:count]]
