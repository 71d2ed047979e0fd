"""Emotion of an utterance, as a class or as valence, arousal and dominance: what a pretrained encoder is fine-tuned on.

The front end is that of the task the encoder was pretrained on, without its augmentation; the model is `models.finetune`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax import intervals, losses, metrics
from ser_jax.corpora.schema import NUMBER_FIELDS, SAMPLE_RATE
from ser_jax.data.pieces import cut, random_crop, smallest_bucket
from ser_jax.errors import UsageError, UserError
from ser_jax.tasks.emotion_frames import check_classes, numbers_of
from ser_jax.tasks.frames import SPEC, FrameTask

TARGETS = ("emotion", *NUMBER_FIELDS, "vad")
LOSSES = ("ccc", "mse")
SHARES = (0.25, 0.375, 0.5, 0.75, 1.0)  # of the crop: the lengths that training examples are padded to
ENCODER = "encoder/"  # where `models.finetune` keeps it


@dataclasses.dataclass(frozen=True)
class EmotionConfig:
    """What is predicted, and from what.

    Attributes:
      target: "emotion" (of `classes`), "valence", "arousal", "dominance", or "vad" for the three together.
      classes: emotions; "happy+excited" merges the second into the first. Utterances of other emotions are refused.
      loss: of numbers: "ccc" = 1 − the concordance correlation of the batch, or "mse", of standardised labels. Emotions have
        cross-entropy.
      front_end: config of the task that the encoder was pretrained on; None = that of `transfer.init_from`, filled in when
        the run begins.
      crop_seconds: longer utterances give a random crop of this length in training, and are evaluated in pieces of it;
        shorter ones are padded (masked) to one of five shares of it.
    """

    target: str = "emotion"
    classes: tuple[str, ...] = ("angry", "happy+excited", "neutral", "sad")
    loss: str = "ccc"
    front_end: Any = None
    crop_seconds: float = 8.0

    def __post_init__(self):
        for name, known in (("target", TARGETS), ("loss", LOSSES)):
            if getattr(self, name) not in known:
                raise UsageError(f"task.{name}={getattr(self, name)}: choose {' or '.join(known)}")
        if self.target == "emotion":
            check_classes(self.classes)
        if self.crop_seconds <= 0:
            raise UsageError(f"task.crop_seconds={self.crop_seconds:g}: must be greater than 0")

    def complete_from(self, source):
        """With the front end of the source, a config.Experiment (that of a fine-tuned source, when it is one), or None."""
        if self.front_end is not None or source is None:
            return self
        return dataclasses.replace(self, front_end=getattr(source.task, "front_end", source.task))

    def build(self):
        if self.front_end is None:
            raise UsageError("task.front_end is empty: name the run to start from, --init-from WORKDIR, or write it into the "
                             "config beside model.encoder (random start)")
        return EmotionTask(self) if self.target == "emotion" else RatingsTask(self)


class _UtteranceTask:
    """The input side of the contract, by the front end of another task; classes add what is between labels and outputs."""

    options = {}

    def __init__(self, config):
        self.config = config
        self.front = config.front_end.build()
        self.min_samples, self.evaluation_seconds = self.front.min_samples, config.crop_seconds
        crop = config.crop_seconds * SAMPLE_RATE
        if round(crop) < self.min_samples:
            raise UsageError(f"task.crop_seconds={config.crop_seconds:g}: this front end needs {self.min_samples} samples "
                             f"({self.min_samples / SAMPLE_RATE:.2f} s)")
        self._sizes = np.array([round(crop * share) for share in SHARES if round(crop * share) >= self.min_samples])

    def refuse(self, index):
        short = np.where(index["num_samples"] < self.min_samples, f"shorter than {self.min_samples} samples", "")
        return np.where(self.labelled(index), short, self.without_label)

    def sizes(self, index):
        return smallest_bucket(self._sizes, index["num_samples"].to_numpy())

    def example(self, utterance, size, rng):
        """A crop and its label; for an encoder of windows around frames also some frames, from which training pools (scoring
        pools from all)."""
        speech, length = random_crop(utterance.speech, size, rng)
        example = {"speech": speech, "length": np.int32(length), "label": self.label_of(utterance)}
        if isinstance(self.front, FrameTask):
            frames, count = SPEC.num_frames(length), self.config.front_end.frames
            example["centres"] = rng.choice(frames, count, replace=frames < count).astype(np.int32)
        return example

    def pieces(self, num_samples, seconds):
        return cut(num_samples, seconds, minimum=self.min_samples)

    def augment(self, batch, key):
        return batch

    def inputs(self, batch):
        return self.front.inputs(batch)

    def calibrate(self, corpora, table):
        """Statistics of the training part that the front end's task measures, where the encoder keeps them."""
        measured = self.front.calibrate(corpora, table) if hasattr(self.front, "calibrate") else {}
        return {ENCODER + path: value for path, value in measured.items()}

    def combine(self, pieces):
        """Mean over the pieces of an utterance."""
        return np.mean(pieces, axis=0, dtype=np.float64)

    def _row(self, metric, truth, found, index, labels=None, **fields):
        """`value`, `ci` and `by_speaker` of a result row; utterances of unknown speaker are clusters of their own."""
        clusters, n_speakers = intervals.clusters_of(index)
        return {"metric": metric, **intervals.scored(truth, found, clusters, metric, labels), "n": len(truth),
                "n_speakers": n_speakers, "definition": metrics.METRICS[metric].definition,
                "head": "fine-tuned", "unit": "utterance", **fields}


class EmotionTask(_UtteranceTask):
    """One class per utterance."""

    eval_metric = "UAR"
    without_label = "no emotion of task.classes"

    def __init__(self, config):
        super().__init__(config)
        self.classes = tuple(group.split("+")[0] for group in config.classes)
        self._numbers = numbers_of(config.classes)

    @property
    def num_outputs(self):
        return len(self.classes)

    def labelled(self, index):
        return index["emotion"].isin(self._numbers.keys())

    def label_of(self, utterance):
        return np.int32(self._numbers[utterance.emotion])

    def loss(self, outputs, batch):
        log_probabilities = jax.nn.log_softmax(outputs["logits"])
        correct = log_probabilities.argmax(1) == batch["label"]
        return losses.cross_entropy(log_probabilities, batch["label"]).mean(), {"accuracy": correct.mean()}

    def scores(self, outputs):
        """Class probabilities of each piece: f32[B, K]."""
        return jax.nn.softmax(outputs["logits"])

    def summary(self, scores, index):
        """Log-loss, UAR (absent classes are left out) and WAR over utterances."""
        truth, scores = self._truth(index), np.asarray(scores)
        probability = np.maximum(scores[np.arange(len(truth)), truth], 1e-7)
        found = scores.argmax(1)
        return {"loss": float(-np.log(probability).mean()), "WAR": metrics.war(truth, found),
                "UAR": metrics.uar(truth, found, range(self.num_outputs), absent="skip")}

    def rows(self, scores, index, trained):
        """WAR and UAR over utterances, with intervals over speakers."""
        truth, found, numbers = self._truth(index), np.asarray(scores).argmax(1), range(self.num_outputs)
        fields = {"target": "emotion", "classes": list(self.classes),
                  "confusion": metrics.confusion(truth, found, numbers).tolist()}
        rows = [self._row(metric, truth, found, index, numbers, chance=metrics.chance_level(metric, truth, numbers), **fields)
                for metric in ("WAR", "UAR")]
        present = sorted(set(truth.tolist()))
        if len(present) < self.num_outputs:  # not defined over all classes, so its interval is not either
            absent = [name for number, name in enumerate(self.classes) if number not in present]
            rows[1] |= {"value": metrics.uar(truth, found, numbers, absent="skip"), "chance": 1 / len(present),
                        "definition": f"{rows[1]['definition']}; without {', '.join(absent)}: no such utterance"}
        return rows

    def _truth(self, index):
        return index["emotion"].map(self._numbers).to_numpy()


class RatingsTask(_UtteranceTask):
    """One number, or three, per utterance; a rating that is missing does not count."""

    eval_metric = "CCC"

    def __init__(self, config):
        super().__init__(config)
        self.dimensions = NUMBER_FIELDS if config.target == "vad" else (config.target,)
        self.without_label = f"no rating of {' or '.join(self.dimensions)}"

    @property
    def num_outputs(self):
        return len(self.dimensions)

    def labelled(self, index):
        return np.isfinite(self._truth(index)).any(1)

    def label_of(self, utterance):
        return np.array([getattr(utterance, name) for name in self.dimensions], np.float32)

    def calibrate(self, corpora, table):
        """Also mean and standard deviation of each dimension over the training part."""
        train = table[table["part"] == "train"]
        labels = np.concatenate([self._truth(corpus.index.iloc[train.loc[train["position"] == position, "row"]])
                                 for position, corpus in enumerate(corpora)])
        mean, scale = np.zeros(self.num_outputs), np.ones(self.num_outputs)
        for number, name in enumerate(self.dimensions):
            column = labels[np.isfinite(labels[:, number]), number]
            if not len(column) or not column.std():
                raise UserError(f"task.target={self.config.target}: {len(set(column))} different ratings of {name} in the "
                                "training part, so nothing can be learned of it; choose another target or corpus")
            mean[number], scale[number] = column.mean(), column.std()
        return super().calibrate(corpora, table) | {"units/mean": mean, "units/scale": scale}

    def loss(self, outputs, batch):
        """Mean over the dimensions that the batch has ratings of; both losses do not depend on the unit of the labels."""
        valid = jnp.isfinite(batch["label"])
        label = jnp.where(valid, batch["label"], outputs["logits"])  # no error, and no gradient, where there is no rating
        error = jnp.square((outputs["logits"] - label) / outputs["scale"])
        mse = error.sum() / jnp.maximum(valid.sum(), 1)
        enough = valid.sum(0) > 1
        ccc = _ccc(jnp.where(valid, label, 0) / outputs["scale"], outputs["logits"] / outputs["scale"], valid)
        ccc = jnp.where(enough, ccc, 0).sum() / jnp.maximum(enough.sum(), 1)
        return (1 - ccc if self.config.loss == "ccc" else mse), {"batch_CCC": ccc, "standardised_MSE": mse}

    def scores(self, outputs):
        """Numbers of each piece, in the unit of the labels: f32[B, D]."""
        return outputs["logits"]

    def summary(self, scores, index):
        """MSE and CCC, means over the dimensions; a CCC that is not defined (all one number) counts 0."""
        found = {metric: [metrics.evaluate(metric, *pair[1:3]) for pair in self._pairs(scores, index)]
                 for metric in ("MSE", "CCC")}
        values = {metric: float(np.mean(np.nan_to_num(each))) for metric, each in found.items()}
        return {"loss": values["MSE"], **values}

    def rows(self, scores, index, trained):
        """CCC, MSE and Pearson of each dimension, with intervals over speakers."""
        rows = []
        for name, truth, found, part in self._pairs(scores, index):
            for metric in ("CCC", "MSE", "Pearson"):
                row = self._row(metric, truth, found, part, target=name, chance=metrics.chance_level(metric, truth))
                # The sums are about the mean of these labels, which differs from fold to fold; about 0 they can be added.
                row["by_speaker"]["sums"] = _about_zero(np.array(row["by_speaker"]["sums"]), truth.mean()).tolist()
                rows.append(row)
        return rows

    def _truth(self, index):
        return index[list(self.dimensions)].to_numpy(np.float64)

    def _pairs(self, scores, index):
        """(dimension, truth, prediction, index) of the utterances that are rated in it, for each that has some."""
        truth, found = self._truth(index), np.asarray(scores, np.float64)
        for number, name in enumerate(self.dimensions):
            rated = np.isfinite(truth[:, number])
            if rated.any():
                yield name, truth[rated, number], found[rated, number], index[rated]


def _ccc(truth, found, valid):
    """Concordance correlation of each column over its valid rows, population moments: f32[B, D] × 2, bool[B, D] -> f32[D]."""
    weight = valid / jnp.maximum(valid.sum(0), 1)
    t, p = (weight * truth).sum(0), (weight * found).sum(0)
    a, b = truth - t, found - p
    spread = (weight * (a * a + b * b)).sum(0) + (t - p) ** 2
    return 2 * (weight * a * b).sum(0) / (spread + 1e-8)


def _about_zero(sums, mean):
    """Sums of 1, t, p, t², p², tp of t − mean and p − mean -> those of t and p: float64[N, 6]."""
    n, t, p, tt, pp, tp = sums.T
    return np.stack([n, t + n * mean, p + n * mean, tt + 2 * mean * t + n * mean**2, pp + 2 * mean * p + n * mean**2,
                     tp + mean * (t + p) + n * mean**2], axis=1)
