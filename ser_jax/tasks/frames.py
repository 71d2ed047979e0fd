"""What tasks that label every frame share: windows around frames as training examples, log-mel input, frame labels.

Front end and sampling of Fayek et al. (2016), see `ser_jax.models.convnet`: 40 log-mel energies, 25 ms Hamming windows every
10 ms, standardised by the statistics of the training part. A batch holds a few frames of each of many utterances, so that
neighbouring frames, which are nearly equal, seldom meet in one batch; the windows are gathered on the device.
"""

import hashlib
from functools import cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax import losses
from ser_jax.audio import waveform
from ser_jax.audio.logmel import FAYEK2016 as SPEC
from ser_jax.audio.logmel import logmel
from ser_jax.corpora.schema import SAMPLE_RATE
from ser_jax.data import batches
from ser_jax.data.frame_labels import FrameLabels
from ser_jax.data.pieces import check_buckets, cut, smallest_bucket
from ser_jax.errors import UsageError, UserError

MEASURED_UTTERANCES = 2000  # at most so many give the statistics of the input


def check(config):
    """Raises a UsageError for fields of a frame task's config that cannot be."""
    check_buckets(config.bucket_seconds, SPEC.min_samples)
    if config.frames < 1:
        raise UsageError(f"task.frames={config.frames}: must be at least 1")


class FrameTask:
    """Base of such tasks; they add `wanted_kind`, `num_outputs`, `eval_metric`, `frame_labels`, `summary` and `rows`."""

    min_samples = SPEC.min_samples
    evaluation_seconds = None

    def __init__(self, config):
        self.config = config
        self._reference, self._where = None, "task.labels"
        self._buckets = np.array([round(seconds * SAMPLE_RATE) for seconds in config.bucket_seconds])

    @property
    def files(self):
        """{path: sha256} of the files that the numbers depend on, besides the corpora."""
        return {path: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in self.config.labels}

    @cached_property
    def file(self):
        """FrameLabels of `task.labels`; opened when first asked for: export does without."""
        if not self.config.labels:
            raise UsageError("no frame labels named: --set task.labels=FILE (made by `ser-jax align`)")
        return self.open_labels(self.config.labels)

    @property
    def reference(self):
        """FrameLabels that are scored against: those of `score_against`, else those of training."""
        return self._reference or self.file

    def score_against(self, path):
        """Scores, and what can be scored, go by another file from now on."""
        self._reference, self._where = self.open_labels([path]), path

    def open_labels(self, paths):
        """FrameLabels of these files, checked to be what the task needs."""
        labels = FrameLabels(paths)
        if labels.kind != self.wanted_kind:
            raise UserError(f"{paths[0]} holds {labels.kind}, this task needs {self.wanted_kind}; see `ser-jax align --help`")
        if (labels.meta["window"], labels.meta["hop"]) != (SPEC.window, SPEC.hop):
            raise UserError(f"{paths[0]}: frames of {labels.meta['window']} samples every {labels.meta['hop']}; "
                            f"{SPEC.window} every {SPEC.hop} are needed")
        return labels

    def refuse(self, index):
        known = index["id"].isin(self.reference.ids).to_numpy()
        short = (index["num_samples"] < self.min_samples).to_numpy()
        labels = [len(self.reference.labels(name)) if there else 0 for name, there in zip(index["id"], known, strict=True)]
        other = SPEC.num_frames(index["num_samples"].to_numpy()) != labels
        return np.select([~known, short, other], [f"no {self.wanted_kind} in {self._where}", f"shorter than {self.min_samples} samples",
                                                  "another number of frames than its labels: run `ser-jax align` again"], "")

    def sizes(self, index):
        return smallest_bucket(self._buckets, index["num_samples"].to_numpy())

    def example(self, utterance, size, rng):
        """A stretch of `size` samples and K of its labelled frames, drawn without replacement where there are as many.

        An utterance longer than the last bucket gives a random stretch of it that begins with a frame.
        """
        labels = self.frame_labels(utterance.id, utterance.emotion)
        first = int(rng.integers((len(utterance.speech) - size) // SPEC.hop + 1)) if len(utterance.speech) > size else 0
        speech = utterance.speech[first * SPEC.hop:][:size]
        labels = labels[first:first + SPEC.num_frames(len(speech))]
        usable = np.flatnonzero(labels >= 0)
        if not len(usable):  # a stretch without a label: of weight 0
            usable = np.zeros(1, np.int64)
        centres = rng.choice(usable, self.config.frames, replace=len(usable) < self.config.frames)
        return {"speech": np.pad(speech, (0, size - len(speech))), "length": np.int32(len(speech)),
                "centres": centres.astype(np.int32), "labels": labels[centres].astype(np.int32)}

    def pieces(self, num_samples, seconds):
        return cut(num_samples, seconds, minimum=self.min_samples)

    def augment(self, batch, key):
        return batch

    def inputs(self, batch):
        mask = waveform.length_mask(batch["length"], batch["speech"].shape[1])
        frames, mask = logmel(waveform.to_float(batch["speech"]), mask, SPEC)
        return (frames, mask, batch["centres"]) if "centres" in batch else (frames, mask)

    def calibrate(self, corpora, table):
        """Mean and variance of each band over the frames of the training part, or of 2,000 utterances spread over it.

        Returns:
          {path in the model's statistics: f32[bands]}.
        """
        train = table[table["part"] == "train"]
        train = train.iloc[np.unique(np.linspace(0, len(train) - 1, MEASURED_UTTERANCES).round().astype(int))]
        position, row = train["position"].to_numpy(), train["row"].to_numpy()
        pieces, _ = batches.pieces_of(train["num_samples"], self, None)
        moments = np.zeros((2, SPEC.bands))
        count = 0
        for length, members in batches.batched(pieces, 16, None):
            batch = batches.load(lambda i: corpora[position[i]].speech(int(row[i])), length, members, 16)
            sums, frames = jax.device_get(_moments(batch["speech"], batch["length"]))
            moments += sums[:, :len(members)].sum(1, dtype=np.float64)
            count += int(frames[:len(members)].sum())
        mean, square = moments / count
        return {"input/mean": mean, "input/var": np.maximum(square - mean**2, 0)}  # rounding of a band that is constant

    def loss(self, outputs, batch):
        """Mean cross-entropy over the labelled frames of the batch."""
        labels = batch["labels"].reshape(-1)
        weight = (labels >= 0).astype(jnp.float32)
        log_posteriors = jax.nn.log_softmax(outputs["logits"].reshape(len(labels), -1))
        count = jnp.maximum(weight.sum(), 1)
        correct = (log_posteriors.argmax(1) == labels) * weight
        loss = losses.cross_entropy(log_posteriors, jnp.maximum(labels, 0)) * weight
        return loss.sum() / count, {"frame_accuracy": correct.sum() / count}

    def scores(self, outputs):
        """{"log_posteriors": f32[B, F, C], "frames": i32[B]}."""
        return {"log_posteriors": jax.nn.log_softmax(outputs["logits"]), "frames": outputs["mask"].sum(1)}

    def combine(self, pieces):
        """{"log_posteriors": f32[F, C]} of the valid frames; pieces follow each other in time."""
        return {"log_posteriors": np.concatenate([piece["log_posteriors"][:piece["frames"]] for piece in pieces])}


@jax.jit
def _moments(speech, length):
    """Sums over frames of the log-mel energies and of their squares: f32[2, B, bands]; number of frames i32[B]."""
    frames, mask = logmel(waveform.to_float(speech), waveform.length_mask(length, speech.shape[1]), SPEC)
    return jnp.stack([frames.sum(1), jnp.square(frames).sum(1)]), mask.sum(1)
