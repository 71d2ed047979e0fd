"""Heads: what is trained on frozen features. To add one, write a class with the interface of `Head` or `SeededHead` and
enter it in `HEADS`."""

import dataclasses
import importlib
import typing
from typing import Protocol

from ser_jax.errors import UsageError, suggestion
from ser_jax.options import read_options

HEADS = {
    "attentive_cnn": "ser_jax.heads.attentive:AttentiveHead",
    "compare": "ser_jax.heads.svm:CompareHead",
    "linear": "ser_jax.heads.svm:LinearHead",
    "logistic": "ser_jax.heads.svm:LogisticHead",
    "ols": "ser_jax.heads.regression:OlsHead",
    "ridge": "ser_jax.heads.regression:RidgeHead",
}
DEFAULTS = {"labels": "linear", "numbers": "ridge"}


class Head(Protocol):
    """A classifier or regression with its own scaling and its own choice of hyper-parameters, made from the rows it is
    given and no others.

    Attributes:
      name: its name in HEADS.
      predicts: "labels" or "numbers".
      needs_dev: `fit` needs rows with `dev` set.
      selection: one line on how hyper-parameters are chosen.
    """

    name: str
    predicts: str
    needs_dev: bool
    selection: str

    def fit(self, x, y, groups, dev, select=None):
        """Fits on the training side of a fold.

        Args:
          x: float32[N, D].
          y: labels, text, length N; or float64[N].
          groups: speaker of each row, length N, for inner folds.
          dev: bool[N], the rows of the dev part.
          select: None, or `(x, y) -> columns`, to be called on the rows of every single fit, inner ones included.

        Returns:
          a fitted model: `.classes` (sorted list, empty for numbers), `.scores(x) -> float64[M, K]` (greater = more of
          that class; the prediction itself, K = 1, for numbers), `.coef` (float64[K, D], 0 for what was not selected),
          `.chosen` (JSON-able hyper-parameters), `.unconverged` (number of fits that stopped at the limit of
          iterations).
        """


class SeededHead(Protocol):
    """A head whose numbers depend on a seed, such as a net: it is trained on every fold with several seeds, all asked
    for at once, so that it may train them together.

    Attributes:
      name, predicts, needs_dev, selection: as in `Head`.
      seeded: True.
      Options: a frozen dataclass of what `--option NAME=VALUE` sets; all fields have defaults. The head is made as
        `cls(Options(…))` or `cls()`.
      options: those it was made with.
    """

    name: str
    predicts: str
    seeded: bool
    needs_dev: bool
    selection: str
    Options: type
    options: object

    def predict_folds(self, features, target, protocol, seeds, jobs=1):
        """Trains on the training side of every fold with every seed and scores the tested rows.

        Args:
          features: a `ser_jax.export.features.Features`; every row has a label or number in column `target`.
          target: a column of its table.
          protocol: a `Protocol` of utterances of the features, each fold with a dev part if `needs_dev`.
          seeds: whole numbers. Of a seed nothing may depend on the others.
          jobs: processes.

        Returns:
          a `FoldsOutcome`.
        """


@dataclasses.dataclass(frozen=True)
class FoldsOutcome:
    """What a seeded head says of the tested rows. The last three are lists over seeds of {name of the fold: …}.

    Attributes:
      labels: sorted, length K; empty for numbers (K = 1).
      scores: (ids, float64[M, K]); every tested row of the fold once, in an order of the head's own. Greater = more of
        that label; the prediction itself for numbers.
      chosen: JSON-able facts, such as the epoch of the best dev UAR.
      representations: float32[M, R], in the order of `scores`: what the last layer sees.
    """

    labels: list
    scores: list
    chosen: list
    representations: list


def make_head(name, options=()):
    """The head called `name`.

    Args:
      name: a key of HEADS.
      options: texts "NAME=VALUE" that replace fields of its options.

    Raises:
      UsageError: no such head, no such option, or a value that it cannot have.
    """
    if name not in HEADS:
        raise UsageError(f"--head {name}: unknown{suggestion(name, HEADS)}; known: {', '.join(HEADS)}")
    module, attribute = HEADS[name].split(":")
    cls = getattr(importlib.import_module(module), attribute)
    if not options:
        return cls()
    if not hasattr(cls, "Options"):
        raise UsageError(f"--option {options[0]}: head {name} has no options")
    kinds = typing.get_type_hints(cls.Options)
    kinds = {field.name: kinds[field.name] for field in dataclasses.fields(cls.Options)}
    values = read_options(options, kinds)
    try:
        return cls(cls.Options(**values))
    except UsageError as error:
        raise UsageError(f"--option {error}") from None


def is_seeded(head):
    """Whether a head is a `SeededHead`."""
    return getattr(head, "seeded", False)
