"""Metrics of emotion and speech recognition.

Every metric is a function of sums over utterances (a confusion matrix, six moments, errors and words), which
`ser_jax.intervals` resamples for confidence intervals and paired tests. To add a metric, add one entry to `METRICS`.
"""

import dataclasses
from collections.abc import Callable

import numpy as np


def uar(truth, prediction, classes=None, absent="raise"):
    """Unweighted average recall (UA, balanced accuracy): the mean over the label list of the recall of each class.

    Args:
      truth, prediction: labels, length N.
      classes: the label list; by default the sorted labels of `truth`.
      absent: "raise" when a class of the label list has no utterance in `truth`; "skip" leaves that class out of the
        mean. (scikit-learn's `recall_score(labels=...)` silently counts it as 0.)

    Raises:
      ValueError: a class is absent, or a label is not in the list.
    """
    counts = confusion(truth, prediction, classes)
    if absent not in ("raise", "skip"):
        raise ValueError(f"absent must be 'raise' or 'skip', not {absent!r}")
    if absent == "raise" and (counts.sum(1) == 0).any():
        missing = np.asarray(_label_list(truth, classes))[counts.sum(1) == 0]
        raise ValueError(f"UAR is not defined: no utterance of class {', '.join(map(str, missing))} in the reference")
    present = counts.sum(1) > 0
    return float(np.mean(np.diag(counts)[present] / counts.sum(1)[present]))


def war(truth, prediction):
    """Weighted average recall (WA, accuracy): the share of correct predictions."""
    return float(np.mean(np.asarray(truth) == np.asarray(prediction)))


def macro_f1(truth, prediction, classes=None):
    """Mean over the label list of F1; a class neither present nor predicted counts 0, as in scikit-learn."""
    return float(_macro_f1(confusion(truth, prediction, all_labels(truth, prediction, classes))))


def confusion(truth, prediction, classes=None):
    """Counts int64[K, K]; rows are the truth, columns the prediction, both in the order of `classes`.

    Raises:
      ValueError: a label is not in `classes` (default: the sorted labels of both).
    """
    classes = all_labels(truth, prediction, classes) if classes is None else classes
    return _count_confusions(truth, prediction, np.zeros(len(truth), np.int64), 1, classes)[0].astype(np.int64)


def ccc(truth, prediction):
    """Concordance correlation coefficient (Lin 1989), population moments (ddof 0); NaN when both are one constant."""
    return evaluate(METRICS["CCC"], truth, prediction)


def mse(truth, prediction):
    """Mean squared error, in the squared unit of the labels."""
    return evaluate(METRICS["MSE"], truth, prediction)


def pearson(truth, prediction):
    """Pearson correlation; NaN when either side is constant."""
    return evaluate(METRICS["Pearson"], truth, prediction)


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric as a function of sums.

    Attributes:
      name: as printed.
      definition: one line that goes into every result row.
      sums: `(truth, prediction, group[N], groups, classes) -> float64[groups, ...]`, the sums within each group.
      value: `float64[..., ...] -> float64[...]`, the metric from sums; NaN where it is not defined.
      chance: `(truth, classes) -> float | None`, what a system that does not listen would get.
      classifies: True when truth and prediction are labels of a label list. (WER and CER take texts, and count them as
        they are: normalise both sides alike.)
    """

    name: str
    definition: str
    sums: Callable
    value: Callable
    chance: Callable
    classifies: bool


def evaluate(metric, truth, prediction, classes=None):
    """Value of `metric` (a name of METRICS or a Metric) over all utterances; NaN where it is not defined."""
    metric = as_metric(metric)
    classes = all_labels(truth, prediction, classes) if metric.classifies else None
    return float(metric.value(metric.sums(truth, prediction, np.zeros(len(truth), np.int64), 1, classes)[0]))


def chance_level(metric, truth, classes=None):
    """What a system that does not listen would get.

    1/K for UAR, the share of the largest class for WAR, 0 for correlations, the variance for MSE; for WER and CER the
    better of answering nothing and of always answering the most frequent reference.
    """
    metric = as_metric(metric)
    return metric.chance(np.asarray(truth), _label_list(truth, classes) if metric.classifies else None)


def as_metric(metric):
    """The Metric of a name of METRICS; a Metric as it is."""
    return metric if isinstance(metric, Metric) else METRICS[metric]


def all_labels(truth, prediction, classes=None):
    """The label list: `classes`, or the sorted labels of both sides."""
    return _label_list([*np.asarray(truth).tolist(), *np.asarray(prediction).tolist()], classes)


def _label_list(truth, classes):
    return sorted(set(np.asarray(truth).tolist())) if classes is None else list(classes)


def _count_confusions(truth, prediction, group, groups, classes):
    """Confusion matrices float64[groups, K, K]."""
    if not len(truth) or len(truth) != len(prediction):
        raise ValueError(f"{len(truth)} references but {len(prediction)} predictions")
    place = {label: index for index, label in enumerate(classes)}
    try:
        rows = np.array([place[label] for label in np.asarray(truth).tolist()])
        columns = np.array([place[label] for label in np.asarray(prediction).tolist()])
    except KeyError as error:
        raise ValueError(f"label {error.args[0]!r} is not in the label list {list(classes)}") from None
    k = len(classes)
    counts = np.bincount((group * k + rows) * k + columns, minlength=groups * k * k)
    return counts.reshape(groups, k, k).astype(np.float64)


def _sum_moments(truth, prediction, group, groups, classes):
    """Sums of 1, t, p, t², p², tp per group: float64[groups, 6], about the overall mean of t, to lose no digits."""
    truth, prediction = np.asarray(truth, np.float64), np.asarray(prediction, np.float64)
    if not len(truth) or truth.shape != prediction.shape or truth.ndim != 1:
        raise ValueError(f"references of shape {truth.shape} but predictions of shape {prediction.shape}")
    if not (np.isfinite(truth).all() and np.isfinite(prediction).all()):
        raise ValueError("a reference or prediction is not finite")
    t, p = truth - truth.mean(), prediction - truth.mean()
    terms = (np.ones_like(t), t, p, t * t, p * p, t * p)
    return np.stack([np.bincount(group, weights=term, minlength=groups) for term in terms], axis=1)


def _moments(sums):
    _, t, p, tt, pp, tp = np.moveaxis(sums / sums[..., :1], -1, 0)
    return t, p, np.maximum(tt - t * t, 0), np.maximum(pp - p * p, 0), tp - t * p


def _ratio(top, bottom):
    return np.divide(top, bottom, out=np.full(np.shape(bottom), np.nan), where=bottom > 0)


def _uar(counts):
    return np.mean(_ratio(np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1)), axis=-1)


def _war(counts):
    return np.trace(counts, axis1=-2, axis2=-1) / counts.sum((-2, -1))


def _macro_f1(counts):
    seen = counts.sum(-1) + counts.sum(-2)
    return np.mean(np.nan_to_num(_ratio(2 * np.diagonal(counts, axis1=-2, axis2=-1), seen)), axis=-1)


def _ccc(sums):
    t, p, var_t, var_p, cov = _moments(sums)
    spread = var_t + var_p + (t - p) ** 2
    return np.where(spread > _rounding(sums), _ratio(2 * cov, spread), np.nan)


def _pearson(sums):
    _, _, var_t, var_p, cov = _moments(sums)
    varied = np.minimum(var_t, var_p) > _rounding(sums)
    return np.where(varied, np.clip(_ratio(cov, np.sqrt(var_t * var_p)), -1, 1), np.nan)


def _rounding(sums):
    """The rounding error of the moments: a variance below it is that of a constant."""
    return 1e-14 * (sums[..., 3] + sums[..., 4]) / sums[..., 0]


def _mse(sums):
    return (sums[..., 3] - 2 * sums[..., 5] + sums[..., 4]) / sums[..., 0]


def _count_errors(unit):
    """The `sums` of an error rate over texts, by jiwer: errors and units of the reference, float64[groups, 2]."""

    def sums(truth, prediction, group, groups, classes):
        truth, prediction = [str(text) for text in truth], [str(text) for text in prediction]
        if len(truth) != len(prediction):
            raise ValueError(f"{len(truth)} references but {len(prediction)} predictions")
        for number, text in enumerate(truth):
            if not text.strip():
                raise ValueError(f"reference {number} is empty: an error rate needs a text to compare with")
        members = [[] for _ in range(groups)]
        for i, number in enumerate(group):
            members[number].append(i)
        return np.array([_errors(unit, [truth[i] for i in rows], [prediction[i] for i in rows]) for rows in members])

    return sums


def _errors(unit, truth, prediction):
    import jiwer  # 20 ms that most callers of this module need not wait for

    counts = (jiwer.process_words if unit == "word" else jiwer.process_characters)(truth, prediction)
    wrong = counts.substitutions + counts.deletions
    return [float(wrong + counts.insertions), float(wrong + counts.hits)]


def _error_rate(sums):
    return _ratio(sums[..., 0], sums[..., 1])


def _deaf_error_rate(unit):
    """What one answer to everything would get: the most frequent reference, or nothing at all (an error rate of 1)."""

    def chance(truth, classes):
        texts, counts = np.unique([str(text) for text in truth], return_counts=True)
        answer = str(texts[counts.argmax()])
        errors, length = _errors(unit, [str(text) for text in truth], [answer] * len(truth))
        return min(1.0, errors / length)

    return chance


def _majority(truth, classes):
    return float(np.unique(truth, return_counts=True)[1].max() / len(truth))


METRICS = {metric.name: metric for metric in (
    Metric("UAR", "unweighted average recall (UA, balanced accuracy) over the label list", _count_confusions, _uar,
           lambda truth, classes: 1 / len(classes), True),
    Metric("WAR", "weighted average recall (WA, accuracy)", _count_confusions, _war, _majority, True),
    Metric("macro_F1", "mean F1 over the label list", _count_confusions, _macro_f1, lambda truth, classes: None, True),
    Metric("CCC", "concordance correlation coefficient, population moments (ddof 0), over the whole test set",
           _sum_moments, _ccc, lambda truth, classes: 0.0, False),
    Metric("MSE", "mean squared error", _sum_moments, _mse, lambda truth, classes: float(np.var(truth)), False),
    Metric("Pearson", "Pearson correlation over the whole test set", _sum_moments, _pearson,
           lambda truth, classes: 0.0, False),
    Metric("WER", "word error rate: substitutions, deletions and insertions over the words of the reference, summed "
           "over utterances", _count_errors("word"), _error_rate, _deaf_error_rate("word"), False),
    Metric("CER", "character error rate: substitutions, deletions and insertions over the characters of the reference, "
           "spaces included, summed over utterances", _count_errors("character"), _error_rate,
           _deaf_error_rate("character"), False),
)}
