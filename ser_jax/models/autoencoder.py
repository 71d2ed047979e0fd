"""Recurrent sequence-to-sequence autoencoder of spectrograms: auDeep's "t-rae" (Freitag et al. 2017; Neumann and Vu 2019).

The encoder's final states become one vector, the representation; the decoder unrolls it into the spectrogram again, last
frame first, and reads the true frames shifted by one on the way. Shapes: B batch, F frames, D bands.

The published decoder is bidirectional, and leaks: its backward half reads the shifted targets from their end, so at step t
it has already read target t. Its reconstruction error says little about the representation and must not be compared with
that of the unidirectional decoder, which has read the targets before t only.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx

from ser_jax.audio import audeep
from ser_jax.errors import UsageError, suggestion
from ser_jax.models.gru import GRU, LSTM, reverse_time
from ser_jax.models.layers import apply_mask

CELLS = {"gru": GRU, "lstm": LSTM}
DECODERS = ("bidirectional", "unidirectional")


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes; the defaults are those of Neumann and Vu 2019: 2,659,968 parameters with 128 bands, 1024 features.

    Attributes:
      units, layers: of the encoder and of each direction of the decoder.
      cell: "gru" or "lstm".
      decoder: "bidirectional" (as published; it leaks, see above) or "unidirectional". The representation has
        layers · units values, twice that for a bidirectional decoder, and twice again for LSTM cells.
      dropout: of the input and of the output of every cell, anew for every frame; the states are not dropped.
      frame_dropout: share of whole frames that the encoder does not see in training (auDeep's encoder noise).
      feature_layer, feature_pooling, feature_seconds: what `export` takes unless asked for something else.
    """

    feature_layer: ClassVar[str] = "representation"
    feature_pooling: ClassVar[str] = "mean"  # of its single step
    feature_seconds: ClassVar[float | None] = 7.5

    units: int = 256
    layers: int = 2
    cell: str = "gru"
    decoder: str = "bidirectional"
    dropout: float = 0.2
    frame_dropout: float = 0.0

    def __post_init__(self):
        for name in ("units", "layers"):
            if getattr(self, name) < 1:
                raise UsageError(f"model.{name}={getattr(self, name)}: must be at least 1")
        for name, known in (("cell", CELLS), ("decoder", DECODERS)):
            if getattr(self, name) not in known:
                raise UsageError(f"model.{name}={getattr(self, name)}: unknown{suggestion(getattr(self, name), known)}; "
                                 f"known: {', '.join(known)}")
        for name in ("dropout", "frame_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"model.{name}={getattr(self, name):g}: a share, at least 0 and less than 1")

    @property
    def min_samples(self):
        """Shortest input, in samples: what the front end needs for one frame."""
        return audeep.MIN_SAMPLES

    @property
    def layer_patterns(self):
        """Patterns of the parameters of each layer, see `ser_jax.transfer`; the decoders are above them."""
        return (*(f"encoder/layer_{i + 1}" for i in range(self.layers)), "representation")

    def build(self, num_outputs, *, rngs):
        return Autoencoder(self, num_outputs, rngs=rngs)


def _linear(d_in, d_out, *, rngs):
    return nnx.Linear(d_in, d_out, kernel_init=nnx.initializers.glorot_uniform(), rngs=rngs)


class Stack(nnx.Module):
    """Recurrent layers on top of each other, with dropout around each.

    The output dropout of a layer and the input dropout of the next are one dropout that keeps (1 − p)² of the values: the
    same distribution for half the random numbers.
    """

    def __init__(self, cell, d_in, units, layers, dropout, *, rngs):
        self.depth = layers
        for i in range(1, layers + 1):
            setattr(self, f"layer_{i}", CELLS[cell](d_in if i == 1 else units, units, rngs=rngs))
        self.outside, self.between = nnx.Dropout(dropout), nnx.Dropout(1 - (1 - dropout) ** 2)

    def __call__(self, x, mask, initial, rngs):
        """f32[B, F, D], bool[B, F], None or f32[B, state size] per layer -> (dropped output of the last layer,
        [output of each layer], [final state of each layer])."""
        outputs, finals = [], []
        for i in range(1, self.depth + 1):
            dropout = self.outside if i == 1 else self.between
            x, final = getattr(self, f"layer_{i}")(dropout(x, rngs=rngs), mask, None if initial is None else initial[i - 1])
            outputs.append(x)
            finals.append(final)
        return self.outside(x, rngs=rngs), outputs, finals


class Autoencoder(nnx.Module):
    """Spectrogram in, representation and reconstruction out."""

    def __init__(self, config, bands, *, rngs):
        units, layers = config.units, config.layers
        self.encoder = Stack(config.cell, bands, units, layers, config.dropout, rngs=rngs)
        state_size = self.encoder.layer_1.state_size
        self.depth, self.bidirectional = layers, config.decoder == "bidirectional"
        size = layers * state_size * (2 if self.bidirectional else 1)
        self.representation = _linear(layers * state_size, size, rngs=rngs)
        self.forward = Stack(config.cell, bands, units, layers, config.dropout, rngs=rngs)
        if self.bidirectional:
            self.backward = Stack(config.cell, bands, units, layers, config.dropout, rngs=rngs)
            self.projection = None
            self.output = _linear(2 * units, bands, rngs=rngs)
        else:
            self.projection = _linear(units, bands, rngs=rngs)  # auDeep's decoder that can be fed its own output has two
            self.output = _linear(bands, bands, rngs=rngs)
        self.frame_dropout = nnx.Dropout(config.frame_dropout)

    def __call__(self, x, mask, *, rngs=None):
        """Applies the net.

        Args:
          x: f32[B, F, D], spectrogram in [−1, 1].
          mask: bool[B, F], a prefix of each row.
          rngs: `nnx.Rngs` with a `dropout` stream; needed in training mode.

        Returns:
          reconstruction: f32[B, F, D], frame by frame that of `x`, zero where masked.
          target: `x`, zero where masked.
          mask: bool[B, F], as given.
          taps: {"encoder_1", …: (f32[B, F, units], bool[B, F]), "representation": (f32[B, 1, R], bool[B, 1])}.
        """
        x = apply_mask(x, mask)
        seen = self.frame_dropout(jnp.ones_like(x[..., :1]), rngs=rngs) > 0  # frames go whole; those that stay, unscaled
        _, outputs, finals = self.encoder(x * seen, mask, None, rngs)
        representation = jnp.tanh(self.representation(jnp.concatenate(finals, axis=-1)))
        reconstruction = reverse_time(self.decode(representation, reverse_time(x, mask), mask, rngs=rngs), mask)
        taps = {f"encoder_{i}": (output, mask) for i, output in enumerate(outputs, 1)}
        taps["representation"] = (representation[:, None], mask.any(1, keepdims=True))
        return {"reconstruction": reconstruction, "target": x, "mask": mask, "taps": taps}

    def decode(self, representation, target, mask, *, rngs=None):
        """Reconstructs the target, teacher-forced: its frames shifted by one, from a frame of zeros, are the input.

        Args:
          representation: f32[B, R].
          target: f32[B, F, D], in the order of decoding, i.e. the input reversed in time.

        Returns:
          f32[B, F, D], in the order of decoding, zero where masked.
        """
        shifted = apply_mask(jnp.pad(target, ((0, 0), (1, 0), (0, 0)))[:, :-1], mask)
        states = jnp.split(representation, self.depth, axis=-1)
        if self.bidirectional:
            states, backward_states = zip(*(jnp.split(state, 2, axis=-1) for state in states), strict=True)
        y, _, _ = self.forward(shifted, mask, states, rngs)
        if self.bidirectional:
            backward, _, _ = self.backward(reverse_time(shifted, mask), mask, backward_states, rngs)
            y = jnp.concatenate([y, reverse_time(backward, mask)], axis=-1)
        else:
            y = jnp.tanh(self.projection(y))
        return apply_mask(jnp.tanh(self.output(y)), mask)
