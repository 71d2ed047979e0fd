"""From predictions to the numbers of a result row: labels by UAR, numbers by CCC, MSE and Pearson.

With a column `seed` every number is the mean over seeds of that of one seed, and how the seeds differ stands beside it.
"""

import numpy as np

from ser_jax.errors import UserError
from ser_jax.intervals import BOOTSTRAP_SAMPLES, speaker_bootstrap, spread_over_runs
from ser_jax.metrics import METRICS, chance_level, confusion, evaluate, macro_f1, uar, war
from ser_jax.results import OF_NUMBERS

FEW_SPEAKERS = 10
METRICS_OF = {"labels": ("UAR",), "numbers": OF_NUMBERS}  # the first is the default


def check_tested(truth, labels):
    """Raises UserError when a label of the list is not among the tested ones."""
    absent = sorted(set(labels) - set(truth))
    if absent:
        raise UserError(
            f"class {', '.join(map(repr, absent))} is trained but never tested, so UAR is not defined; choose --classes"
        )


def summary_of_labels(predictions, labels, seed):
    """The numbers of a result row, from the pooled predictions of all folds.

    Args:
      predictions: table of `cross_validation.Outcome`.
      labels: the label list.
      seed: of the bootstrap.
    """
    check_tested(predictions["truth"], labels)
    pooling, names = "pooled predictions of all folds", predictions["fold"].nunique()
    lacking = sum(part["truth"].nunique() < len(labels) for _, part in predictions.groupby("fold"))
    if lacking:
        pooling += f"; fold mean: {lacking} of {names} folds lack a class, their UAR is over the classes present"
    found = _over_seeds(predictions, "UAR", lambda part: _of_labels(part, labels))
    return {
        "metric": "UAR",
        **found,
        **_interval(predictions, "UAR", seed, labels),
        "chance": chance_level("UAR", predictions["truth"].tolist(), labels),
        "classes": labels,
        "fold_pooling": pooling + _seeds_too(predictions),
    }


def _of_labels(predictions, labels):
    """The numbers of one seed."""
    truth, prediction = predictions["truth"].tolist(), predictions["prediction"].tolist()
    folds = [
        {"name": name, "value": uar(part["truth"], part["prediction"], labels, absent="skip"), "n": len(part)}
        for name, part in predictions.groupby("fold", sort=False)
    ]
    secondary = {
        "WAR": war(truth, prediction),
        "macro_F1": macro_f1(truth, prediction, labels),
        "UAR_fold_mean": float(np.mean([fold["value"] for fold in folds])),
        "WAR_chance": chance_level("WAR", truth),
    }
    value, counts = uar(truth, prediction, labels), confusion(truth, prediction, labels)
    return {"value": value, "confusion": counts, "secondary": secondary, "folds": folds}


def summary_of_numbers(predictions, metric, seed):
    """The numbers of a result row, from the pooled predictions of all folds.

    Args:
      predictions: table of `cross_validation.Outcome`.
      metric: "CCC", "MSE" or "Pearson", the one reported; the others are secondary.
      seed: of the bootstrap.
    """
    found = _over_seeds(predictions, metric, lambda part: _of_numbers(part, metric))
    pooling = "pooled predictions of all folds; fold std: population (ddof 0) over folds"
    folds = found["folds"]
    for each in METRICS_OF["numbers"]:
        undefined = sum(np.isnan(fold[each]) for fold in folds)
        if undefined:
            pooling += f"; {each} is not defined in {undefined} of {len(folds)} folds (left out)"
    return {
        "metric": metric,
        **found,
        **_interval(predictions, metric, seed, None),
        "chance": chance_level(metric, predictions["truth"]),
        "fold_pooling": pooling + _seeds_too(predictions),
    }


def _of_numbers(predictions, metric):
    """The numbers of one seed."""
    metrics, folds = METRICS_OF["numbers"], []
    for name, part in predictions.groupby("fold", sort=False):
        found = {each: evaluate(each, part["truth"], part["prediction"]) for each in metrics}
        folds.append({"name": name, "value": found[metric], "n": len(part), **found})
    secondary = {each: evaluate(each, predictions["truth"], predictions["prediction"]) for each in metrics}
    for each in metrics:
        values = np.array([fold[each] for fold in folds])
        defined = values[~np.isnan(values)]
        secondary[f"{each}_fold_mean"] = float(defined.mean()) if len(defined) else float("nan")
        secondary[f"{each}_fold_std"] = float(defined.std()) if len(defined) else float("nan")
    return {"value": secondary[metric], "secondary": secondary, "folds": folds}


def _over_seeds(predictions, metric, numbers):
    """`numbers` of the predictions; with seeds the mean of those of each seed, and what the seeds have of `metric`."""
    if "seed" not in predictions:
        return numbers(predictions)
    each = [numbers(part) for _, part in predictions.groupby("seed")]
    found, count = _mean(each), f"{len(each)} seed{'s' * (len(each) > 1)}"
    spread = spread_over_runs([one["value"] for one in each])
    found["secondary"] |= {f"{metric}_seed_{key}": spread[key] for key in ("min", "max", "std")}
    found["secondary"][f"{metric}_seeds"] = spread["values"]
    return {"definition": f"mean over {count} of {METRICS[metric].definition}", **found}


def _mean(values):
    """The mean of equal trees of dicts, lists and numbers; names and counts of units are equal in all."""
    first = values[0]
    if isinstance(first, dict):
        return {key: _mean([value[key] for value in values]) for key in first}
    if isinstance(first, list):
        return [_mean(list(parts)) for parts in zip(*values)]
    if isinstance(first, str) or all(np.array_equal(first, value) for value in values):
        return first
    return np.mean(values, axis=0)


def _seeds_too(predictions):
    return "; every seed by itself, then the mean over seeds" if "seed" in predictions else ""


def _interval(predictions, metric, seed, labels):
    runs = predictions["seed"].to_numpy() if "seed" in predictions else None
    each = predictions if runs is None else predictions[runs == runs[0]]
    speakers = each["speaker_id"]
    known, unknown = speakers[speakers != ""].nunique(), int((speakers == "").sum())
    ci = speaker_bootstrap(
        predictions["truth"].to_numpy(),
        predictions["prediction"].to_numpy(),
        predictions["speaker_id"].where(predictions["speaker_id"] != "", predictions["id"]),
        metric,
        seed=seed,
        classes=labels,
        runs=runs,
    )
    method = f"percentile bootstrap over speakers, {BOOTSTRAP_SAMPLES} resamples, seed {seed}"
    if runs is not None:
        method += "; of the mean over seeds, which are not drawn"
    if unknown:
        method += f"; {unknown} units of unknown speaker are drawn one by one, so it is too narrow"
    elif known < FEW_SPEAKERS:
        method += f"; {known} speakers: too narrow" if known > 1 else "; not defined for one speaker"
    return {"ci": list(ci), "ci_method": method, "n": len(each), "n_speakers": known}
