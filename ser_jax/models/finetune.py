"""A pretrained encoder, masked pooling over time and a small head: end-to-end fine-tuning (`pretrain --init-from`).

The encoder is any model of the registry. What it has above its layers (the output of its own task: a classifier, a decoder) is
not part of the fine-tuned model: it has no parameters here, is not computed and is not saved.
Shapes: B batch, S steps of a tap, D channels, K outputs.
"""

import contextlib
import dataclasses
import fnmatch
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from ser_jax.errors import UsageError, suggestion
from ser_jax.models.layers import POOLINGS
from ser_jax.transfer import matches

SOURCE_NEEDED = ("model.encoder and task.front_end are empty: name the run to start from, --init-from WORKDIR, or write both "
                 "into the config (random start)")


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """What is fine-tuned, and the head on it.

    Attributes:
      encoder: config of the encoder; None = that of `transfer.init_from`, filled in when the run begins.
      layer: names or shell patterns of its taps, separated by commas, pooled each on its own; "" = its `feature_layer`.
      pooling: "mean", "max", "std" or several joined by "+", over the valid steps.
      dropout: of the pooled vector, and of the hidden layer.
      hidden: units of one ReLU layer below the output; 0 = none.
      channels: last axis of the encoder's input (bands, coefficients); 0 = a waveform. Filled in from `task.front_end`.
      carries: prefix of the paths of the source's parameters; filled in, "" where the source is a fine-tuned model itself.
    """

    feature_layer: ClassVar[str] = "pooled"
    feature_pooling: ClassVar[str] = "mean"  # of its single step

    encoder: Any = None
    layer: str = ""
    pooling: str = "mean"
    dropout: float = 0.0
    hidden: int = 0
    channels: int = 0
    carries: str = "encoder/"

    def __post_init__(self):
        for name in self.pooling.split("+"):
            if name not in POOLINGS:
                raise UsageError(f"model.pooling={self.pooling}: unknown {name!r}{suggestion(name, POOLINGS)}; known: "
                                 f"{', '.join(POOLINGS)}, several joined by +")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"model.dropout={self.dropout:g}: a share, at least 0 and less than 1")
        if self.hidden < 0:
            raise UsageError(f"model.hidden={self.hidden}: a number of units; 0 = no hidden layer")

    def complete_from(self, source, task):
        """With the encoder of the source (that of a fine-tuned source, when it is one) and what its front end gives.

        Args:
          source: config.Experiment, or None.
          task: the task config of this run, complete.
        """
        again = source is not None and type(source.model) is type(self)
        encoder = self.encoder
        if encoder is None and source is not None:
            encoder = source.model.encoder if again else source.model
        if encoder is None:
            raise UsageError(SOURCE_NEEDED)
        carries = "" if again else type(self).carries
        return dataclasses.replace(self, encoder=encoder, carries=carries, channels=_input_channels(task))

    @property
    def feature_seconds(self):
        """Length of the pieces that `export` takes: that of the encoder."""
        return self._known.feature_seconds

    @property
    def min_samples(self):
        """Shortest input, in samples: that of the encoder."""
        return self._known.min_samples

    @property
    def layer_patterns(self):
        """Patterns of the parameters of each layer of the encoder, see `ser_jax.transfer`."""
        return tuple(",".join(f"encoder/{pattern.strip()}" for pattern in group.split(","))
                     for group in self._known.layer_patterns)

    @property
    def _known(self):
        if self.encoder is None:
            raise UsageError(SOURCE_NEEDED)
        return self.encoder

    def build(self, num_outputs, *, rngs):
        return Finetuned(self, num_outputs, rngs=rngs)


class Head(nnx.Module):
    """Dropout, a hidden ReLU layer where one is asked for, the output layer: f32[B, D] -> f32[B, K]."""

    def __init__(self, d_in, hidden, outputs, dropout, *, rngs):
        self.hidden = nnx.Linear(d_in, hidden, kernel_init=nnx.initializers.he_normal(), rngs=rngs) if hidden else None
        self.output = nnx.Linear(hidden or d_in, outputs, rngs=rngs)
        self.dropout = nnx.Dropout(dropout)

    def __call__(self, x, rngs):
        x = self.dropout(x, rngs=rngs)
        if self.hidden is not None:
            x = self.dropout(jax.nn.relu(self.hidden(x)), rngs=rngs)
        return self.output(x)


class Units(nnx.Module):
    """From standardised outputs to the unit of the labels; given by the task (`calibrate`), never trained."""

    def __init__(self, outputs):
        self.mean, self.scale = nnx.BatchStat(jnp.zeros(outputs)), nnx.BatchStat(jnp.ones(outputs))

    def __call__(self, x):
        return x * self.scale[...] + self.mean[...]


class Finetuned(nnx.Module):
    """What the encoder reads in; outputs of the utterance, the encoder's taps and the pooled vector out."""

    def __init__(self, config, num_outputs, *, rngs):
        self.config = config
        self.encoder = config.encoder.build(_own_outputs(config), rngs=rngs)
        self.absent = _without_output(self.encoder, config.encoder.layer_patterns)
        sizes = tap_sizes(config.encoder, config.channels)
        self.layers = _matching(config.layer or config.encoder.feature_layer, sizes)
        d_in = sum(sizes[name] for name in self.layers) * len(config.pooling.split("+"))
        self.head = Head(d_in, config.hidden, num_outputs, config.dropout, rngs=rngs)
        self.units = Units(num_outputs)

    def __call__(self, *inputs, rngs=None):
        """Applies the net.

        Args:
          *inputs: those of the encoder, as its task makes them, e.g. (x[B, T], mask[B, T]).
          rngs: `nnx.Rngs` with a `dropout` stream; needed in training mode.

        Returns:
          logits: f32[B, K], in the unit of the labels for numbers.
          scale: f32[K], the unit of the head's own outputs; ones for classes.
          taps: those of the encoder and "pooled" (f32[B, 1, D], bool[B, 1]).
        """
        with _lent(self.encoder, self.absent):  # nothing that depends on them is used, so nothing of it is computed
            taps = self.encoder(*inputs, rngs=rngs)["taps"]
        pooled = jnp.concatenate([POOLINGS[name](*taps[layer]) for layer in self.layers
                                  for name in self.config.pooling.split("+")], axis=-1)
        valid = taps[self.layers[0]][1].any(1, keepdims=True)
        return {"logits": self.units(self.head(pooled, rngs)), "scale": self.units.scale[...],
                "taps": {**taps, "pooled": (pooled[:, None], valid)}}


def _own_outputs(config):
    """Outputs that the encoder is built with: they only count where they are as many as the channels of the input (the
    autoencoder); elsewhere the layer that has them is taken away."""
    return max(config.channels, 1)


@functools.lru_cache
def tap_sizes(encoder, channels):
    """{tap: its channels}, in the order of the model; nothing is computed.

    Args:
      encoder: config of a model.
      channels: last axis of its input; 0 = a waveform.
    """
    model = nnx.eval_shape(lambda: encoder.build(max(channels, 1), rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(model)
    steps = 100 if channels else max(encoder.min_samples, 16_000)
    x = jax.ShapeDtypeStruct((1, steps, channels) if channels else (1, steps), jnp.float32)
    sizes = {}

    def note(state, x, mask):  # what eval_shape returns is sorted by name
        model = nnx.merge(graphdef, state)
        model.eval()
        sizes.update({name: tap.shape[-1] for name, (tap, _) in model(x, mask)["taps"].items()})

    jax.eval_shape(note, state, x, jax.ShapeDtypeStruct((1, steps), jnp.bool_))
    return sizes


def _matching(text, taps):
    """Taps that a comma list of names and shell patterns asks for, in the order of the model."""
    chosen = set()
    for word in text.split(","):
        found = fnmatch.filter(taps, word.strip())
        if not found:
            raise UsageError(f"model.layer={text}: the encoder has no {word.strip()!r}{suggestion(word.strip(), taps)}; "
                             f"it has {', '.join(taps)}")
        chosen.update(found)
    return tuple(name for name in taps if name in chosen)


def _without_output(encoder, patterns):
    """Takes the parameters that are in no layer away from a model: ((path, shape), …) of them."""
    taken = []
    for path, variable in nnx.to_flat_state(nnx.state(encoder, nnx.Param)):
        if not matches("/".join(map(str, path)), patterns):
            setattr(_parent(encoder, path), path[-1], None)
            taken.append((path, variable[...].shape))
    return tuple(taken)


@contextlib.contextmanager
def _lent(encoder, absent):
    """Zeros in the place of the parameters that were taken away, so that the encoder can be called as it is."""
    for path, shape in absent:
        setattr(_parent(encoder, path), path[-1], nnx.Param(jnp.zeros(shape)))
    try:
        yield
    finally:
        for path, _ in absent:
            setattr(_parent(encoder, path), path[-1], None)


def _parent(module, path):
    return functools.reduce(getattr, path[:-1], module)


def _input_channels(task):
    """Last axis of what the front end of a task config gives, 0 for a waveform."""
    front = getattr(task, "front_end", task).build()
    batch = {"speech": jax.ShapeDtypeStruct((1, max(front.min_samples, 16_000)), jnp.int16),
             "length": jax.ShapeDtypeStruct((1,), jnp.int32)}
    x = jax.eval_shape(front.inputs, batch)[0]
    return x.shape[2] if x.ndim == 3 else 0
