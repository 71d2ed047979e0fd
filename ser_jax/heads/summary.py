"""From predictions to the numbers of a result row: labels by UAR, numbers by CCC, MSE and Pearson."""

import numpy as np

from ser_jax.errors import UserError
from ser_jax.metrics import (
    BOOTSTRAP_SAMPLES,
    chance_level,
    confusion,
    evaluate,
    macro_f1,
    speaker_bootstrap,
    uar,
    war,
)
from ser_jax.results import OF_NUMBERS

FEW_SPEAKERS = 10
METRICS_OF = {"labels": ("UAR",), "numbers": OF_NUMBERS}  # the first is the default


def summary_of_labels(predictions, labels, seed):
    """The numbers of a result row, from the pooled predictions of all folds.

    Args:
      predictions: table of `cross_validation.Outcome`.
      labels: the label list.
      seed: of the bootstrap.
    """
    truth, prediction = predictions["truth"].tolist(), predictions["prediction"].tolist()
    absent = sorted(set(labels) - set(truth))
    if absent:
        raise UserError(
            f"class {', '.join(map(repr, absent))} is trained but never tested, so UAR is not defined; choose --classes"
        )
    folds, lacking = [], 0
    for name, part in predictions.groupby("fold", sort=False):
        lacking += part["truth"].nunique() < len(labels)
        folds.append(
            {"name": name, "value": uar(part["truth"], part["prediction"], labels, absent="skip"), "n": len(part)}
        )
    pooling = "pooled predictions of all folds"
    if lacking:
        pooling += f"; fold mean: {lacking} of {len(folds)} folds lack a class, their UAR is over the classes present"
    secondary = {
        "WAR": war(truth, prediction),
        "macro_F1": macro_f1(truth, prediction, labels),
        "UAR_fold_mean": float(np.mean([fold["value"] for fold in folds])),
        "WAR_chance": chance_level("WAR", truth),
    }
    return {
        "metric": "UAR",
        "value": uar(truth, prediction, labels),
        **_interval(predictions, "UAR", seed, labels),
        "chance": chance_level("UAR", truth, labels),
        "classes": labels,
        "confusion": confusion(truth, prediction, labels),
        "secondary": secondary,
        "fold_pooling": pooling,
        "folds": folds,
    }


def summary_of_numbers(predictions, metric, seed):
    """The numbers of a result row, from the pooled predictions of all folds.

    Args:
      predictions: table of `cross_validation.Outcome`.
      metric: "CCC", "MSE" or "Pearson", the one reported; the others are secondary.
      seed: of the bootstrap.
    """
    metrics = METRICS_OF["numbers"]
    folds = []
    for name, part in predictions.groupby("fold", sort=False):
        found = {each: evaluate(each, part["truth"], part["prediction"]) for each in metrics}
        folds.append({"name": name, "value": found[metric], "n": len(part), **found})
    pooling = "pooled predictions of all folds; fold std: population (ddof 0) over folds"
    secondary = {each: evaluate(each, predictions["truth"], predictions["prediction"]) for each in metrics}
    for each in metrics:
        values = np.array([fold[each] for fold in folds])
        defined = values[~np.isnan(values)]
        if len(defined) < len(values):
            pooling += f"; {each} is not defined in {len(values) - len(defined)} of {len(values)} folds (left out)"
        secondary[f"{each}_fold_mean"] = float(defined.mean()) if len(defined) else float("nan")
        secondary[f"{each}_fold_std"] = float(defined.std()) if len(defined) else float("nan")
    return {
        "metric": metric,
        "value": secondary[metric],
        **_interval(predictions, metric, seed, None),
        "chance": chance_level(metric, predictions["truth"]),
        "secondary": secondary,
        "fold_pooling": pooling,
        "folds": folds,
    }


def _interval(predictions, metric, seed, labels):
    speakers = predictions["speaker_id"]
    known, unknown = speakers[speakers != ""].nunique(), int((speakers == "").sum())
    ci = speaker_bootstrap(
        predictions["truth"].to_numpy(),
        predictions["prediction"].to_numpy(),
        speakers.where(speakers != "", predictions["id"]),
        metric,
        seed=seed,
        classes=labels,
    )
    method = f"percentile bootstrap over speakers, {BOOTSTRAP_SAMPLES} resamples, seed {seed}"
    if unknown:
        method += f"; {unknown} units of unknown speaker are drawn one by one, so it is too narrow"
    elif known < FEW_SPEAKERS:
        method += f"; {known} speakers: too narrow" if known > 1 else "; not defined for one speaker"
    return {"ci": list(ci), "ci_method": method, "n": len(predictions), "n_speakers": known}
