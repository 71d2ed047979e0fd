"""Log-mel filterbank energies, on the device, masked, inside jit.

HTK's definition, which openSMILE and Kaldi share: windows from the first sample on (no padding at the ends), symmetric
window function, power spectrum, triangles of unit height with flanks straight over HTK's mel, natural logarithm above a
floor. Samples are full scale ±1, the spectrum is not normalised. The pre-emphasis, if any, runs over the utterance, whose
first sample is kept (HTK's runs over each window: the first sample of a window differs). Shapes: B batch, T samples,
F frames.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from ser_jax.audio.mel import mel_filters
from ser_jax.audio.spectrum import filterbank_energies
from ser_jax.corpora.schema import SAMPLE_RATE
from ser_jax.errors import UsageError

WINDOW_SHAPES = {"hamming": np.hamming, "hann": np.hanning}  # symmetric


@dataclass(frozen=True)
class LogMel:
    """What to compute; the defaults are those of Neumann and Vu (2019). Lengths are in samples at 16 kHz."""

    bands: int = 26
    low_hz: float = 0.0
    high_hz: float = 6500.0
    window: int = 400  # 25 ms
    hop: int = 160  # 10 ms
    fft: int = 512  # windows are filled up with zeros to this length
    window_shape: str = "hamming"
    preemphasis: float = 0.0
    floor: float = 1e-8  # the smallest energy of a band, so that silence is ln(floor)

    def __post_init__(self):
        for name in ("bands", "window", "hop"):
            if getattr(self, name) < 1:
                raise UsageError(f"log-mel {name} is {getattr(self, name)}: give 1 or more")
        if not 0 <= self.low_hz < self.high_hz <= SAMPLE_RATE / 2:
            raise UsageError(f"log-mel low_hz {self.low_hz:g} and high_hz {self.high_hz:g} are no range of frequencies: "
                             f"give 0 <= low_hz < high_hz <= {SAMPLE_RATE // 2}")
        if self.fft < self.window:
            raise UsageError(f"log-mel fft {self.fft} is shorter than window {self.window}: give a longer fft")
        if self.window_shape not in WINDOW_SHAPES:
            raise UsageError(f"log-mel window_shape {self.window_shape!r} is unknown: give one of {', '.join(WINDOW_SHAPES)}")
        if not 0 <= self.preemphasis < 1:
            raise UsageError(f"log-mel preemphasis is {self.preemphasis:g}: give 0 (none) or more, and less than 1")
        if not self.floor > 0:
            raise UsageError(f"log-mel floor is {self.floor:g}: give a small positive number")
        empty = int((self.filters.max(0) == 0).sum())
        if empty:
            raise UsageError(f"log-mel fft {self.fft} leaves {empty} of {self.bands} bands without a frequency: "
                             "give a longer fft or fewer bands")

    @property
    def filters(self):
        """f32[fft // 2 + 1, bands], a constant."""
        return mel_filters(SAMPLE_RATE, self.fft, self.bands, self.low_hz, self.high_hz, "htk")

    @property
    def min_samples(self):
        """Length of the shortest signal that has a frame."""
        return self.window

    def num_frames(self, num_samples):
        """Frames that lie wholly inside a signal of that many samples, 0 if none does; works on numbers and arrays."""
        return (num_samples >= self.window) * (1 + (num_samples - self.window) // self.hop)


FAYEK2016 = LogMel(bands=40, low_hz=20.0, high_hz=8000.0, preemphasis=0.97)  # of the tasks that label frames


def logmel(x, mask, spec=LogMel()):
    """Log-mel energies of a padded batch; those of an utterance depend neither on its padding nor on its neighbours.

    Args:
      x: f32[B, T], full scale ±1.
      mask: bool[B, T], a prefix of each row.
      spec: a LogMel, static.

    Returns:
      (f32[B, F, bands], natural logarithms, zero where masked; bool[B, F], True for frames wholly inside the utterance).
    """
    frame_mask = jnp.arange(spec.num_frames(x.shape[1])) < spec.num_frames(mask.sum(1))[:, None]
    if spec.preemphasis:
        x = jnp.concatenate([x[:, :1], x[:, 1:] - spec.preemphasis * x[:, :-1]], axis=1)
    window = WINDOW_SHAPES[spec.window_shape](spec.window).astype(np.float32)
    energy = filterbank_energies(x, window, spec.hop, spec.filters)
    return jnp.where(frame_mask[..., None], jnp.log(jnp.maximum(energy, spec.floor)), 0), frame_mask
