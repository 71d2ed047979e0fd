"""A frozen checkpoint as a function from pieces of utterances to embeddings."""

import fnmatch

import jax
import jax.numpy as jnp

from ser_jax.errors import UsageError, suggestion
from ser_jax.export.devices import Devices
from ser_jax.export.layers import layer_columns
from ser_jax.models.layers import POOLINGS


class Embedder:
    """Applies a checkpoint to utterances; an embedding depends on nothing but its own utterance and the checkpoint.

    Several layers are pooled each on its own, on the device, and stand side by side: layer 1, layer 2, …

    Args:
      trained: checkpoint.Trained.
      layer: names or shell patterns of taps, separated by commas, e.g. "gcu_*"; whatever their order here, the layers
        are in that of the model. None = the model's `feature_layer`.
      pooling: "mean", "max", "std" or several joined by "+" (concatenated in that order), or "none" for every step.
        None = the model's `feature_pooling`.
      seconds: length of the pieces, or "whole" for whole utterances. None = the model's `feature_seconds`.
      batch_size: rows of a device batch, rounded up to a multiple of the devices.
      devices: default: the devices of this process.

    Attributes:
      layer, pooling: as asked for, or the model's.
      seconds: length of the pieces; None = whole utterances.
      columns: which values of an embedding belong to which layer; see `export.features`.

    Raises:
      UsageError: unknown layer or pooling; steps asked for of layers that do not have the same.
    """

    def __init__(self, trained, layer=None, pooling=None, seconds=None, batch_size=32, devices=None):
        model, self.network = trained.experiment.model, trained.network
        self.layer = model.feature_layer if layer is None else layer
        self.pooling = model.feature_pooling if pooling is None else pooling
        self.seconds = model.feature_seconds if seconds is None else None if seconds == "whole" else seconds
        names = self.pooling.split("+")
        for name in names:
            _check_name("--pooling", name, [*POOLINGS, "none"] if len(names) == 1 else POOLINGS)
        taps = self._taps(trained)
        self.layers = _matching(self.layer, taps)
        if self.pooling == "none":
            _check_steps({name: taps[name][1] for name in self.layers})
        self.columns = layer_columns(self.layers, [taps[name][-1] * len(names) for name in self.layers])
        self.devices = Devices(batch_size, devices)
        self._weights = jax.device_put((trained.params, trained.stats), self.devices.replicated)
        self._forward = jax.jit(self._embed, out_shardings=self.devices.replicated)

    def _taps(self, trained):
        """{tap: shape of its values for one utterance}, in the order of the model."""
        size = max(self.network.task.min_samples, 16_000)
        example = {"speech": jax.ShapeDtypeStruct((1, size), jnp.int16), "length": jax.ShapeDtypeStruct((1,), jnp.int32)}
        shapes = {}

        def note(*inputs):  # what eval_shape returns is sorted by name
            shapes.update({name: x.shape for name, (x, _) in self.network.apply(*inputs)["taps"].items()})

        jax.eval_shape(note, trained.params, trained.stats, example)
        return shapes

    def _embed(self, params, stats, batch):
        taps = self.network.apply(params, stats, batch)["taps"]
        chosen = [taps[name] for name in self.layers]
        if self.pooling == "none":
            return jnp.concatenate([x for x, _ in chosen], axis=-1), chosen[0][1]
        pooled = [POOLINGS[name](*tap) for tap in chosen for name in self.pooling.split("+")]
        return (jnp.concatenate(pooled, axis=-1),)

    def run(self, speech_of, pieces):
        """Yields (piece, f32[D], or f32[steps, D] without pooling) for every piece, in an order of its own.

        Args:
          speech_of: row -> int16[T].
          pieces: list[batches.Piece].
        """
        for members, (values, *masks) in self.devices.run(lambda batch: self._forward(*self._weights, batch), speech_of,
                                                          pieces, self.seconds):
            for i, piece in enumerate(members):
                yield piece, values[i, :masks[0][i].sum()] if masks else values[i]


def _check_name(option, word, known):
    if word not in known:
        raise UsageError(f"{option} {word}: unknown{suggestion(word, known)}; known: {', '.join(known)}")


def _matching(text, taps):
    """Names of the taps that a comma list of names and shell patterns asks for, in the order of the taps."""
    chosen = set()
    for word in text.split(","):
        found = fnmatch.filter(taps, word.strip())
        if not found:
            _check_name("--layer", word.strip(), taps)
        chosen.update(found)
    return [name for name in taps if name in chosen]


def _check_steps(steps):
    first, *others = steps
    for name in others:
        if steps[name] != steps[first]:
            raise UsageError(f"--pooling none: {name} has {steps[name]} steps where {first} has {steps[first]}; "
                             "export them one by one, or choose a pooling")
