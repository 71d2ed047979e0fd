"""Pieces of utterances through the devices of this process, in batches of few shapes; processes share the work."""

import jax
import numpy as np

from ser_jax import sharding
from ser_jax.data import batches
from ser_jax.errors import UsageError


class Devices:
    """The devices of an export.

    Args:
      batch_size: rows of a device batch, rounded up to a multiple of the devices.
      devices: default: the devices of this process.

    Attributes:
      batch_size: rounded.
      replicated: sharding of weights and results.

    Raises:
      UsageError: no rows.
    """

    def __init__(self, batch_size=32, devices=None):
        if batch_size < 1:
            raise UsageError(f"--batch-size {batch_size}: must be at least 1")
        self.mesh = sharding.mesh(devices or jax.local_devices())
        self.batch_size = -(-batch_size // self.mesh.size) * self.mesh.size
        self.replicated = sharding.replicated(self.mesh)

    def run(self, forward, speech_of, pieces, seconds):
        """Yields (pieces of a batch, its results as numpy) until all pieces are through, in an order of its own.

        Args:
          forward: {"speech": int16[B, T], "length": int32[B]} -> tuple of arrays whose rows are those of the batch;
            jitted. There may be rows without a piece behind the others.
          speech_of: row -> int16[T].
          pieces: list[batches.Piece].
          seconds: length of the pieces, None if it is that of the utterances.
        """
        groups = batches.batched(pieces, self.batch_size, seconds)
        made = batches.ahead(lambda group: batches.load(speech_of, *group, self.batch_size), groups)
        waiting = None
        for (_, members), batch in zip(groups, made, strict=True):
            running = members, forward(sharding.put(batch, self.mesh))
            if waiting:
                yield _fetched(*waiting)  # while the devices work on the next batch
            waiting = running
        if waiting:
            yield _fetched(*waiting)


def _fetched(members, outputs):
    return members, [np.asarray(output) for output in outputs]


def processes():
    """(index of this process, how many there are)."""
    return jax.process_index(), jax.process_count()


def wait_for_others():
    """Returns when all processes have come here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils
        multihost_utils.sync_global_devices("export parts")
