"""SampleCNN with residual blocks on the raw waveform (Schiller et al. 2020, §2.1; Lee et al. 2017).

Shapes: B batch, T samples, S steps of a layer, C channels, K classes.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from ser_jax.errors import UsageError
from ser_jax.models.layers import BatchNorm, PatchConv, apply_mask, conv1d, masked_mean, max_pool3, pool_mask


@dataclasses.dataclass(frozen=True)
class SampleCNNConfig:
    """Sizes of a SampleCNN. The defaults are net A: 3,424,000 parameters and 1,538 of the gender head.

    Attributes:
      stem_filters: filters of the first convolution (kernel 3).
      stem_stride: 3 (net A) or 1 (net B: three times the time resolution, three times the cost).
      filters: filters of the residual blocks, each of which ends in a max-pooling by three.
      final_filters: maps of the feature layer; mean and maximum over time make the embedding (768 -> 1536 values).
      final_kernel: 1 or 3, kernel of the feature layer.
      dropout: on the feature layer, before the time-distributed dense layer.
      feature_layer, feature_pooling, feature_seconds: what `export` takes unless asked for something else.
    """

    feature_layer: ClassVar[str] = "features"
    feature_pooling: ClassVar[str] = "mean+max"
    feature_seconds: ClassVar[float | None] = 5.0

    stem_filters: int = 128
    stem_stride: int = 3
    filters: tuple[int, ...] = (128, 128, 256, 256, 256, 256, 512)
    final_filters: int = 768
    final_kernel: int = 1
    dropout: float = 0.5

    def __post_init__(self):
        if self.stem_stride not in (1, 3):
            raise UsageError(f"model.stem_stride={self.stem_stride}: choose 3 (net A) or 1 (net B)")
        if not self.filters:
            raise UsageError("model.filters is empty: name one filter count per residual block")

    @property
    def min_samples(self):
        """Samples between two steps of the feature layer; also the shortest input that gives one (6,561 in net A)."""
        return self.stem_stride * 3 ** len(self.filters)

    @property
    def layer_patterns(self):
        """Patterns of the parameters of each layer, see `ser_jax.transfer`."""
        return ("stem*", *(f"block_{i + 1}" for i in range(len(self.filters))), "final*")

    def build(self, num_outputs, *, rngs):
        return SampleCNN(self, num_outputs, rngs=rngs)


class ResidualBlock(nnx.Module):
    """conv3–BN–ReLU–conv3–BN, plus the input (through conv1–BN where the width changes), ReLU, max-pooling by three."""

    def __init__(self, c_in, c_out, *, rngs):
        self.conv_1, self.norm_1 = conv1d(c_in, c_out, 3, rngs=rngs), BatchNorm(c_out)
        self.conv_2, self.norm_2 = conv1d(c_out, c_out, 3, rngs=rngs), BatchNorm(c_out)
        self.widens = c_in != c_out
        if self.widens:
            self.conv_shortcut, self.norm_shortcut = conv1d(c_in, c_out, 1, rngs=rngs), BatchNorm(c_out)

    def __call__(self, x, mask):
        """x: f32[B, S, C], zero where masked -> (f32[B, S // 3, c_out], bool[B, S // 3]), zero where masked."""
        h = jax.nn.relu(self.norm_1(self.conv_1(x), mask))
        h = self.norm_2(self.conv_2(h), mask)
        shortcut = self.norm_shortcut(self.conv_shortcut(x), mask) if self.widens else x
        # An incomplete last window is zeroed before the pooling, not after it: a mask between the pooling and the next
        # convolution gets fused into that convolution's transposed operand and costs 30 % of a step on a CPU.
        whole_windows = jnp.arange(mask.shape[1]) < (mask.sum(1) // 3 * 3)[:, None]
        return max_pool3(jax.nn.relu(apply_mask(h + shortcut, whole_windows))), pool_mask(mask, 3)


class SampleCNN(nnx.Module):
    """Waveform in, class log-probabilities and every block's output out."""

    def __init__(self, config, num_classes, *, rngs):
        self.stem_stride = config.stem_stride
        if config.stem_stride == 3:
            self.stem = PatchConv(config.stem_filters, 3, rngs=rngs)
        else:
            self.stem = conv1d(1, config.stem_filters, 3, rngs=rngs)
        self.stem_norm = BatchNorm(config.stem_filters)
        widths = (config.stem_filters, *config.filters)
        self.depth = len(config.filters)
        for i in range(self.depth):
            setattr(self, f"block_{i + 1}", ResidualBlock(widths[i], widths[i + 1], rngs=rngs))
        self.final = conv1d(widths[-1], config.final_filters, config.final_kernel, rngs=rngs)
        self.final_norm = BatchNorm(config.final_filters)
        self.dropout = nnx.Dropout(config.dropout)
        self.head = nnx.Linear(config.final_filters, num_classes, rngs=rngs)

    def __call__(self, x, mask, *, rngs=None):
        """Applies the net.

        Args:
          x: f32[B, T], full scale ±1, mean removed; zero where masked.
          mask: bool[B, T], a prefix of each row.
          rngs: `nnx.Rngs` with a `dropout` stream; needed in training mode.

        Returns:
          logits: f32[B, K], log of the mean over steps of the softmax (§2.1: the dense layer is applied to every step,
            its softmax outputs are averaged).
          taps: {"stem", "block_1", …, "features"} -> (f32[B, S, C], bool[B, S]).
        """
        x = jnp.where(mask, x, 0)
        mask = pool_mask(mask, self.stem_stride)
        h = jax.nn.relu(self.stem_norm(self.stem(x if self.stem_stride == 3 else x[..., None]), mask))
        taps = {"stem": (h, mask)}
        for i in range(1, self.depth + 1):
            h, mask = getattr(self, f"block_{i}")(h, mask)
            taps[f"block_{i}"] = (h, mask)
        h = jax.nn.relu(self.final_norm(self.final(h), mask))
        taps["features"] = (h, mask)
        probabilities = jax.nn.softmax(self.head(self.dropout(h, rngs=rngs)))
        return {"logits": jnp.log(masked_mean(probabilities, mask) + 1e-7), "taps": taps}
