"""What `evaluate` found for the folds of a run, as one figure beside the paper's: pooled over speakers, and the mean over folds."""

import numpy as np

from ser_jax import intervals, metrics, results

COLUMNS = ("table", "set", "target", "part", "paper", "ours", "fold std", "ours − paper", "pooled", "95% CI low",
           "95% CI high", "chance", "n", "speakers", "folds", "versus", "pooled difference", "difference low",
           "difference high", "stamps")


def metric_of(name):
    """The metrics.Metric of a result row; those of phones are defined beside their decoder."""
    if name in metrics.METRICS:
        return metrics.METRICS[name]
    from ser_jax.tasks import hybrid

    return next(metric for metric in (hybrid.FER, hybrid.PER, hybrid.PER_WITHOUT_SILENCE) if metric.name == name)


def find(rows, scored):
    """The latest of the result rows of a fold that a `papers.Scored` means, or None."""
    return next((row for row in reversed(rows) if row["metric"] == scored.metric
                 and row["split"].endswith(f", per {scored.unit}")), None)


def result(scored, folds, system, confusion=True):
    """One result row of the folds of a run.

    Args:
      folds: (name, its result row) of each.
      system: name of the row's system.
      confusion: whether it has the confusion matrix, where there is one.

    Returns:
      a row with the metric over all that was tested in any fold, and its interval over speakers. Who was tested in several
      folds (the dev speakers) is one cluster. `folds` and `secondary` hold the metric of each fold and their mean.
    """
    rows = [row for _, row in folds]
    values, counts = [row["value"] for row in rows], [row["n"] for row in rows]
    pooled = intervals.pooled([row["by_speaker"] for row in rows], metric_of(scored.metric))
    first, fields = rows[0], {}
    if confusion and first.get("confusion"):
        fields = {"classes": first["classes"], "confusion": np.sum([row["confusion"] for row in rows], axis=0).tolist()}
    if len(rows) > 1:
        fields |= {"fold_pooling": "sums over all utterances of all folds",
                   "folds": [{"name": name, "value": row["value"], "n": row["n"]} for name, row in folds],
                   "secondary": {f"{scored.metric}_fold_mean": float(np.mean(values)),
                                 f"{scored.metric}_fold_std": float(np.std(values, ddof=1))}}
    elif first.get("examples"):
        fields["examples"] = first["examples"]
    chances = [row.get("chance") for row in rows]
    return results.result_row(
        "evaluate", scored.metric, pooled["value"], sum(counts), ci=pooled["ci"], ci_method=first.get("ci_method"),
        definition=first["definition"], system=system, experiment=first.get("experiment"), target=first.get("target"),
        head=first.get("head"), corpus=first["corpus"], split=f"{scored.part}, per {scored.unit}",
        n_speakers=len(intervals.summed([row["by_speaker"] for row in rows])),
        chance=None if None in chances else float(np.average(chances, weights=counts)),
        stamps=list(dict.fromkeys(stamp for row in rows for stamp in row["stamps"])),
        notes=list(dict.fromkeys(note for row in rows for note in row.get("notes") or ())), **fields)


def table(scored, folds):
    """Lines of the table: dicts with the keys of COLUMNS.

    Args:
      scored: papers.Scored in the order of the table.
      folds: {Scored: (name, result row) of each fold}; one that is missing was not run.
    """
    lines = []
    for one in scored:
        line = dict.fromkeys(COLUMNS) | {"table": one.table, "set": one.row, "target": one.column, "part": one.part,
                                         "paper": one.value, "stamps": "NOT RUN"}
        if one in folds:
            line |= _figures(one, folds[one], _versus(one, folds))
        lines.append(line)
    return lines


def _versus(one, folds):
    return next((found for other, found in folds.items() if one.versus and (other.table, other.row, other.column, other.part)
                 == (one.table, one.versus, one.column, one.part)), None)


def _figures(one, folds, versus):
    """The part of a line that is ours; of what is missing to 1 where the paper's figure is that."""
    row = result(one, folds, one.row, confusion=False)
    values = [fold["value"] for _, fold in folds]
    mean, pooled, (low, high), chance = float(np.mean(values)), row["value"], row["ci"], row["chance"]
    if one.complement:
        mean, pooled, chance = 1 - mean, 1 - pooled, None if chance is None else 1 - chance
        low, high = (None if value is None else 1 - value for value in (high, low))
    line = {"ours": mean, "fold std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            "ours − paper": None if one.value is None else mean - one.value, "pooled": pooled, "95% CI low": low,
            "95% CI high": high, "chance": chance, "n": row["n"], "speakers": row["n_speakers"], "folds": len(folds),
            "stamps": " ".join(row["stamps"])}
    if versus:
        parts, others = ([fold["by_speaker"] for _, fold in side] for side in (folds, versus))
        gap, below, above = intervals.pooled_difference(parts, others, metric_of(one.metric))
        if gap is not None:
            gap, below, above = (0.0 - gap, 0.0 - above, 0.0 - below) if one.complement else (gap, below, above)
            line |= {"versus": one.versus, "pooled difference": gap, "difference low": below, "difference high": above}
    return line
