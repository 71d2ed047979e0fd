"""What tasks with one class per utterance share: the loss, the periodic evaluation, the rows of `evaluate`."""

import jax
import numpy as np

from ser_jax import intervals, losses, metrics


class Classification:
    """Base of such tasks; they add `target`, `classes` and `label` to it, and the input side of the contract."""

    eval_metric = "accuracy"
    options = {}

    @property
    def num_outputs(self):
        return len(self.classes)

    def loss(self, outputs, batch):
        correct = outputs["logits"].argmax(1) == batch["label"]
        return losses.cross_entropy(outputs["logits"], batch["label"]).mean(), {"accuracy": correct.mean()}

    def scores(self, outputs):
        """Class probabilities of each piece: f32[B, K]."""
        return jax.nn.softmax(outputs["logits"])

    def combine(self, pieces):
        """Mean over the pieces of an utterance."""
        return np.mean(pieces, axis=0, dtype=np.float64)

    def summary(self, scores, index):
        truth, scores = self.label(index), np.asarray(scores)
        probability = np.maximum(scores[np.arange(len(truth)), truth], 1e-7)
        return {"loss": float(-np.log(probability).mean()), "accuracy": float((scores.argmax(1) == truth).mean())}

    def rows(self, scores, index, trained):
        """Accuracy per utterance and per speaker (scores averaged over the utterances), intervals over speakers.

        Utterances of unknown speaker are clusters of their own, and are not in the row per speaker.
        """
        truth, scores = self.label(index), np.asarray(scores)
        speakers, ids = (index[column].to_numpy(dtype=object) for column in ("speaker_id", "id"))
        known = sorted(set(speakers) - {""})
        units = [("utterance", truth, scores.argmax(1), np.where(speakers == "", ids, speakers))]
        if known:
            per_speaker = np.stack([scores[speakers == speaker].mean(0) for speaker in known])
            speaker_truth = np.array([truth[speakers == speaker][0] for speaker in known])
            units.append(("speaker", speaker_truth, per_speaker.argmax(1), known))
        return [
            {
                "metric": "WAR",
                **intervals.scored(y, prediction, clusters, "WAR", range(len(self.classes))),
                "n": len(y),
                "n_speakers": len(known),
                "definition": f"accuracy per {unit} (scores averaged over its pieces)",
                "chance": float(np.bincount(y).max() / len(y)),
                "classes": list(self.classes),
                "confusion": metrics.confusion(y, prediction, range(len(self.classes))).tolist(),
                "target": self.target,
                "unit": unit,
            }
            for unit, y, prediction, clusters in units
        ]
