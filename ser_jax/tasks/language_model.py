"""A character n-gram language model from plain texts, for beam search: Witten-Bell, compiled to tables."""

import numpy as np

from ser_jax.errors import UserError
from ser_jax.tasks import alphabet

ORDER = 6
MAX_ORDER = 12  # a context must fit into 64 bits
_EDGE = alphabet.BLANK  # before the first character as part of a context, after the last one as the end of the text
_CHUNK = 1_000_000  # characters counted at a time


class CharacterModel:
    """P(character | the order−1 before it) over the 27 characters and the end of the text.

    Witten-Bell (1991): P(c | h) = (n(h c) + d(h) · P(c | h without its first)) / (n(h) + d(h)), where n counts
    occurrences and d different successors; below the empty context, 1/28 each. The start of a text is part of a
    context. A context that was never seen says what its longest seen suffix says, so the model is a finite automaton:
    one state for each seen context, and beam search follows any number of prefixes by indexing.

    Args:
      texts: any strings; they are normalised (`alphabet.normalise`), and those that become empty are left out.
      order: longest n-gram, 1 to 12.

    Attributes:
      table: f32[states, 28], log-probability of each character and, last, of the end, in each state.
      next: i32[states, 27], the state after each character.
      start: the state at the start of a text.
      order, texts, characters: what it was made of.

    Raises:
      ValueError: no text with a character, or an order out of range.
    """

    def __init__(self, texts, order=ORDER):
        if not 1 <= order <= MAX_ORDER:
            raise ValueError(f"order {order}: must be 1 to {MAX_ORDER}")
        self.order, self.texts, self.characters = order, 0, 0
        counts = self._count(texts)
        if not self.texts:
            raise ValueError("no text with a character of a to z")
        self._compile(counts)

    def _count(self, texts):
        """[(codes of n-grams i64[N], rising, their counts i64[N]) for n in 1..order]; a code is a number in base 28."""
        counts = [(np.zeros(0, np.int64), np.zeros(0, np.int64))] * self.order
        chunk, size = [], 0
        for text in texts:
            labels = alphabet.encode(text)
            if not len(labels):
                continue
            chunk.append(np.append(labels, _EDGE))
            self.texts, self.characters, size = self.texts + 1, self.characters + len(labels), size + len(labels)
            if size >= _CHUNK:
                counts = _added(counts, _ngrams(chunk, self.order))
                chunk, size = [], 0
        return _added(counts, _ngrams(chunk, self.order)) if chunk else counts

    def _compile(self, counts):
        """Tables for the contexts of 0 characters, then 1, …: the longer ones are made of the shorter ones."""
        size = alphabet.SIZE
        contexts, first = np.zeros(1, np.int64), 0                  # of the length in hand, and the state of the first
        below, following = np.full((1, size), 1 / size), np.zeros((1, alphabet.BLANK), np.int64)
        probabilities, successors = [], []
        for length, (codes, number) in enumerate(counts):
            row = np.searchsorted(contexts, codes // size)
            n = np.zeros((len(contexts), size))
            n[row, codes % size] = number
            different = np.count_nonzero(n, axis=1)[:, None]
            here = (n + different * below) / (n.sum(1, keepdims=True) + different)

            longer = np.unique(counts[length + 1][0] // size) if length + 1 < self.order else codes[:0]
            begin = first + len(contexts)
            made = longer[longer % size != _EDGE]                   # the start of a text follows nothing
            states = begin + np.searchsorted(longer, made)
            following[np.searchsorted(contexts, made // size), made % size] = states
            probabilities.append(here)
            successors.append(following)
            suffix = np.searchsorted(contexts, longer % size**length)
            contexts, first, below, following = longer, begin, here[suffix], following[suffix]
        self.table = np.log(np.concatenate(probabilities)).astype(np.float32)
        self.next = np.concatenate(successors).astype(np.int32)
        self.start = 0 if self.order == 1 else len(probabilities[0]) + len(probabilities[1]) - 1  # the largest code

    def log_probability(self, prefix, character):
        """Natural logarithm of P(character | prefix); `character` "" is the end of the text.

        Args:
          prefix: what the text has so far, of space and a to z.

        Raises:
          ValueError: another character.
        """
        state = self.start
        for letter in prefix:
            state = self.next[state, _label(letter)]
        return float(self.table[state, _EDGE if character == "" else _label(character)])

    def perplexity(self, texts):
        """exp of the mean negative log-probability per character, ends counted, of texts, which are normalised."""
        total, count = 0.0, 0
        for text in texts:
            state = self.start
            for label in [*alphabet.encode(text).tolist(), _EDGE]:
                total -= float(self.table[state, label])
                count += 1
                if label != _EDGE:
                    state = self.next[state, label]
        return float(np.exp(total / count))


def read_texts(path, trained=None):
    """Texts for a language model: the lines of a text file, or the texts of a prepared corpus.

    Of a corpus that the checkpoint was trained on only the utterances of its training part count: the texts of held-out
    utterances are what a transcript will be compared with.

    Args:
      path: a text file (UTF-8), or the folder of a prepared corpus.
      trained: checkpoint.Trained or None.

    Raises:
      UserError: it cannot be read, or has no text.
    """
    if path.is_dir():
        from ser_jax.data.prepared import PreparedCorpus

        index = PreparedCorpus(path).index
        if trained is not None:
            used = trained.utterances
            if index["audio_sha256"].isin(used["audio_sha256"]).any():
                index = index[index["audio_sha256"].isin(used.loc[used["part"] == "train", "audio_sha256"])]
        texts = index["text"].tolist()
    else:
        try:
            texts = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read as text ({getattr(error, 'strerror', None) or error})") from None
    texts = [text for text in texts if alphabet.normalise(text)]
    if not texts:
        raise UserError(f"{path}: no text with a character of a to z to make a language model of")
    return texts


def _ngrams(chunk, order):
    """`_count` of texts that each end in the edge symbol."""
    symbols = np.concatenate([np.array([_EDGE]), *chunk]).astype(np.int64)
    place = np.arange(len(symbols))
    edge = np.maximum.accumulate(np.where(symbols == _EDGE, place, 0))
    room = place[1:] - edge[:-1]  # the longest context of each symbol but the first: back to the start of its text
    codes, found = symbols[1:], []
    for length in range(order):
        found.append(np.unique(codes[room >= length], return_counts=True))
        if length + 1 < order:  # codes that now reach back into the text before are not used any more
            earlier = np.concatenate([np.zeros(length, np.int64), symbols])[:len(codes)]
            codes = codes + earlier * alphabet.SIZE ** (length + 1)
    return found


def _added(counts, more):
    """Sums of two lists of (codes, counts)."""
    sums = []
    for (codes, number), (other, other_number) in zip(counts, more, strict=True):
        both, place = np.unique(np.concatenate([codes, other]), return_inverse=True)
        weights = np.concatenate([number, other_number])
        sums.append((both, np.bincount(place, weights=weights, minlength=len(both)).astype(np.int64)))
    return sums


def _label(character):
    label = alphabet.CHARACTERS.find(character)
    if label < 0 or len(character) != 1:
        raise ValueError(f"{character!r} is not one of space and a to z")
    return label
