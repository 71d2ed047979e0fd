"""WaveNet-style recogniser of characters (Kim and Park 2016, speech-to-text-wavenet), the encoder of Tits et al. 2018.

Fifteen gated blocks of dilated, non-causal convolutions over cepstra. Shapes: B batch, F frames, C channels, K symbols.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from ser_jax.audio import mfcc
from ser_jax.errors import UsageError
from ser_jax.models.layers import BatchNorm, apply_mask


@dataclasses.dataclass(frozen=True)
class WaveNetConfig:
    """Sizes; the defaults are the published net: 3,720,988 parameters with 28 symbols, 559 frames of receptive field.

    Attributes:
      channels: of every block; each block gives one feature per channel (15 × 128 = 1920 values).
      kernel: taps of the dilated convolutions, odd.
      dilations: of the blocks, in frames.
      dropout: before the last layer; 0 in the published net.
      normalise_input: normalise each cepstral coefficient over the training batch first, off in the published net. The first
        coefficient varies ten times as much as those that tell vowels apart, so with little speech the net otherwise spends
        thousands of steps on loudness.
      feature_layer, feature_pooling, feature_seconds: what `export` takes unless asked for something else: the mean over
        time of every gated unit, over whole utterances (Tits et al., §2.2).
    """

    feature_layer: ClassVar[str] = "gcu_*"
    feature_pooling: ClassVar[str] = "mean"
    feature_seconds: ClassVar[float | None] = None

    channels: int = 128
    kernel: int = 7
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16) * 3
    dropout: float = 0.0
    normalise_input: bool = False

    def __post_init__(self):
        if self.channels < 1:
            raise UsageError(f"model.channels={self.channels}: must be at least 1")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"model.dropout={self.dropout:g}: a share, at least 0 and less than 1")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise UsageError(f"model.kernel={self.kernel}: must be odd, the convolutions look equally far both ways")
        if not self.dilations or min(self.dilations) < 1:
            raise UsageError("model.dilations: name one dilation, at least 1, per block")

    @property
    def min_samples(self):
        """Shortest input, in samples: what the front end needs for one frame."""
        return mfcc.MIN_SAMPLES

    @property
    def layer_patterns(self):
        """Patterns of the parameters of each layer, see `ser_jax.transfer`."""
        return ("input_norm,front*", *(f"block_{i + 1:02d}" for i in range(len(self.dilations))), "head*")

    def build(self, num_outputs, *, rngs):
        return WaveNet(self, num_outputs, rngs=rngs)


def _conv(c_in, c_out, kernel, dilation, fan, *, rngs):
    """SAME convolution without bias (a batch normalisation follows); weights uniform in ±sqrt(1 / fan).

    The published code takes kernel · c_in for the fan of a dilated convolution, sqrt(c_in · c_out) for that of a 1×1 one.
    """
    init = _uniform(fan)
    return nnx.Conv(c_in, c_out, (kernel,), kernel_dilation=dilation, use_bias=False, kernel_init=init, rngs=rngs)


def _uniform(fan):
    bound = fan**-0.5
    return lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)


def _norm(channels):
    return BatchNorm(channels, decay=0.99, epsilon=1e-8, input_bias=False)


class GatedBlock(nnx.Module):
    """tanh(BN(conv)) · sigmoid(BN(conv)), dilated; then a 1×1 conv–BN–tanh that feeds both the next block and the head.

    Filter and gate are one convolution of twice the width: the same numbers, half the launches.
    """

    def __init__(self, channels, kernel, dilation, *, rngs):
        self.gated = _conv(channels, 2 * channels, kernel, dilation, kernel * channels, rngs=rngs)
        self.gated_norm = _norm(2 * channels)
        self.out = _conv(channels, channels, 1, 1, channels, rngs=rngs)
        self.out_norm = _norm(channels)

    def __call__(self, z, mask):
        """z: f32[B, F, C], zero where masked -> (filter, gated unit, output), each f32[B, F, C], zero where masked."""
        filters, gate = jnp.split(self.gated_norm(self.gated(z), mask), 2, axis=-1)
        filters = jnp.tanh(filters)
        unit = filters * jax.nn.sigmoid(gate)
        return filters, unit, jnp.tanh(self.out_norm(self.out(unit), mask))


class WaveNet(nnx.Module):
    """Cepstra in, logits of characters and every block's activations out."""

    def __init__(self, config, num_symbols, *, rngs):
        channels = config.channels
        self.input_norm = _norm(mfcc.COEFFICIENTS) if config.normalise_input else None
        self.front = _conv(mfcc.COEFFICIENTS, channels, 1, 1, (mfcc.COEFFICIENTS * channels) ** 0.5, rngs=rngs)
        self.front_norm = _norm(channels)
        self.depth = len(config.dilations)
        for i, dilation in enumerate(config.dilations, 1):
            setattr(self, f"block_{i:02d}", GatedBlock(channels, config.kernel, dilation, rngs=rngs))
        self.head = _conv(channels, channels, 1, 1, channels, rngs=rngs)
        self.head_norm = _norm(channels)
        self.dropout = nnx.Dropout(config.dropout)
        init = _uniform((channels * num_symbols) ** 0.5)
        self.symbols = nnx.Linear(channels, num_symbols, kernel_init=init, rngs=rngs)

    def __call__(self, x, mask, *, rngs=None):
        """Applies the net.

        Args:
          x: f32[B, F, 20], cepstra.
          mask: bool[B, F], a prefix of each row.
          rngs: `nnx.Rngs` with a `dropout` stream; needed in training mode.

        Returns:
          logits: f32[B, F, K].
          mask: bool[B, F], as given.
          taps: {"front", "filter_01", "gcu_01", "out_01", …, "skip", "head"} -> (f32[B, F, C], bool[B, F]). The gated unit
            of a block is what Tits et al. take features from.
        """
        x = apply_mask(x, mask) if self.input_norm is None else self.input_norm(x, mask)
        z = jnp.tanh(self.front_norm(self.front(x), mask))
        taps, skip = {"front": (z, mask)}, 0
        for i in range(1, self.depth + 1):
            filters, unit, out = getattr(self, f"block_{i:02d}")(z, mask)
            z, skip = z + out, skip + out
            taps |= {f"filter_{i:02d}": (filters, mask), f"gcu_{i:02d}": (unit, mask), f"out_{i:02d}": (out, mask)}
        taps["skip"] = (skip, mask)
        head = jnp.tanh(self.head_norm(self.head(skip), mask))
        taps["head"] = (head, mask)
        return {"logits": self.symbols(self.dropout(head, rngs=rngs)), "mask": mask, "taps": taps}
