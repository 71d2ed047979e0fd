"""Reconstruction of spectrograms: what the recurrent autoencoder is pretrained on; no label is used.

Spectrograms by `ser_jax.audio.audeep` (Freitag et al. 2017; Neumann and Vu 2019).
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from ser_jax import intervals, metrics
from ser_jax.audio import audeep, waveform
from ser_jax.corpora.schema import SAMPLE_RATE
from ser_jax.data.pieces import check_buckets, cut, random_crop, smallest_bucket
from ser_jax.errors import UsageError

CROPS = ("start", "random")


@dataclasses.dataclass(frozen=True)
class ReconstructionConfig:
    """Examples and spectrogram.

    Attributes:
      bucket_seconds: lengths that utterances are padded to (masked), rising; one compiled program each. The last is the
        fixed length of the papers: what is longer is cut to it.
      crop: which part of a longer utterance: its "start", as auDeep does, or a "random" one, anew each time.
      clip_db: decibels below the loudest value of the utterance at which the spectrogram is clipped. (The ComParE 2020
        baseline trains four autoencoders, with −30, −45, −60 and −75, and puts their features side by side.)
    """

    bucket_seconds: tuple[float, ...] = (2.5, 5.0, 7.5)
    crop: str = "start"
    clip_db: float = -60.0

    def __post_init__(self):
        check_buckets(self.bucket_seconds, audeep.MIN_SAMPLES)
        if self.crop not in CROPS:
            raise UsageError(f"task.crop={self.crop}: choose {' or '.join(CROPS)}")
        if self.clip_db >= 0:
            raise UsageError(f"task.clip_db={self.clip_db:g}: decibels below the loudest value, e.g. -60")

    def build(self):
        return ReconstructionTask(self)


class ReconstructionTask:
    eval_metric = "explained"
    num_outputs = audeep.BANDS
    min_samples = audeep.MIN_SAMPLES
    options = {}

    def __init__(self, config):
        self.config = config
        self.evaluation_seconds = config.bucket_seconds[-1]
        self._buckets = np.array([round(seconds * SAMPLE_RATE) for seconds in config.bucket_seconds])

    def refuse(self, index):
        return np.where(index["num_samples"] < self.min_samples, f"shorter than {self.min_samples} samples", "")

    def sizes(self, index):
        return smallest_bucket(self._buckets, index["num_samples"].to_numpy())

    def example(self, utterance, size, rng):
        speech = utterance.speech if self.config.crop == "random" else utterance.speech[:size]
        speech, length = random_crop(speech, size, rng)
        return {"speech": speech, "length": np.int32(length)}

    def pieces(self, num_samples, seconds):
        return cut(num_samples, seconds, minimum=self.min_samples)

    def augment(self, batch, key):
        return batch

    def inputs(self, batch):
        mask = waveform.length_mask(batch["length"], batch["speech"].shape[1])
        return audeep.spectrogram(waveform.to_float(batch["speech"]), mask, self.config.clip_db)

    def loss(self, outputs, batch):
        """Root of the mean squared error over all valid values of the batch, as auDeep has it."""
        error = jnp.square(outputs["reconstruction"] - outputs["target"]).sum()
        return jnp.sqrt(error / (outputs["mask"].sum() * self.num_outputs)), {}

    def scores(self, outputs):
        """Sums over the valid frames of each piece: f32[B], but `sum` f32[B, D].

        `frames`; `error` of the reconstruction; `sum` and `squares` of the values; `steps` = squared differences of each
        frame and the one decoded before it (the first: zeros), which is the error of a decoder that repeats its input.
        """
        target, mask = outputs["target"], outputs["mask"]
        following = jnp.pad(target, ((0, 0), (0, 1), (0, 0)))[:, 1:]  # decoded last frame first
        return {
            "frames": mask.sum(1),
            "error": jnp.square(outputs["reconstruction"] - target).sum((1, 2)),
            "sum": target.sum(1),
            "squares": jnp.square(target).sum((1, 2)),
            "steps": (jnp.square(target - following) * mask[..., None]).sum((1, 2)),
        }

    def combine(self, pieces):
        """Sums over the pieces of an utterance, in float64."""
        return {name: np.sum([piece[name] for piece in pieces], axis=0, dtype=np.float64) for name in pieces[0]}

    def summary(self, scores, index):
        """RMSE, and the share of the variance about the mean frame that is explained."""
        values, errors = self._errors(scores)
        rmse = {name: float(np.sqrt(error.sum() / values.sum())) for name, error in errors.items()}
        return {"RMSE": rmse["reconstruction"], self.eval_metric: 1 - (rmse["reconstruction"] / rmse["mean frame"]) ** 2}

    def rows(self, scores, index, trained):
        """RMSE of the teacher-forced reconstruction, interval over speakers, beside predictors that need no net."""
        values, errors = self._errors(scores)
        rmse = {name: metrics.evaluate(RMSE, values, error) for name, error in errors.items()}
        clusters, n_speakers = intervals.clusters_of(index)
        found = rmse.pop("reconstruction")
        leak = trained.experiment.model.decoder == "bidirectional"
        read = "it has read every frame, the one asked for included (leak)" if leak else "it has read the frames before"
        return [{
            "metric": RMSE.name,
            **intervals.scored(values, errors["reconstruction"], clusters, RMSE),
            "n": len(index),
            "n_speakers": n_speakers,
            "definition": f"{RMSE.definition}; {trained.experiment.model.decoder} decoder, teacher-forced: {read}",
            "chance": rmse["mean frame"],
            "secondary": {"explained": 1 - (found / rmse["mean frame"]) ** 2,
                          **{f"RMSE of the {name}": value for name, value in rmse.items()}},
            "target": "spectrogram",
            "unit": "utterance",
        }]

    def _errors(self, scores):
        """(number of values of each utterance, {predictor: its squared error in each utterance}); "mean frame" is that of
        all these utterances, i.e. the best constant."""
        frames, error, total, squares, steps = (np.array([score[name] for score in scores], np.float64)
                                                for name in ("frames", "error", "sum", "squares", "steps"))
        mean = total.sum(0) / frames.sum()
        return frames * self.num_outputs, {
            "reconstruction": error,
            "mean frame": squares - 2 * total @ mean + frames * (mean @ mean),
            "utterance's own mean frame": squares - np.square(total).sum(1) / frames,
            "frame decoded before": steps,
        }


def _sum_errors(values, errors, group, groups, classes):
    return np.stack([np.bincount(group, weights=weights, minlength=groups) for weights in (errors, values)], axis=1)


RMSE = metrics.Metric(
    "RMSE", "root of the mean squared error over all valid values of spectrograms scaled to [-1, 1]", _sum_errors,
    lambda sums: np.sqrt(sums[..., 0] / sums[..., 1]), lambda truth, classes: None, False)
