"""Convolutional net over windows of log-mel frames (Fayek, Lech and Cavedon 2016): one answer per frame.

Two convolutions with 2 × 2 max-poolings and three dense layers look at a frame with fifteen neighbours on each side.
Shapes: B batch, F frames, K frames asked for, M mel bands, C classes, D channels. Maps are laid out [window, time, mel,
channel]: windows are cut out of the frames without a transposition, and whole utterances share their convolutions.
"""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from ser_jax.errors import UsageError
from ser_jax.models.conv2d import Conv2D, he_normal, max_pool2d, max_pool_everywhere, normalise_pool
from ser_jax.models.layers import BatchNorm

CHUNK = 1024  # frames of a batch that the dense form takes at a time
MIN_CHUNK = 128  # of a row; each piece of a row also takes its context


@dataclasses.dataclass(frozen=True)
class ConvNetConfig:
    """Sizes; the defaults are the published net: 8,621,008 parameters with 144 classes, 8,478,533 with 5.

    Attributes:
      context: frames on each side of the one that is classified.
      conv_channels: maps of each convolution; each is followed by a 2 × 2 max-pooling, which drops an odd last row.
      conv_kernels: (mel, time) of each convolution; no padding.
      dense: units of the dense layers.
      dropout: drop probability after each dense layer.
      orientation: what the two numbers of a kernel are: "mel_time", or "time_mel" (the paper does not say).
      bands: mel bands of a frame.
      feature_pooling, feature_seconds: what `export` takes unless asked for something else.
    """

    feature_layer: ClassVar[str] = "layer_5"
    feature_pooling: ClassVar[str] = "mean"
    feature_seconds: ClassVar[float | None] = None
    min_samples: ClassVar[int] = 400

    context: int = 15
    conv_channels: tuple[int, ...] = (64, 128)
    conv_kernels: tuple[tuple[int, int], ...] = ((5, 4), (3, 3))
    dense: tuple[int, ...] = (1024, 1024, 1024)
    dropout: float = 0.6
    orientation: str = "mel_time"
    bands: int = 40

    def __post_init__(self):
        object.__setattr__(self, "conv_kernels", tuple(map(tuple, self.conv_kernels)))  # lists when read from JSON
        if self.orientation not in ("mel_time", "time_mel"):
            raise UsageError(f"model.orientation={self.orientation}: choose mel_time or time_mel")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"model.dropout={self.dropout:g}: a share, at least 0 and less than 1")
        if self.context < 0:
            raise UsageError(f"model.context={self.context}: a number of frames, at least 0")
        if len(self.conv_kernels) != len(self.conv_channels) or any(len(size) != 2 for size in self.conv_kernels):
            raise UsageError(f"model.conv_kernels={self.conv_kernels}: name one (mel, time) per entry of conv_channels")
        if not self.conv_channels or len(self.layer_patterns) != 5 or min(self.conv_channels + self.dense) < 1:
            raise UsageError("model.conv_channels and model.dense: five layers together, each of at least one unit")
        if min(min(size) for size in self.map_sizes) < 1:
            raise UsageError(f"model.conv_kernels={self.conv_kernels}: nothing is left of {self.window} frames × "
                             f"{self.bands} bands; choose smaller kernels or a longer context")

    @property
    def window(self):
        """Frames of a window."""
        return 2 * self.context + 1

    @property
    def layer_patterns(self):
        """Names of the parameter subtrees from input to output, without the head."""
        return tuple(f"layer_{i + 1}" for i in range(len(self.conv_channels) + len(self.dense)))

    @property
    def kernel_sizes(self):
        """(time, mel) of each convolution, as they are laid out."""
        return tuple((b, a) if self.orientation == "mel_time" else (a, b) for a, b in self.conv_kernels)

    @property
    def map_sizes(self):
        """(time, mel) of a window's map after each pooling."""
        sizes = [(self.window, self.bands)]
        for kernel in self.kernel_sizes:
            sizes.append(tuple((size - taps + 1) // 2 for size, taps in zip(sizes[-1], kernel)))
        return tuple(sizes[1:])

    def build(self, num_outputs, *, rngs):
        return ConvNet(self, num_outputs, rngs=rngs)


class Standardise(nnx.Module):
    """Subtracts a mean and divides by a standard deviation per band; both are given, neither is trained nor updated."""

    def __init__(self, bands, epsilon=1e-5):
        self.mean, self.var = nnx.BatchStat(jnp.zeros(bands)), nnx.BatchStat(jnp.ones(bands))
        self.epsilon = epsilon

    def __call__(self, x):
        return (x - self.mean[...]) * jax.lax.rsqrt(self.var[...] + self.epsilon)


class ConvLayer(nnx.Module):
    """Convolution, batch normalisation, ReLU, 2 × 2 max-pooling."""

    def __init__(self, size, c_in, c_out, *, rngs):
        self.conv, self.norm = Conv2D(size, c_in, c_out, rngs=rngs), BatchNorm(c_out)

    def __call__(self, x):
        """f32[N, H, W, C] -> f32[N, H' // 2, W' // 2, c_out]."""
        x, norm = self.conv(x), self.norm
        if norm.use_running_average:
            return max_pool2d(jax.nn.relu(_normalised(norm, x)))
        y, mean, var = normalise_pool(x, norm.scale[...], norm.bias[...], norm.epsilon)
        norm.mean[...] = norm.decay * norm.mean[...] + (1 - norm.decay) * (mean + norm.input_bias[...])
        norm.var[...] = norm.decay * norm.var[...] + (1 - norm.decay) * var
        return y

    def everywhere(self, x, distance):
        """The same at every row; rows that are neighbours in a window are `distance` apart."""
        return max_pool_everywhere(jax.nn.relu(_normalised(self.norm, self.conv(x, distance))), distance)


class DenseLayer(nnx.Module):
    """Matrix, batch normalisation, ReLU; dropout is applied to what it returns."""

    def __init__(self, d_in, d_out, *, rngs):
        self.dense = nnx.Linear(d_in, d_out, use_bias=False, kernel_init=he_normal, rngs=rngs)
        self.norm = BatchNorm(d_out)

    def __call__(self, x):
        """f32[N, D] -> f32[N, d_out]."""
        return self.activate(self.dense(x))

    def activate(self, x):
        return jax.nn.relu(_normalised(self.norm, x))


def _normalised(norm, x):
    """Batch normalisation of a map all of which is valid: f32[N, …, D] -> the same shape."""
    flat = x.reshape(1, -1, x.shape[-1])
    return norm(flat, jnp.ones(flat.shape[:2], bool)).reshape(x.shape)


class ConvNet(nnx.Module):
    """Frames in, logits of the frames asked for and every layer's output out."""

    def __init__(self, config, num_classes, *, rngs):
        self.config = config
        self.input = Standardise(config.bands)
        self.convolutions, c_in = len(config.conv_channels), 1
        for name, size, c_out in zip(config.layer_patterns, config.kernel_sizes, config.conv_channels):
            setattr(self, name, ConvLayer(size, c_in, c_out, rngs=rngs))
            c_in = c_out
        d_in = c_in * math.prod(config.map_sizes[-1])
        for name, d_out in zip(config.layer_patterns[self.convolutions :], config.dense):
            setattr(self, name, DenseLayer(d_in, d_out, rngs=rngs))
            d_in = d_out
        self.dropout = nnx.Dropout(config.dropout)
        self.head = nnx.Linear(d_in, num_classes, kernel_init=he_normal, rngs=rngs)

    def __call__(self, frames, mask, centres=None, *, rngs=None):
        """Applies the net.

        Args:
          frames: f32[B, F, M], log-mel energies.
          mask: bool[B, F], a prefix of each row. Windows repeat the first and the last valid frame beyond the ends.
          centres: i32[B, K], the frames to classify, each valid; None = all of them (K = F), in inference mode only:
            neighbouring windows then share their convolutions.
          rngs: `nnx.Rngs` with a `dropout` stream; needed in training mode.

        Returns:
          logits: f32[B, K, C].
          mask: bool[B, K], what is to be used of them: all when `centres` are given, `mask` otherwise.
          taps: {"layer_1", …, "layer_5"} -> (f32[B, K, D], bool[B, K]), zero where masked; of a convolution the mean
            over its pooled map.

        Raises:
          ValueError: no centres in training mode.
        """
        if centres is None:
            if not self._in_inference():
                raise ValueError("centres are needed in training mode")
            flat, taps = self._dense(self.input(frames), mask)
            valid, shape = mask, mask.shape
        else:
            valid, shape = jnp.ones(centres.shape, bool), centres.shape
            flat, taps = self._windows(windows(self.input(frames), mask, centres, self.config.context), rngs)
        return {"logits": self.head(flat).reshape(*shape, -1), "mask": valid,
                "taps": {name: (jnp.where(valid[..., None], tap.reshape(*shape, -1), 0), valid)
                         for name, tap in taps.items()}}

    def _in_inference(self):
        return self.dropout.deterministic and all(self._layer(i).norm.use_running_average
                                                  for i in range(len(self.config.layer_patterns)))

    def _layer(self, index):
        return getattr(self, self.config.layer_patterns[index])

    def _windows(self, x, rngs):
        """f32[N, T, M] -> f32[N, D], taps {name: f32[N, D]}."""
        x, taps = x[..., None], {}
        for i in range(self.convolutions):
            x = self._layer(i)(x)
            taps[f"layer_{i + 1}"] = x.mean((1, 2))
        return self._classifier(self._layer(self.convolutions)(x.reshape(len(x), -1)), taps, rngs)

    def _classifier(self, x, taps, rngs=None):
        """The dense layers after the first, whose output comes in."""
        taps[f"layer_{self.convolutions + 1}"] = x
        for i in range(self.convolutions + 1, len(self.config.layer_patterns)):
            x = self._layer(i)(self.dropout(x, rngs=rngs))
            taps[f"layer_{i + 1}"] = x
        return self.dropout(x, rngs=rngs), taps

    def _dense(self, frames, mask):
        """f32[B, F, M] -> f32[B F, D], taps {name: f32[B F, D]}, of every frame; some of every row at a time."""
        (batch, size, bands), context = frames.shape, self.config.context
        count = -(-size // max(CHUNK // batch, MIN_CHUNK))
        length = -(-size // count)
        place = jnp.arange(count)[:, None] * length + jnp.arange(-context, length + context)
        index = jnp.clip(place.reshape(1, -1), 0, jnp.maximum(mask.sum(1) - 1, 0)[:, None])
        chunks = jnp.take_along_axis(frames, index[..., None], 1).reshape(batch, count, -1, bands).swapaxes(0, 1)
        found = jax.lax.map(self._chunk, chunks) if count > 1 else jax.tree.map(lambda x: x[None], self._chunk(chunks[0]))

        def joined(x):
            x = x.reshape(count, batch, length, -1).swapaxes(0, 1)
            return x.reshape(batch, count * length, -1)[:, :size].reshape(batch * size, -1)

        return jax.tree.map(joined, found)

    def _chunk(self, frames):
        """f32[R, S + 2 context, M] -> f32[R S, D], taps {name: f32[R S, D]}, of the S frames that are no context.

        What the windows would do one by one: a window's row i of a map is row c + i d of the whole's, where d doubles
        with every pooling.
        """
        x, taps, distance = frames[..., None], {}, 1
        length = frames.shape[1] - 2 * self.config.context
        for i, rows in enumerate(rows for rows, _ in self.config.map_sizes):
            x, distance = self._layer(i).everywhere(x, distance), 2 * distance
            mean = x.mean(2)
            taps[f"layer_{i + 1}"] = sum(mean[:, r * distance : r * distance + length] for r in range(rows)) / rows
            taps[f"layer_{i + 1}"] = taps[f"layer_{i + 1}"].reshape(-1, x.shape[-1])
        x = x.reshape(*x.shape[:2], -1)
        x = jnp.concatenate([x[:, r * distance : r * distance + length] for r in range(rows)], -1)
        return self._classifier(self._layer(self.convolutions)(x.reshape(-1, x.shape[-1])), taps)


def windows(frames, mask, centres, context):
    """Cuts windows out: f32[B, F, M], bool[B, F], i32[B, K] -> f32[B K, 2 context + 1, M]; the first and last valid frame
    of a row are repeated beyond its ends."""
    last = jnp.maximum(mask.sum(1) - 1, 0)[:, None, None]
    index = jnp.clip(centres[..., None] + jnp.arange(-context, context + 1), 0, last)
    cut = jax.vmap(lambda row, place: row[place])(frames, index)
    return cut.reshape(-1, *cut.shape[2:])
