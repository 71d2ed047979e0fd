"""The contract between a task and the rest: training, evaluation and export know a task by this alone."""

from typing import Protocol

import numpy as np


class Task(Protocol):
    """What a model is pretrained on: records -> examples -> loss, and how its model is applied to an utterance.

    A task is built by its config's `build()`. Host-side methods handle one utterance as numpy arrays; device-side
    methods run inside jit on a batch, a dict of arrays with a leading batch axis.
    """

    num_outputs: int        # K, width of the model's output
    eval_metric: str        # the metric by which the best checkpoint is kept (larger is better)
    min_samples: int        # shortest utterance that is trained on, evaluated or embedded
    options: dict           # {name: type} of what `evaluate --option` may set for `rows`
    evaluation_seconds: float | None  # length of the pieces that `evaluate` averages over; None = whole utterances

    def refuse(self, index) -> np.ndarray:
        """str[N], reasons ("" = usable), one per row of a prepared corpus' index: what cannot be trained on."""

    def sizes(self, index) -> np.ndarray:
        """int[N], samples that the training examples are padded or cut to: few different values, as each of them is
        compiled. The pipeline puts examples of about equal size into one batch."""

    def example(self, utterance, size: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """One training example, its shapes given by `size` alone (that of its own `sizes`, or larger); random crops are
        drawn from `rng`."""

    def pieces(self, num_samples: int, seconds: float | None) -> list[tuple[int, int]]:
        """(start, end) in samples of the pieces an utterance is embedded and evaluated in; empty = too short."""

    def augment(self, batch, key):
        """Training batch -> batch, random, on the device."""

    def inputs(self, batch):
        """batch -> the model's positional arguments, e.g. (x[B, T], mask[B, T]); the front end lives here."""

    def loss(self, outputs, batch):
        """(scalar loss, dict of scalar training metrics)."""

    def scores(self, outputs):
        """What `evaluate` keeps of each piece: a tree of arrays with a leading batch axis."""

    def combine(self, pieces):
        """The scores of an utterance from those of its pieces, in their order."""

    def summary(self, scores, index) -> dict[str, float]:
        """Metrics of the periodic evaluation, `eval_metric` among them, from one score per row of an index."""

    def rows(self, scores, index, trained, **options) -> list[dict]:
        """Result-row fields of `evaluate`: metric, value, n, ci, … and `unit`, what is counted.

        Args:
          trained: the checkpoint.Trained that is scored.
          **options: those of `options` that differ from their defaults.
        """
