"""Confidence intervals and paired tests over speakers, of any metric of `ser_jax.metrics`.

The sums behind a metric are kept per speaker, so thousands of resamples or permutations are one matrix product. A system
that was trained several times (with several seeds) has one row per utterance and run; its value is the mean over runs of
the metric, and whatever happens to a speaker happens to all runs of this speaker.
"""

import numpy as np

from ser_jax.metrics import all_labels, as_metric

BOOTSTRAP_SAMPLES = 2000
PERMUTATIONS = 10_000
_BLOCK = 4_000_000  # numbers of resampling weights held in memory at a time


def speaker_bootstrap(truth, prediction, speakers, metric, n=BOOTSTRAP_SAMPLES, seed=0, classes=None, runs=None):
    """95 % percentile confidence interval from a bootstrap that draws speakers, not utterances, with replacement.

    Utterances of one speaker are not independent; drawing utterances would give an interval that is too narrow. A
    resample in which the metric is not defined (UAR: no utterance of some class was drawn) is left out; when more than
    half are, or when there is one speaker only, the interval is not defined. With fewer than about ten speakers
    percentile intervals are known to be too narrow, and this one is no exception.

    Args:
      truth, prediction: length N.
      speakers: length N; the cluster of each utterance. Give each utterance its own for an ordinary bootstrap.
      metric: a name of METRICS, or a Metric.
      n: number of resamples.
      seed: of the resampling.
      classes: the label list; by default the sorted labels of truth and prediction.
      runs: length N, the run of each row, or None for one. The interval is that of the mean over runs of the metric.
        Runs are averaged, not drawn: it does not hold how much a further run might differ.

    Returns:
      (low, high); both NaN when not defined.
    """
    metric = as_metric(metric)
    group, count = _groups(speakers, len(truth))
    if count < 2:
        return float("nan"), float("nan")
    sums = _sums(metric, truth, prediction, group, count, classes, runs)
    return _interval(_resampled([sums], n, seed, lambda totals: _mean(metric, totals)))


def clusters_of(index):
    """(object[N], the speaker of each row of an index, or its id where that is unknown; number of known speakers)."""
    speakers, ids = (index[column].to_numpy(dtype=object) for column in ("speaker_id", "id"))
    return np.where(speakers == "", ids, speakers), len(set(speakers) - {""})


def scored(truth, prediction, speakers, metric, classes=None):
    """Fields of a result row: `value`, `ci` over speakers (see `speaker_bootstrap`), `ci_method`, and `by_speaker`, the sums
    of the metric of each speaker, from which the rows of several folds can be pooled (`pooled`).
    """
    metric = as_metric(metric)
    group, count = _groups(speakers, len(truth))
    sums = _sums(metric, truth, prediction, group, count, classes, None)
    names = [str(name) for name in np.unique(np.asarray(speakers))]
    return {"ci_method": f"percentile bootstrap over speakers, {BOOTSTRAP_SAMPLES} resamples",
            "by_speaker": {"speakers": names, "sums": sums[0].tolist()}, **_of_sums(metric, sums)}


def summed(parts):
    """{speaker: float64[…]}, the sums over several `by_speaker`; a speaker in two of them is one."""
    found = {}
    for part in parts:
        for name, sums in zip(part["speakers"], part["sums"], strict=True):
            found[name] = found.get(name, 0) + np.asarray(sums, np.float64)
    return found


def pooled(parts, metric):
    """`value` and `ci` over all that several `by_speaker` hold."""
    sums = summed(parts)
    return _of_sums(as_metric(metric), np.stack([sums[name] for name in sorted(sums)])[None])


def pooled_difference(parts, others, metric):
    """(A − B, low, high) of the `by_speaker` of two systems over the speakers of both, drawn together; None for fewer than
    two speakers."""
    metric, ours, theirs = as_metric(metric), summed(parts), summed(others)
    both = sorted(ours.keys() & theirs.keys())
    if len(both) < 2:
        return None, None, None
    a, b = (np.stack([sums[name] for name in both])[None] for sums in (ours, theirs))

    def gap(x, y):
        return _mean(metric, x) - _mean(metric, y)

    return float(gap(a.sum(1), b.sum(1))), *_interval(_resampled([a, b], BOOTSTRAP_SAMPLES, 0, gap))


def _of_sums(metric, sums):
    """{"value", "ci"} from the sums of speakers, float64[runs, speakers, …]."""
    drawn = _interval(_resampled([sums], BOOTSTRAP_SAMPLES, 0, lambda totals: _mean(metric, totals))) if sums.shape[1] > 1 else (
        float("nan"), float("nan"))
    return {"value": float(_mean(metric, sums.sum(1))), "ci": list(drawn)}


def paired_test(
    truth,
    prediction_a,
    prediction_b,
    speakers,
    metric,
    n=BOOTSTRAP_SAMPLES,
    permutations=PERMUTATIONS,
    seed=0,
    classes=None,
    runs=None,
):
    """Compares two systems on the same utterances, paired over speakers.

    The confidence interval is that of the difference A − B when speakers are drawn with replacement (the same speakers
    for both). The p-value is that of a permutation test: under the null hypothesis the two systems are exchangeable
    within a speaker, so all predictions of a random set of speakers change sides. All 2^S sets are tried where there
    are no more than `permutations` of them, else that many random ones, with (1 + hits) / (1 + tries). The smallest p
    that S speakers can give is thus 2 / 2^S.

    Args:
      runs: length N, the run of each row, or None for one. Compared are then the means over runs of the metric; in the
        permutation all runs of a speaker change sides together, as they are no independent evidence.

    Returns:
      dict(metric, a, b, difference, ci [low, high], p_value, n, n_speakers, method); with `runs` also seeds: dict(names,
      values, mean, min, max, std (ddof 1)), A − B of every run.
    """
    metric = as_metric(metric)
    group, count = _groups(speakers, len(truth))
    if metric.classifies and classes is None:
        classes = all_labels(truth, np.concatenate([prediction_a, prediction_b]), None)
    sums_a = _sums(metric, truth, prediction_a, group, count, classes, runs)
    sums_b = _sums(metric, truth, prediction_b, group, count, classes, runs)
    each_a, each_b = (metric.value(sums.sum(1)) for sums in (sums_a, sums_b))
    a, b = float(each_a.mean()), float(each_b.mean())
    if count < 2:
        ci = (float("nan"), float("nan"))
    else:
        ci = _interval(_resampled([sums_a, sums_b], n, seed, lambda x, y: _mean(metric, x) - _mean(metric, y)))

    exact = 2**count <= permutations
    tries = 2**count if exact else permutations
    rng = np.random.default_rng(seed)
    hits = 0
    gap = sums_a - sums_b
    totals_a, totals_b = (sums.sum(1)[:, None] for sums in (sums_a, sums_b))
    step = max(1, _BLOCK // count)
    for first in range(0, tries, step):
        size = min(step, tries - first)
        if exact:
            swap = (np.arange(first, first + size)[:, None] >> np.arange(count)) & 1
        else:
            swap = rng.integers(0, 2, (size, count))
        moved = _weighted(swap, gap)
        found = _mean(metric, totals_a - moved) - _mean(metric, totals_b + moved)
        hits += int(np.sum(np.abs(found) >= abs(a - b) - 1e-12))
    p_value = hits / tries if exact else (1 + hits) / (1 + tries)
    method = f"speaker swap permutation ({'all ' if exact else ''}{tries}), speaker bootstrap ({n})"
    result = {
        "metric": metric.name,
        "a": a,
        "b": b,
        "difference": a - b,
        "ci": list(ci),
        "p_value": p_value,
        "n": len(truth) // len(each_a),
        "n_speakers": count,
        "method": method,
    }
    if runs is not None:
        if len(each_a) > 1:
            result["method"] += f"; of means over {len(each_a)} seeds, all seeds of a speaker together"
        result["seeds"] = {"names": np.unique(runs).tolist(), **spread_over_runs(each_a - each_b)}
    return result


def spread_over_runs(values):
    """dict(mean, min, max, std (ddof 1; NaN for one), values) of one value per run."""
    values = np.asarray(values, np.float64)
    std = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    return {
        "mean": float(values.mean()),
        "min": float(values.min()),
        "max": float(values.max()),
        "std": std,
        "values": values.tolist(),
    }


def _sums(metric, truth, prediction, group, count, classes, runs):
    """Sums of every run and speaker: float64[runs, count, …]."""
    classes = all_labels(truth, prediction, classes) if metric.classifies else None
    if runs is None:
        return metric.sums(truth, prediction, group, count, classes)[None]
    truth, prediction, runs = np.asarray(truth), np.asarray(prediction), np.asarray(runs)
    names, sizes = np.unique(runs, return_counts=True)
    if len(runs) != len(truth) or len(set(sizes)) > 1:
        raise ValueError(f"{len(truth)} rows in runs of {sorted(set(sizes.tolist()))}: each run needs every utterance")
    parts = [runs == name for name in names]
    return np.stack([metric.sums(truth[part], prediction[part], group[part], count, classes) for part in parts])


def _mean(metric, totals):
    """Mean over runs of the metric, totals float64[runs, …]; NaN where it is not defined in one of them."""
    return metric.value(totals).mean(0)


def _resampled(sums, n, seed, value):
    """`value` of the sums over speakers drawn with replacement, n times: float64[n].

    Args:
      sums: list of float64[runs, speakers, …].
      value: is given a float64[runs, size, …] for each of them.
    """
    count = sums[0].shape[1]
    rng = np.random.default_rng(seed)
    values = []
    step = max(1, _BLOCK // count)
    for first in range(0, n, step):
        size = min(step, n - first)
        weight = rng.multinomial(count, np.full(count, 1 / count), size=size).astype(np.float64)
        values.append(value(*(_weighted(weight, part) for part in sums)))
    return np.concatenate(values)


def _weighted(weight, sums):
    """float64[runs, size, …], the sums [runs, speakers, …] over speakers with each row of weight[size, speakers]."""
    runs, count, *rest = sums.shape
    return np.stack([(weight @ part.reshape(count, -1)).reshape(-1, *rest) for part in sums])


def _interval(values):
    defined = values[~np.isnan(values)]
    if len(defined) < len(values) / 2:
        return float("nan"), float("nan")
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


def _groups(speakers, length):
    if len(speakers) != length:
        raise ValueError(f"{length} utterances but {len(speakers)} speakers")
    names, group = np.unique(np.asarray(speakers), return_inverse=True)
    return group.reshape(-1), len(names)
