"""The emotion of every frame: each inherits the label of its utterance, silent and unvoiced ones are a class of their own.

Fayek et al. (2016): four emotions and silence on IEMOCAP. The emotion of an utterance is that of the highest mean posterior
over its frames, the silence class left out. Voice activity comes from `ser-jax align --from voice`.
"""

import dataclasses

import numpy as np

from ser_jax import intervals, metrics
from ser_jax.corpora.schema import EMOTIONS
from ser_jax.errors import UsageError, suggestion
from ser_jax.tasks import frames

SILENCE = "silence"


@dataclasses.dataclass(frozen=True)
class EmotionFramesConfig:
    """Examples and classes.

    Attributes:
      labels: files of voice activity, made by `ser-jax align --from voice`.
      classes: emotions; "happy+excited" merges the second into the first. Utterances of other emotions are refused.
      frames, bucket_seconds: as in `phone_states.PhoneStatesConfig`.
    """

    labels: tuple[str, ...] = ()
    classes: tuple[str, ...] = ("angry", "happy+excited", "neutral", "sad")
    frames: int = 16
    bucket_seconds: tuple[float, ...] = (3.0, 5.0, 8.0)

    def __post_init__(self):
        frames.check(self)
        check_classes(self.classes)

    def build(self):
        return EmotionFramesTask(self)


def check_classes(classes):
    """Raises a UsageError for classes that cannot be."""
    named = [name for group in classes for name in group.split("+")]
    for name in named:
        if name not in EMOTIONS:
            raise UsageError(f"task.classes: {name!r} is no emotion{suggestion(name, EMOTIONS)}; known: {', '.join(EMOTIONS)}")
    if len(classes) < 2 or len(set(named)) < len(named):
        raise UsageError(f"task.classes={','.join(classes)}: give two or more, each emotion once")


def numbers_of(classes):
    """{emotion: number of its class}."""
    return {name: number for number, group in enumerate(classes) for name in group.split("+")}


class EmotionFramesTask(frames.FrameTask):
    wanted_kind = "voice activity"
    eval_metric = "frame_UAR"
    options = {}

    def __init__(self, config):
        super().__init__(config)
        self.classes = (*(group.split("+")[0] for group in config.classes), SILENCE)
        self._numbers = numbers_of(config.classes)

    @property
    def num_outputs(self):
        return len(self.classes)

    def refuse(self, index):
        known = index["emotion"].isin(self._numbers.keys())
        return np.where(known, super().refuse(index), "no emotion of task.classes")

    def frame_labels(self, name, emotion):
        return np.where(self.reference.labels(name) == 1, self._numbers[emotion], self.num_outputs - 1)

    def summary(self, scores, index):
        """Log-loss and UAR over frames, silence among the classes; UAR over utterances. Absent classes are left out."""
        labels, log_posteriors = self._frames(scores, index)
        truth, found = self._utterances(scores, index)
        return {"loss": float(-log_posteriors[np.arange(len(labels)), labels].mean()),
                self.eval_metric: metrics.uar(labels, log_posteriors.argmax(1), range(self.num_outputs), absent="skip"),
                "UAR": metrics.uar(truth, found, range(self.num_outputs - 1), absent="skip")}

    def rows(self, scores, index, trained):
        """WAR and UAR over utterances and over frames (the paper's E and UE are what is missing to 1), with intervals over
        speakers."""
        (clusters, n_speakers), rows = intervals.clusters_of(index), []
        labels, log_posteriors = self._frames(scores, index)
        lengths = [len(score["log_posteriors"]) for score in scores]
        for unit, truth, found, groups, classes in (
                ("utterance", *self._utterances(scores, index), clusters, self.classes[:-1]),
                ("frame", labels, log_posteriors.argmax(1), np.repeat(clusters, lengths), self.classes)):
            numbers = range(len(classes))
            values = {"WAR": metrics.war(truth, found), "UAR": metrics.uar(truth, found, numbers, absent="skip")}
            for metric, value in values.items():
                rows.append({
                    "metric": metric,
                    **intervals.scored(truth, found, groups, metric, numbers),
                    "value": value,
                    "n": len(truth),
                    "n_speakers": n_speakers,
                    "definition": metrics.METRICS[metric].definition + (
                        "; mean frame posterior, silence left out" if unit == "utterance" else ", silence is a class"),
                    "chance": metrics.chance_level(metric, truth, numbers),
                    "classes": list(classes),
                    "confusion": metrics.confusion(truth, found, numbers).tolist(),
                    "target": "emotion",
                    "head": "frame posteriors",
                    "unit": unit,
                })
        return rows

    def _frames(self, scores, index):
        labels = [self.frame_labels(*row) for row in zip(index["id"], index["emotion"], strict=True)]
        return np.concatenate(labels), np.concatenate([score["log_posteriors"] for score in scores])

    def _utterances(self, scores, index):
        """(true class, found class) of each utterance: int[N] each."""
        means = [np.exp(score["log_posteriors"][:, :-1]).mean(0) for score in scores]
        return np.array([self._numbers[emotion] for emotion in index["emotion"]]), np.argmax(means, axis=1)
