"""One head fitted on the training side of every fold and asked about the tested rows."""

import dataclasses

import joblib
import numpy as np
import pandas as pd

from ser_jax.errors import UserError
from ser_jax.heads.vote import average, unit_labels, vote
from ser_jax.progress import Progress
from ser_jax.protocols.folds import corpus_keys, hold_out


@dataclasses.dataclass(frozen=True)
class Data:
    """Columns of the labelled rows as arrays of length N; `groups` are the speakers with unknown ones told apart."""

    x: np.ndarray
    y: np.ndarray
    ids: np.ndarray
    units: np.ndarray
    speakers: np.ndarray
    groups: np.ndarray
    audio: np.ndarray


def arrays(features, target):
    """The `Data` of a `Features` whose rows all have a label or number."""
    table = features.table
    speakers = corpus_keys(table, "speaker_id").to_numpy(dtype=object)
    units = features.units.to_numpy(dtype=object)
    return Data(
        features.embedding,
        table[target].to_numpy(dtype=None if table[target].dtype.kind == "f" else object),
        table["id"].to_numpy(dtype=object),
        units,
        speakers,
        # For inner folds an unknown speaker is as many speakers as there are units.
        np.where(speakers == "", units, speakers),
        table["audio_sha256"].to_numpy(dtype=object),
    )


def run_folds(data, protocol, fitter, select, rule, jobs):
    """Predictions of all folds in one table, and the fitted models.

    Args:
      data: a `Data`.
      protocol: a `Protocol`.
      fitter: a `heads.Head`.
      select: as `heads.Head.fit` takes it.
      rule: of heads.vote.VOTES, for labels.
      jobs: folds at the same time, in processes.
    """
    tasks = (joblib.delayed(_run_fold)(data, fold, fitter, select, rule) for fold in protocol.folds)
    tables, models = [], []
    with Progress(len(protocol.folds), f"probe {protocol.name}", "folds") as progress:
        for table, model in joblib.Parallel(n_jobs=jobs, return_as="generator")(tasks):
            tables.append(table)
            models.append(model)
            progress.update()
    return pd.concat(tables, ignore_index=True), models


def head_to_keep(data, table, target, protocol, fitter, select, fitted, seed):
    """(model, what it was fitted on): that of the only fold, or one fitted on all rows."""
    if len(protocol.folds) == 1:
        return fitted[0], f"train and dev of {protocol.name}"
    dev = hold_out(table, data.groups, target, f"{seed}/head") if fitter.needs_dev else np.zeros(len(data.y), bool)
    model = fitter.fit(data.x, data.y, data.groups, dev, select)
    return model, f"all {len(set(data.units))} labelled units, those of the test parts included"


def _run_fold(data, fold, fitter, select, rule):
    dev, test = np.isin(data.ids, fold.dev), np.isin(data.ids, fold.test)
    train = np.isin(data.ids, fold.train) | dev
    try:
        model = fitter.fit(data.x[train], data.y[train], data.groups[train], dev[train], select)
    except UserError as error:
        raise UserError(f"fold {fold.name!r}: {error}") from None
    scores = model.predict(data.x[test])[:, None] if fitter.predicts == "numbers" else model.scores(data.x[test])
    names, prediction = decide(fitter.predicts, scores, data.units[test], model.classes, rule)
    return tested(data, test, fold.name, fitter.predicts, names, prediction), model


def decide(predicts, scores, units, classes, rule):
    """(sorted units, the label or number of each) from float[N, K] scores of rows; for numbers K = 1."""
    return average(scores[:, 0], units) if predicts == "numbers" else vote(scores, units, classes, rule)


def tested(data, test, fold, predicts, names, prediction):
    """The table of predictions of one fold.

    Args:
      data: a `Data`.
      test: bool[N], the tested rows.
      fold: its name.
      predicts: "labels" or "numbers".
      names, prediction: of `decide`.
    """
    units, truth = data.units[test], data.y[test]
    truth = (average if predicts == "numbers" else unit_labels)(truth, units)[1]
    speaker = dict(zip(units[::-1], data.speakers[test][::-1]))
    audio = dict(zip(units[::-1], data.audio[test][::-1]))  # of the first piece, enough to tell recordings apart
    columns = {
        "id": names,
        "speaker_id": [speaker[name] for name in names],
        "audio_sha256": [audio[name] for name in names],
        "fold": fold,
        "truth": truth,
        "prediction": prediction,
    }
    value = "float64" if predicts == "numbers" else "str"
    kinds = {name: value if name in ("truth", "prediction") else "str" for name in columns}
    return pd.DataFrame(columns).astype(kinds)
