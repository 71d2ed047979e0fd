"""Characters of read or spoken English by connectionist temporal classification (Kim and Park 2016; Tits et al. 2018, §2.1).

28 symbols (`alphabet.py`), the blank last; cepstra by `ser_jax.audio.mfcc`; augmentation by rolling the cepstral axis.
"""

import collections
import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ser_jax import intervals, metrics
from ser_jax.audio import mfcc, specaugment, waveform
from ser_jax.corpora.schema import SAMPLE_RATE
from ser_jax.data.pieces import cut
from ser_jax.errors import UsageError, UserError
from ser_jax.progress import Progress
from ser_jax.tasks import alphabet, decoding
from ser_jax.tasks.language_model import ORDER, CharacterModel, read_texts

SHOWN_SENTENCES = 10


@dataclasses.dataclass(frozen=True)
class CTCConfig:
    """Examples, augmentation and decoding.

    Attributes:
      bucket_seconds: lengths that whole utterances are padded to, rising; one compiled program each. An utterance longer
        than the last is refused, with its reason in pretrained_on.parquet.
      labels_per_second: room for labels in a bucket; an utterance with more goes to a longer bucket.
      rolls: shifts of the cepstral axis, one drawn for each utterance, vacated coefficients zero; (0,) = none.
        The published recogniser draws from −2, −1, 0, 1.
      speed: utterances are played faster or slower by up to this share (Ko et al. 2015 use 0.1); 0 = off.
      noise: amplitude of uniform and normal noise added to the waveform, full-scale units.
      time_masks, time_mask_frames: SpecAugment (Park et al. 2019): how many stretches of up to so many frames are
        replaced by the mean of the utterance.
      coefficient_masks, coefficient_mask_width: the same across cepstral coefficients.
    """

    bucket_seconds: tuple[float, ...] = (3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 18, 21, 25, 30, 36)
    labels_per_second: float = 20.0
    rolls: tuple[int, ...] = (-2, -1, 0, 1)
    speed: float = 0.0
    noise: float = 0.0
    time_masks: int = 0
    time_mask_frames: int = 15
    coefficient_masks: int = 0
    coefficient_mask_width: int = 4

    def __post_init__(self):
        if not self.bucket_seconds or self.bucket_seconds[0] <= 0 or list(self.bucket_seconds) != sorted(set(self.bucket_seconds)):
            raise UsageError(f"task.bucket_seconds={self.bucket_seconds}: give lengths in seconds, each larger than the last")
        if self.labels_per_second <= 0:
            raise UsageError(f"task.labels_per_second={self.labels_per_second:g}: must be greater than 0")
        for name in ("noise", "time_masks", "time_mask_frames", "coefficient_masks", "coefficient_mask_width"):
            if getattr(self, name) < 0:
                raise UsageError(f"task.{name}={getattr(self, name):g}: must not be negative")
        if not 0 <= self.speed < 1:
            raise UsageError(f"task.speed={self.speed:g}: a share, at least 0 and less than 1")
        if any(abs(roll) >= mfcc.COEFFICIENTS for roll in self.rolls):
            raise UsageError(f"task.rolls={self.rolls}: there are {mfcc.COEFFICIENTS} coefficients")
        if not self.rolls:
            raise UsageError("task.rolls is empty: give (0,) for no roll")

    def build(self):
        return CTCTask(self)


class CTCTask:
    eval_metric = "character_accuracy"
    num_outputs = alphabet.SIZE
    min_samples = mfcc.MIN_SAMPLES
    evaluation_seconds = None
    options = {"beam_width": int, "language_model": str}

    def __init__(self, config):
        self.config = config
        self._buckets = np.array([round(seconds * SAMPLE_RATE) for seconds in config.bucket_seconds])

    def refuse(self, index):
        """Without text, too short for the front end, too many labels for CTC (the loss would be infinite), too long."""
        labels, needed = _label_counts(index)
        length, longest = index["num_samples"].to_numpy(), f"{self.config.bucket_seconds[-1]:g} s"
        return np.select(
            [labels == 0, length < self.min_samples, needed > mfcc.num_frames(length), length > self._buckets[-1],
             self._bucket(index, labels) == len(self._buckets)],
            ["no text", f"shorter than {self.min_samples} samples", "more labels than frames",
             f"longer than {longest} (task.bucket_seconds)", f"more labels than {longest} have room for (task.labels_per_second)"],
            "")

    def sizes(self, index):
        return self._buckets[np.minimum(self._bucket(index, _label_counts(index)[0]), len(self._buckets) - 1)]

    def _bucket(self, index, labels):
        """Number of the shortest bucket with room for samples and labels; len(buckets) where there is none."""
        by_length = np.searchsorted(self._buckets, index["num_samples"].to_numpy())
        by_labels = np.searchsorted([self._label_room(size) for size in self._buckets], labels)
        return np.maximum(by_length, by_labels)

    def _label_room(self, size):
        return int(np.ceil(size / SAMPLE_RATE * self.config.labels_per_second))

    def example(self, utterance, size, rng):
        labels = alphabet.encode(utterance.text)
        return {"speech": np.pad(utterance.speech, (0, size - len(utterance.speech))),
                "length": np.int32(len(utterance.speech)),
                "labels": np.pad(labels, (0, self._label_room(size) - len(labels))),
                "num_labels": np.int32(len(labels))}

    def pieces(self, num_samples, seconds):
        return cut(num_samples, seconds, minimum=self.min_samples)

    def augment(self, batch, key):
        config = self.config
        speed, noise, roll, time, coefficient = jax.random.split(key, 5)
        mask = waveform.length_mask(batch["length"], batch["speech"].shape[1])
        x = waveform.to_float(batch["speech"])
        if config.speed:
            # 2 · labels frames are always enough for CTC; faster than that the loss could become infinite.
            shortest = jnp.maximum(2 * mfcc.HOP * batch["num_labels"], mfcc.MIN_SAMPLES + 1)
            fastest = batch["length"] / shortest
            x, mask = waveform.random_speed(speed, x, mask, config.speed, jnp.maximum(fastest, 1.0))
        cepstra, frames = mfcc.mfcc(waveform.add_noise(noise, x, mask, config.noise) if config.noise else x, mask)
        cepstra = specaugment.roll_coefficients(roll, cepstra, config.rolls)
        cepstra = specaugment.mask_coefficients(coefficient, cepstra, frames, config.coefficient_masks,
                                                config.coefficient_mask_width)
        cepstra = specaugment.mask_time(time, cepstra, frames, config.time_masks, config.time_mask_frames)
        return batch | {"cepstra": cepstra, "frames": frames}

    def inputs(self, batch):
        if "cepstra" in batch:  # augmented already
            return batch["cepstra"], batch["frames"]
        return mfcc.mfcc(waveform.to_float(batch["speech"]), waveform.length_mask(batch["length"], batch["speech"].shape[1]))

    def loss(self, outputs, batch):
        """Mean over the batch of the negative log-likelihood of the labels, over all alignments (Graves et al. 2006)."""
        label_padding = jnp.arange(batch["labels"].shape[1]) >= batch["num_labels"][:, None]
        padding = ~outputs["mask"]
        loss = optax.ctc_loss(outputs["logits"], padding.astype(jnp.float32), batch["labels"],
                              label_padding.astype(jnp.float32), blank_id=alphabet.BLANK)
        return loss.mean(), {"loss_per_character": loss.sum() / batch["num_labels"].sum()}

    def scores(self, outputs):
        """{"log_probs": f32[B, F, 28], "frames": i32[B]}."""
        return {"log_probs": jax.nn.log_softmax(outputs["logits"]), "frames": outputs["mask"].sum(1)}

    def combine(self, pieces):
        """{"log_probs": f32[F, 28]} of the valid frames; pieces follow each other in time."""
        return {"log_probs": np.concatenate([piece["log_probs"][:piece["frames"]] for piece in pieces])}

    def transcripts(self, scores, references, trained, beam_width=0, language_model=""):
        """(texts, name of the decoder) from the scores of utterances.

        Args:
          references: their normalised texts.
          trained: checkpoint.Trained.
          beam_width: of the prefix beam search; 0 = greedy. The published recogniser decodes with 100.
          language_model: text file or prepared corpus whose texts make a character n-gram for the beam search; of a corpus
            that was trained on the training part, and never a sentence that is being scored. "" = none, as published.
        """
        if beam_width < 0:
            raise UsageError(f"--option beam_width={beam_width}: 0 = greedy, 100 = as published")
        if language_model and not beam_width:
            raise UsageError(f"--option language_model={language_model} needs a beam search: --option beam_width=100")
        if not beam_width:
            return self._greedy(scores), "greedy"
        model, name = None, f"beam search, width {beam_width}"
        if language_model:
            tested = set(references)  # their words must not help to find them
            texts = [text for text in read_texts(Path(language_model), trained) if alphabet.normalise(text) not in tested]
            if not texts:
                raise UserError(f"--option language_model={language_model}: no sentence but those that are being scored")
            model = CharacterModel(texts)
            name = f"{name}, character {ORDER}-gram of {len(texts)} sentences of {language_model}"
        with Progress(len(scores), name, "utterances") as progress:
            found = []
            for score in scores:
                found.append(alphabet.normalise(decoding.beam_search(score["log_probs"], beam_width, model)))
                progress.update()
        return found, name

    def _greedy(self, scores):
        return [alphabet.normalise(decoding.greedy(score["log_probs"])) for score in scores]  # spelt as the references are

    def summary(self, scores, index):
        """Error rates of the greedy transcripts: beam search is for the end."""
        references = [alphabet.normalise(text) for text in index["text"]]
        found = self._greedy(scores)
        cer, wer = (metrics.evaluate(name, references, found) for name in ("CER", "WER"))
        return {"CER": cer, "WER": wer, self.eval_metric: 1 - cer}

    def rows(self, scores, index, trained, **options):
        """CER and WER over all utterances, intervals over speakers, beside the best transcripts that do not listen."""
        references = [alphabet.normalise(text) for text in index["text"]]
        found, decoder = self.transcripts(scores, references, trained, **options)
        ids = index["id"].to_numpy(dtype=object)
        clusters, n_speakers = intervals.clusters_of(index)
        shown = np.linspace(0, len(ids) - 1, min(SHOWN_SENTENCES, len(ids))).round().astype(int)
        rows = []
        for metric in ("CER", "WER"):
            trivial = _trivial(metric, references)
            rows.append({
                "metric": metric,
                **intervals.scored(references, found, clusters, metric),
                "n": len(ids),
                "n_speakers": n_speakers,
                "definition": f"{metrics.METRICS[metric].definition}; {decoder} decoding",
                "chance": min(trivial.values()),
                "secondary": {f"{metric} of {name}": value for name, value in trivial.items()},
                "examples": [{"id": ids[i], "reference": references[i], "hypothesis": found[i]} for i in shown],
                "target": "text",
                "head": decoder,
                "unit": "utterance",
            })
        return rows


def _label_counts(index):
    """(labels, frames needed) of every row, int[N] each."""
    encoded = [alphabet.encode(text) for text in index["text"]]
    counts = [(len(labels), alphabet.frames_needed(labels)) for labels in encoded]
    return np.array(counts, np.int64).reshape(-1, 2).T


def _trivial(metric, references):
    """Error rates of a system that does not listen: nothing, the most frequent sentence of the references, spaces only."""
    most, _ = min(collections.Counter(references).items(), key=lambda item: (-item[1], item[0]))
    texts = {"nothing": [""] * len(references), "the most frequent sentence": [most] * len(references)}
    rates = {name: metrics.evaluate(metric, references, found) for name, found in texts.items()}
    if metric == "CER":  # as many spaces as characters get the spaces right; jiwer would strip them to nothing
        rates["spaces"] = 1 - sum(text.count(" ") for text in references) / sum(map(len, references))
    return rates
