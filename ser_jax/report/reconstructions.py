"""What autoencoders make of a few utterances: input, output and error, the same utterances for every checkpoint."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from ser_jax.corpora.schema import SAMPLE_RATE
from ser_jax.errors import UserError

TASK = "reconstruction"
UTTERANCES = 4
HOW = {
    "bidirectional": "bidirectional decoder: it has read every frame, the one it is asked for included, so a good "
    "picture says little of the representation",
    "unidirectional": "unidirectional decoder: it has read the frames decoded before",
}


@dataclasses.dataclass(frozen=True)
class Shown:
    """One utterance (its first piece) before and after.

    Attributes:
      id, speaker: of the utterance.
      target, output: float32[F, bands], time by band.
      seconds: duration of the piece; whole: of the utterance.
      seen: whether this checkpoint was trained on it, or chosen by it.
    """

    id: str
    speaker: str
    target: np.ndarray
    output: np.ndarray
    seconds: float
    whole: float
    seen: bool

    @property
    def rmse(self):
        """Root of the mean squared error over all values."""
        return float(np.sqrt(np.mean(np.square(self.output.astype(np.float64) - self.target))))


@dataclasses.dataclass(frozen=True)
class Reconstructions:
    """What one checkpoint makes of the utterances.

    Attributes:
      name, workdir, step, hash: the checkpoint.
      how: what its decoder has read, as text; "" where the config does not tell.
      corpus, fingerprint: of the corpus.
      shown: list of Shown.
      stamps: of SYNTHETIC and TRANSDUCTIVE.
    """

    name: str
    workdir: str
    step: int
    hash: str
    how: str
    corpus: str
    fingerprint: str
    shown: list
    stamps: list


def of_autoencoder(config):
    """Whether a workdir's config.json (or None) is that of a reconstruction task."""
    task = config.get("task") if isinstance(config, dict) else None
    return isinstance(task, dict) and task.get("kind") == TASK


def reconstruct(workdirs, corpus_path, count=UTTERANCES):
    """Reconstructions by each checkpoint, the best one of each workdir, of the same utterances.

    Args:
      workdirs: of reconstruction runs.
      corpus_path: a prepared corpus.

    Raises:
      UserError: no such checkpoint or corpus, or no utterance that is long enough.
    """
    from ser_jax.checkpoint import Trained
    from ser_jax.data.prepared import PreparedCorpus

    corpus = PreparedCorpus(corpus_path)
    every = [Trained(workdir) for workdir in workdirs]
    seen = [corpus.index["audio_sha256"].isin(trained.pretrained_on).to_numpy() for trained in every]
    tasks = [trained.network.task for trained in every]
    usable = np.array([all(len(task.pieces(int(length), task.evaluation_seconds)) for task in tasks)
                       for length in corpus.index["num_samples"]], bool)  # fmt: skip
    if not usable.any():
        raise UserError(
            f"{corpus_path}: no utterance is long enough for the autoencoders of {', '.join(map(str, workdirs))}"
        )
    chosen = choose(corpus.index, usable, np.any(seen, axis=0), count)
    return [_one(trained, corpus, chosen, known) for trained, known in zip(every, seen, strict=True)]


def choose(index, usable, seen, count):
    """Rows of a few utterances: unseen ones first, one of each speaker before a second of any, by a hash of their ids.

    Args:
      index: of a prepared corpus, N rows.
      usable, seen: bool[N].

    Returns:
      list of at most `count` rows, in the order of the index.
    """
    order = sorted(np.flatnonzero(usable), key=lambda row: hashlib.sha256(index["id"].iloc[row].encode()).hexdigest())
    taken, turn = {}, {}
    for row in sorted(order, key=lambda row: bool(seen[row])):
        speaker = index["speaker_id"].iloc[row]
        turn[row] = taken[speaker] = taken.get(speaker, -1) + 1
    return sorted(int(row) for row in sorted(turn, key=lambda row: (bool(seen[row]), turn[row]))[:count])


def _one(trained, corpus, chosen, seen):
    import jax

    from ser_jax.data import batches

    task, index = trained.network.task, corpus.index.iloc[chosen]
    seconds = task.evaluation_seconds
    pieces = [piece for piece in batches.pieces_of(index["num_samples"], task, seconds)[0] if piece.number == 0]
    length = max(batches.padded_length(piece.length, seconds) for piece in pieces)
    batch = batches.load(lambda i: corpus.speech(chosen[i]), length, pieces, len(pieces))
    outputs = jax.jit(trained.network.apply)(trained.params, trained.stats, batch)
    target, output, mask = (np.asarray(outputs[name]) for name in ("target", "reconstruction", "mask"))
    shown = []
    for i, (piece, row) in enumerate(zip(pieces, chosen, strict=True)):
        line = index.iloc[i]
        shown.append(Shown(str(line["id"]), str(line["speaker_id"]), target[i][mask[i]], output[i][mask[i]],
                           piece.length / SAMPLE_RATE, line["num_samples"] / SAMPLE_RATE, bool(seen[row])))  # fmt: skip
    stamps = ["TRANSDUCTIVE"] if any(each.seen for each in shown) else []
    if corpus.info["synthetic"] or trained.synthetic:
        stamps.append("SYNTHETIC")
    how = HOW.get(getattr(trained.experiment.model, "decoder", None), "")
    name = trained.workdir.name or Path(trained.workdir).resolve().name
    return Reconstructions(
        name, str(trained.workdir), trained.step, trained.hash, how, corpus.name, corpus.fingerprint, shown, stamps
    )  # fmt: skip


def of_logs(logs, corpus_path):
    """`reconstruct` for those of the training logs (`rows.Log`) whose task is reconstruction; workdir by workdir.

    Raises:
      UserError: there is none.
    """
    workdirs = [log.workdir for log in logs if of_autoencoder(log.config)]
    if not workdirs:
        raise UserError(f"--reconstructions {corpus_path}: no --workdir of an autoencoder (task {TASK!r}); name one")
    return reconstruct(workdirs, corpus_path)


def notes(each):
    """[(id, speaker, RMSE as text, what is shown and whether it was seen)] of the utterances."""
    return [(shown.id, shown.speaker or "unknown", f"{shown.rmse:.3f}", _about(shown)) for shown in each.shown]


def _about(shown):
    part = (
        f"first {shown.seconds:.1f} of {shown.whole:.1f} s" if shown.seconds < shown.whole else f"{shown.whole:.1f} s"
    )
    return f"{part}; {'seen in pretraining' if shown.seen else 'not seen in pretraining'}"
