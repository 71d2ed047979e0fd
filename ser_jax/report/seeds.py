"""What a result row says of its seeds: every one is a training of the head by itself, the row gives their mean."""

from ser_jax.report.rows import number
from ser_jax.report.tables import format_metric, unit


def count(row):
    """Number of seeds of a row, 1 where it says nothing."""
    return len(row["seeds"]) if isinstance(row["seeds"], list) else 1


def values(row, metric=None):
    """Values of a metric (by default the row's own) with each seed, in the order of `seeds`; [] for one seed."""
    given = (row["secondary"] or {}).get(f"{metric or row['metric']}_seeds") if count(row) > 1 else None
    return [number(value) for value in given] if isinstance(given, list) and len(given) == count(row) else []


def spread(row):
    """'10 seeds 56.8 to 59.1, std 0.7' (ddof 1) for a row with several seeds, else ""."""
    metric, given = row["metric"], row["secondary"] or {}
    low, high, std = (number(given.get(f"{metric}_seed_{key}")) for key in ("min", "max", "std"))
    if count(row) < 2 or low is None or high is None:
        return ""
    std = "" if std is None else f", std {format_metric(metric, std)}"
    return f"{count(row)} seeds {format_metric(metric, low)} to {format_metric(metric, high)}{std}"


def mean_of(row):
    """'mean of 10 seeds' for a row with several, else ""."""
    return f"mean of {count(row)} seeds" if count(row) > 1 else ""


def table(row):
    """(titles, [(seed, texts)]) of a row with several seeds: its metric, and the difference of a paired comparison."""
    columns = {}
    if values(row):
        columns[row["metric"] + unit(row["metric"])] = dict(zip(row["seeds"], values(row)))
    differences = _differences(row)
    if differences:
        columns["difference" + unit(row["metric"])] = dict(zip(differences["names"], differences["values"]))
    lines = [(seed, [format_metric(row["metric"], column.get(seed)) for column in columns.values()])
             for seed in row["seeds"]] if columns else []  # fmt: skip
    return list(columns), lines


def versus(row):
    """How the difference of a paired comparison varies over the seeds, as sentences, or ""."""
    pair, metric, sentences = row["versus"], row["metric"], []
    given = _differences(row)
    if given:
        mean, low, high, std = (format_metric(metric, given.get(key)) for key in ("mean", "min", "max", "std"))
        better = sum(value > 0 for value in map(number, given["values"]) if value is not None)
        sentences.append(
            f"Seed by seed: difference {mean} on average, {low} to {high}, std {std}; above 0 with {better} of "
            f"{len(given['values'])} seeds."
        )
    for key, where in (("seeds_only_here", "here"), ("seeds_only_there", "there")):
        alone = pair.get(key) if isinstance(pair, dict) else None
        if isinstance(alone, list) and alone:
            sentences.append(f"Left out: seeds {', '.join(map(str, alone))}, only {where}.")
    return " ".join(sentences)


def _differences(row):
    """The `seeds` of a paired comparison with several of them, else {}."""
    given = row["versus"].get("seeds") if isinstance(row["versus"], dict) else None
    lists = [given.get(key) for key in ("names", "values")] if isinstance(given, dict) else []
    whole = len(lists) == 2 and all(isinstance(part, list) for part in lists) and len(lists[0]) == len(lists[1]) > 1
    return given if whole and not any(isinstance(name, dict | list) for name in lists[0]) else {}
