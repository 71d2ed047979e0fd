"""Cutting an utterance: random crops for training, fixed pieces for evaluation and export. Lengths are in samples."""

import numpy as np

from ser_jax.corpora.schema import SAMPLE_RATE
from ser_jax.errors import UsageError


def check_buckets(bucket_seconds, min_samples):
    """Raises a UsageError for `task.bucket_seconds` that do not rise, or begin below `min_samples`."""
    if not bucket_seconds or list(bucket_seconds) != sorted(set(bucket_seconds)):
        raise UsageError(f"task.bucket_seconds={bucket_seconds}: give lengths in seconds, each larger than the last")
    if round(bucket_seconds[0] * SAMPLE_RATE) < min_samples:
        raise UsageError(f"task.bucket_seconds={bucket_seconds}: at least {min_samples / SAMPLE_RATE:g} s")


def smallest_bucket(buckets, num_samples):
    """int[N]: the shortest of the rising lengths `buckets` that holds each utterance, the longest where none does."""
    return buckets[np.minimum(np.searchsorted(buckets, num_samples), len(buckets) - 1)]


def random_crop(speech, size, rng):
    """A random crop of `size` samples, zero-padded at the end where the utterance is shorter.

    Returns:
      (int16[size], number of valid samples).
    """
    if len(speech) > size:
        start = int(rng.integers(len(speech) - size + 1))
        return np.array(speech[start:start + size]), size
    return np.pad(speech, (0, size - len(speech))), len(speech)


def cut(num_samples, seconds, minimum):
    """Pieces of an utterance: (start, end) in samples.

    With `seconds`, pieces follow each other without overlap; the last one is moved back to end with the utterance, so
    that it is as long as the others and nothing is lost. An utterance shorter than `seconds` is one piece of its own
    length. `seconds=None` takes the whole utterance. Fewer than `minimum` samples give no piece (a reject).
    """
    if num_samples < minimum:
        return []
    size = num_samples if seconds is None else max(round(seconds * SAMPLE_RATE), minimum)
    if num_samples <= size:
        return [(0, num_samples)]
    starts = [*range(0, num_samples - size, size), num_samples - size]
    return [(start, start + size) for start in starts]
