"""Frames of a front end as features: of each utterance its first seconds, one row of T·D values and how many are valid.

What a net on frames wants (`Features.frames`); a fixed size, so that frames of all corpora are of one extractor.
"""

import dataclasses

from ser_jax.errors import UsageError, suggestion
from ser_jax.export import parts
from ser_jax.export.parts import PART_UTTERANCES

# Fields of `ser_jax.audio.logmel.LogMel`, all of them, by name; a plain dict, since JAX is not wanted for `--help`.
FRAMES = {
    "logmel26": {"bands": 26, "low_hz": 0.0, "high_hz": 6500.0},  # Neumann and Vu 2019
}
SECONDS = 7.5


def spec_of(name):
    """The front end of that name in FRAMES.

    Raises:
      UsageError: unknown.
    """
    from ser_jax.audio.logmel import LogMel

    if name not in FRAMES:
        raise UsageError(f"--frames {name}: unknown{suggestion(name, FRAMES)}; known: {', '.join(FRAMES)}")
    return LogMel(**FRAMES[name])


def export(name, corpus, out, *, seconds=None, batch_size=32, max_rejects=0.01, part_utterances=PART_UTTERANCES):
    """Writes a features file of frames; see `export.run.export`, which does it for checkpoints.

    Args:
      name: of FRAMES.
      corpus: PreparedCorpus.
      out: path ending in .parquet or .npz.
      seconds: how much of the start of each utterance. None = 7.5.
      batch_size: utterances of a device batch.
      max_rejects: largest share of utterances that may be shorter than one frame; they are listed in
        `<out>.rejects.csv`.
      part_utterances: utterances per part.

    Raises:
      UsageError: unknown frames, a format that does not hold them, no length that holds a frame.
      UserError: as for checkpoints.
    """
    from ser_jax import results
    from ser_jax.corpora.schema import SAMPLE_RATE
    from ser_jax.data.batches import Piece
    from ser_jax.export.devices import processes, wait_for_others
    from ser_jax.export.features import OF_FRAMES

    out, spec = parts.check_out(out, OF_FRAMES), spec_of(name)
    seconds = SECONDS if seconds is None else seconds
    size = 0 if seconds == "whole" else round(seconds * SAMPLE_RATE)
    steps = int(spec.num_frames(size))
    if steps < 1:
        raise UsageError(f"--chunk-seconds {seconds}: give at least the {spec.min_samples / SAMPLE_RATE:g} s of one "
                         "frame; frames are of the same number for all utterances")
    lengths = corpus.index["num_samples"].tolist()
    metadata = {
        "kind": "frames",
        "linguistic": False,
        "checkpoint": None,
        "experiment": None,
        "corpus": parts.corpus_metadata(corpus),
        "layer": name,
        "columns": [{"layer": name, "start": 0, "stop": 1 + steps * spec.bands, "frames": [steps, spec.bands]}],
        "pooling": "frames",
        "front_end": dataclasses.asdict(spec),
        "chunk_seconds": float(seconds),
        "pretrained_synthetic": False,
        "versions": results.versions(),
    }
    apply = Frames(spec, steps, float(seconds), batch_size)
    parts.write(parts.Work(
        metadata=metadata,
        identity=["frames", {key: metadata[key] for key in ("corpus", "columns", "front_end", "chunk_seconds")}],
        pieces=[Piece(row, 0, 0, min(n, size)) for row, n in enumerate(lengths) if n >= spec.min_samples],
        values=lambda pieces: apply.run(corpus.speech, pieces),
        what=f"rows of {name}, the first {seconds:g} s, {steps} x {spec.bands}",
        doing=f"{name} {corpus.name}",
        refused=[(row, f"{n} samples, shorter than {spec.min_samples}") for row, n in enumerate(lengths)
                 if n < spec.min_samples],
        reason="too short for a frame",
    ), corpus, out, max_rejects, part_utterances, processes(), wait_for_others)


class Frames:
    """A front end as a function from utterances to values of a layer of frames.

    Args:
      spec: LogMel.
      steps: T, the most frames of an utterance.
      seconds: the longest piece; T frames fit.
      batch_size: rows of a device batch, rounded up to a multiple of the devices.
      devices: default: the devices of this process.
    """

    def __init__(self, spec, steps, seconds, batch_size=32, devices=None):
        import jax

        from ser_jax.audio.logmel import logmel
        from ser_jax.audio.waveform import length_mask, to_float
        from ser_jax.export.devices import Devices

        def forward(batch):
            mask = length_mask(batch["length"], batch["speech"].shape[1])
            values, valid = logmel(to_float(batch["speech"]), mask, spec)
            return values, valid.sum(1)

        self.width, self.seconds = 1 + steps * spec.bands, seconds
        self.devices = Devices(batch_size, devices)
        self._forward = jax.jit(forward, out_shardings=self.devices.replicated)

    def run(self, speech_of, pieces):
        """Yields (piece, float32[1 + T·D]) for every piece, in an order of its own.

        Args:
          speech_of: row -> int16[T].
          pieces: list[batches.Piece].
        """
        import numpy as np

        for members, (values, counts) in self.devices.run(self._forward, speech_of, pieces, self.seconds):
            for piece, frames, count in zip(members, values, counts.tolist()):
                value = np.zeros(self.width, np.float32)
                value[0] = count
                value[1:1 + frames[:count].size] = frames[:count].reshape(-1)
                yield piece, value
