"""A frozen checkpoint as a function from pieces of utterances to embeddings."""

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax import sharding
from ser_jax.data import batches
from ser_jax.errors import UsageError, suggestion
from ser_jax.models.layers import masked_max, masked_mean, masked_std

POOLINGS = {"mean": masked_mean, "max": masked_max, "std": masked_std}


class Embedder:
    """Applies a checkpoint to utterances; an embedding depends on nothing but its own utterance and the checkpoint.

    Args:
      trained: checkpoint.Trained.
      layer: name of a tap; "" = the feature layer that the model names.
      pooling: "mean", "max", "std" or several joined by "+" (concatenated in that order), or "none" for every step.
      seconds: length of the pieces; None = whole utterances.
      batch_size: rows of a device batch, rounded up to a multiple of the devices.
      devices: default: the devices of this process.

    Raises:
      UsageError: unknown layer or pooling.
    """

    def __init__(self, trained, layer="", pooling="mean+max", seconds=5.0, batch_size=32, devices=None):
        self.network, self.seconds, self.pooling = trained.network, seconds, pooling
        self.mesh = sharding.mesh(devices or jax.local_devices())
        taps = jax.eval_shape(self.network.apply, trained.params, trained.stats, self._example())["taps"]
        self.layer = layer or trained.experiment.model.feature_layer
        _check_name("--layer", self.layer, taps)
        names = pooling.split("+")
        for name in names:
            _check_name("--pooling", name, [*POOLINGS, "none"] if len(names) == 1 else POOLINGS)
        if batch_size < 1:
            raise UsageError(f"--batch-size {batch_size}: must be at least 1")
        self.batch_size = -(-batch_size // self.mesh.size) * self.mesh.size
        replicate = sharding.replicated(self.mesh)
        self._weights = jax.device_put((trained.params, trained.stats), replicate)
        self._forward = jax.jit(self._embed, out_shardings=replicate)

    def _example(self):
        size = max(self.network.task.min_samples, 16_000)
        return {"speech": jax.ShapeDtypeStruct((1, size), jnp.int16), "length": jax.ShapeDtypeStruct((1,), jnp.int32)}

    def _embed(self, params, stats, batch):
        # TF32 and bf16 passes differ between batch shapes; an embedding must not.
        with jax.default_matmul_precision("highest"):
            x, mask = self.network.apply(params, stats, batch)["taps"][self.layer]
        if self.pooling == "none":
            return x, mask
        return jnp.concatenate([POOLINGS[name](x, mask) for name in self.pooling.split("+")], axis=-1), mask.any(1)

    def run(self, speech_of, pieces):
        """Yields (piece, f32[D], or f32[steps, D] without pooling) for every piece, in an order of its own.

        Args:
          speech_of: row -> int16[T].
          pieces: list[batches.Piece].
        """
        groups = batches.batched(pieces, self.batch_size, self.seconds)
        made = batches.ahead(lambda group: batches.load(speech_of, *group, self.batch_size), groups)
        waiting = None
        for (_, members), batch in zip(groups, made, strict=True):
            running = members, self._forward(*self._weights, sharding.put(batch, self.mesh))
            if waiting:
                yield from self._unpack(*waiting)  # while the devices work on the next batch
            waiting = running
        if waiting:
            yield from self._unpack(*waiting)

    def _unpack(self, members, outputs):
        values, valid = (np.asarray(output) for output in outputs)
        for i, piece in enumerate(members):
            yield piece, values[i, : valid[i].sum()] if self.pooling == "none" else values[i]


def _check_name(option, word, known):
    if word not in known:
        raise UsageError(f"{option} {word}: unknown{suggestion(word, known)}; known: {', '.join(known)}")
