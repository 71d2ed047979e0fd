"""Phone states of every frame: the acoustic model of a hybrid recogniser (Fayek et al. 2016; TIMIT: 48 phones × 3 states).

Frame labels come from `ser-jax align`: equal thirds of hand-labelled phones, a Kaldi alignment, or a forced alignment by a
net that was trained before. Decoding is in `ser_jax.tasks.hybrid`.
"""

import dataclasses

import numpy as np

from ser_jax import intervals
from ser_jax.corpora.phones import STATES
from ser_jax.data.frame_labels import FrameLabels
from ser_jax.errors import UsageError
from ser_jax.tasks import frames, hybrid

SHOWN_UTTERANCES = 10


@dataclasses.dataclass(frozen=True)
class PhoneStatesConfig:
    """Examples and classes.

    Attributes:
      labels: files of frame labels, made by `ser-jax align`.
      phones, phone_set: taken from the first of them when they are empty, so that a checkpoint does not need the file.
      frames: frames of an utterance in one batch; a batch has train.batch_size utterances.
      bucket_seconds: lengths that utterances are padded to (masked), rising; one compiled program each. Longer ones give a
        random stretch of the last length.
    """

    labels: tuple[str, ...] = ()
    phones: tuple[str, ...] = ()
    phone_set: str = ""
    frames: int = 16
    bucket_seconds: tuple[float, ...] = (3.0, 5.0, 8.0)

    def __post_init__(self):
        frames.check(self)

    def complete(self):
        """With the phones of the labels."""
        if self.phones or not self.labels:
            return self
        file = FrameLabels(self.labels)
        return dataclasses.replace(self, phones=file.phones, phone_set=file.phone_set)

    def build(self):
        return PhoneStatesTask(self)


class PhoneStatesTask(frames.FrameTask):
    """Options of `evaluate`: acoustic_scale and insertion_penalty of the decoder, tuned on the dev part unless given."""

    wanted_kind = "phone states"
    eval_metric = "frame_accuracy"
    options = {"acoustic_scale": float, "insertion_penalty": float}
    tuned = ("acoustic_scale", "insertion_penalty")

    @property
    def num_outputs(self):
        if not self.config.phones:
            raise UsageError("no phones: name the frame labels, --set task.labels=FILE (made by `ser-jax align`)")
        return STATES * len(self.config.phones)

    def open_labels(self, paths):
        labels = super().open_labels(paths)
        if labels.phones != self.config.phones:
            raise UsageError(f"{paths[0]}: its {len(labels.phones)} phones are not the {len(self.config.phones)} of task.phones")
        return labels

    def frame_labels(self, name, emotion):
        return self.file.labels(name)

    def summary(self, scores, index):
        """Mean log-loss and accuracy over the labelled frames; phones are decoded at the end only, by `evaluate`."""
        log_posteriors, labels = _labelled(scores, [self.reference.labels(name) for name in index["id"]])
        return {"loss": float(-log_posteriors[np.arange(len(labels)), labels].mean()),
                self.eval_metric: float((log_posteriors.argmax(1) == labels).mean())}

    def tune(self, scores, index, trained, **given):
        """Options for `rows` from the dev part: those of the lowest phone error rate; the `given` ones are kept."""
        _check_scale(given.get("acoustic_scale", 1.0))
        references = [self.file.transcript(name) for name in index["id"]]
        grid = list(dict.fromkeys((given.get("acoustic_scale", scale), given.get("insertion_penalty", penalty))
                                  for scale, penalty in hybrid.GRID))
        best, _ = hybrid.tune(self._decoders(trained), _posteriors(scores), references, self.config.phone_set, grid)
        return dict(zip(self.tuned, best, strict=True))

    def rows(self, scores, index, trained, acoustic_scale=1.0, insertion_penalty=0.0):
        """FER over states, PER with and without silence; intervals over speakers.

        The reference of PER is the transcript of the labels file, whoever aligned it.
        """
        _check_scale(acoustic_scale)
        decoder = self._decoders(trained)(acoustic_scale, insertion_penalty)
        phone_set, ids = self.config.phone_set, index["id"].tolist()
        truth = [self.reference.labels(name) for name in ids]
        states = [posteriors.argmax(1) for posteriors in _posteriors(scores)]
        count, wrong = np.array([hybrid.frame_errors(*pair) for pair in zip(truth, states, strict=True)]).T
        most = np.exp(hybrid.priors(self._training_labels(trained), self.num_outputs)).argmax()
        rows = [self._row(hybrid.FER, count, wrong, index, int(count.sum()), {
            "definition": f"{hybrid.FER.definition}, frame labels: {self._where}",
            "chance": 1 - float(np.mean(np.concatenate(truth)[np.concatenate(truth) >= 0] == most)), "head": "argmax"})]
        references = [hybrid.folded(self.reference.transcript(name), phone_set) for name in ids]
        found = [hybrid.folded(phones, phone_set) for phones in decoder.decode(_posteriors(scores))]
        shown = np.linspace(0, len(ids) - 1, min(SHOWN_UTTERANCES, len(ids))).round().astype(int)
        for metric in (hybrid.PER, hybrid.PER_WITHOUT_SILENCE):
            rows.append(self._row(metric, references, found, index, len(ids), {
                "definition": f"{metric.definition}; phone bigram, acoustic scale {acoustic_scale:g}, insertion penalty {insertion_penalty:g}",
                "chance": metric.chance(references, None), "head": "Viterbi",
                "examples": [{"id": ids[i], "reference": references[i], "hypothesis": found[i]} for i in shown]}))
        return rows

    def _row(self, metric, truth, found, index, count, fields):
        clusters, n_speakers = intervals.clusters_of(index)
        return {"metric": metric.name, "n": count, **intervals.scored(truth, found, clusters, metric),
                "n_speakers": n_speakers,
                "target": "phones", "unit": "frame" if metric is hybrid.FER else "utterance", **fields}

    def _decoders(self, trained):
        """(scale, penalty) -> Decoder, with the bigram and the priors of the training part."""
        heard = self._trained_on(trained)
        bigram = hybrid.Bigram([self.file.transcript(name) for name in heard], self.config.phones)
        log_priors = hybrid.priors(self._training_labels(trained), self.num_outputs)
        return lambda scale, penalty: hybrid.Decoder(bigram, log_priors, scale, penalty)

    def _training_labels(self, trained):
        return [self.file.labels(name) for name in self._trained_on(trained)]

    def _trained_on(self, trained):
        used = trained.utterances
        return sorted(set(used.loc[used["part"] == "train", "id"]) & set(self.file.ids))


def _check_scale(scale):
    if not scale > 0:
        raise UsageError(f"--option acoustic_scale={scale:g}: give a positive number")


def _posteriors(scores):
    return [score["log_posteriors"] for score in scores]


def _labelled(scores, labels):
    """f32[N, C] and int[N] of the frames that have a label."""
    labels = np.concatenate(labels)
    return np.concatenate(_posteriors(scores))[labels >= 0], labels[labels >= 0]
