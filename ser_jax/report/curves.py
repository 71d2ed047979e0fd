"""What a training log says: which metric to follow, its values over steps, and the log in a few words."""

import statistics

from ser_jax.report.rows import lower_is_better, number
from ser_jax.report.tables import format_count, format_metric, unit

EVAL_METRICS = ("accuracy", "UAR", "uar", "CER", "cer", "WER", "wer", "PER", "per", "FER", "fer")
NOT_METRICS = (
    "step",
    "kind",
    "loss",
    "examples_per_second",
    "data_share",
    "grad_norm",
    "learning_rate",
    "seconds",
    "epoch",
)


def eval_metric(log):
    """The metric to follow on held-out data: accuracy or an error rate, else the first that is logged, else None."""
    logged = [key for record in log.records if record.get("kind") == "eval" for key in record]
    others = [
        key
        for record in log.records
        if record.get("kind") == "eval"
        for key, value in record.items()
        if key not in NOT_METRICS and number(value) is not None
    ]
    return next((key for key in EVAL_METRICS if key in logged), others[0] if others else None)


def losses(log):
    """Names of the losses that are logged: "loss", and what it is per symbol where sequences differ in length."""
    keys = dict.fromkeys(key for record in log.records for key in record if key.startswith("loss_per_"))
    return ["loss", *keys]


def series(log, kind, key):
    """(steps, values) of the finite values of `key` in the records of a kind."""
    records = [record for record in log.records if str(record.get("kind", "train")) == kind]
    pairs = [(number(record["step"]), number(record.get(key))) for record in records]
    pairs = [pair for pair in pairs if pair[1] is not None]
    return [step for step, _ in pairs], [value for _, value in pairs]


def training(log):
    """What a training log amounts to: [(label, text)], the text that stands in for the learning curves."""
    steps, losses = series(log, "train", "loss")
    _, speed = series(log, "train", "examples_per_second")
    pairs = []
    if log.records:
        pairs.append(("last step", format_count(log.records[-1]["step"])))
    if steps:
        pairs.append(("train loss", f"{losses[0]:.4g} → {losses[-1]:.4g}"))
    metric = eval_metric(log)
    if metric:
        at, values = series(log, "eval", metric)
        if values:
            best = min(values) if lower_is_better(metric) else max(values)
            pairs.append(
                (
                    f"best eval {metric}{unit(metric)}",
                    f"{format_metric(metric, best)} at step {format_count(at[values.index(best)])}",
                )
            )
    if speed:
        pairs.append(("examples / s, median", f"{statistics.median(speed):.4g}"))
    logged = sum(record.get("kind", "train") == "train" and "loss" in record for record in log.records)
    if logged > len(losses):
        pairs.append(("losses that are no finite number", f"{logged - len(losses)}, not drawn"))
    for name, (utterances, speakers) in log.corpora.items():
        amount = f"{format_count(utterances)} utterances, {format_count(speakers)} speakers"
        pairs.append(("pretrained on", f"{name}: {amount}"))
    return pairs
