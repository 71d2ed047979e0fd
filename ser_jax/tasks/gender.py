"""Speaker gender from the raw waveform: the pretext task of Schiller et al. 2020, §2.1."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.audio import waveform
from ser_jax.corpora.schema import GENDERS, SAMPLE_RATE
from ser_jax.data.pieces import cut, random_crop
from ser_jax.errors import UsageError
from ser_jax.tasks.classification import Classification


@dataclasses.dataclass(frozen=True)
class GenderConfig:
    """Augmentation of §2.1; amplitudes are open in the paper, the defaults are ours.

    Attributes:
      crop_seconds: length of the random training crop; shorter utterances are zero-padded at the end and masked.
      shift: largest shift as a share of the length (0.2 = ±20 %).
      noise: amplitude of the added uniform and normal noise, full-scale units.
      min_samples: shortest piece that is embedded or evaluated; must cover one step of the model (6,561 in net A).
    """

    crop_seconds: float = 5.0
    shift: float = 0.2
    noise: float = 0.005
    min_samples: int = 6_561

    def __post_init__(self):
        if round(self.crop_seconds * SAMPLE_RATE) < self.min_samples:
            raise UsageError(f"task.crop_seconds={self.crop_seconds:g} is shorter than task.min_samples={self.min_samples} "
                             f"({self.min_samples / SAMPLE_RATE:.2f} s)")

    def build(self):
        return GenderTask(self)


class GenderTask(Classification):
    target = "gender"
    classes = GENDERS

    def __init__(self, config):
        self.config = config
        self.crop = round(config.crop_seconds * SAMPLE_RATE)
        self.evaluation_seconds = config.crop_seconds
        self.min_samples = config.min_samples

    def refuse(self, index):
        known = index["gender"].isin(GENDERS)
        long_enough = index["num_samples"] >= self.config.min_samples
        short = np.where(long_enough, "", f"shorter than {self.config.min_samples} samples")
        return np.where(known, short, "no gender label")

    def sizes(self, index):
        return np.full(len(index), self.crop)

    def example(self, utterance, size, rng):
        speech, length = random_crop(utterance.speech, size, rng)
        return {"speech": speech, "length": np.int32(length), "label": np.int32(GENDERS.index(utterance.gender))}

    def pieces(self, num_samples, seconds):
        return cut(num_samples, seconds, minimum=self.config.min_samples)

    def augment(self, batch, key):
        shift, noise = jax.random.split(key)
        mask = waveform.length_mask(batch["length"], batch["speech"].shape[1])
        x = waveform.random_shift(shift, waveform.to_float(batch["speech"]), mask, self.config.shift)
        return batch | {"speech": waveform.add_noise(noise, x, mask, self.config.noise)}

    def inputs(self, batch):
        speech = batch["speech"]
        x = waveform.to_float(speech) if speech.dtype == jnp.int16 else speech
        mask = waveform.length_mask(batch["length"], x.shape[1])
        return waveform.remove_mean(x, mask), mask

    def label(self, index):
        return index["gender"].map(GENDERS.index).to_numpy()
