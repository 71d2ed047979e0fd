"""Scores of single layers, read from result rows (`ser-jax probe --layers each`), as curves over the layers."""

import dataclasses
import json
import re

from ser_jax.report.layer_study import TARGETS
from ser_jax.report.rows import lower_is_better, name_of, number

BESIDE = ("CCC", "MSE")  # drawn for every regression row, from its secondary values where it is not its metric


@dataclasses.dataclass(frozen=True)
class Point:
    """One layer: value, its interval (or None), and the row it comes from."""

    layer: str
    value: float
    low: float | None
    high: float | None
    row: object


@dataclasses.dataclass(frozen=True)
class Scores:
    """Curves of one setting: all rows differ in layer and target only.

    Attributes:
      title: system, corpus, head and protocol.
      layers: from the input on.
      panels: [(metric, meaning of the bars, {target: [Point]})].
      rows: all result rows that are drawn.
    """

    title: str
    layers: list
    panels: list
    rows: list

    @property
    def chance(self):
        return any(number(row["chance"]) is not None for row in self.rows)

    @property
    def names(self):
        return [row.name for row in self.rows]

    @property
    def synthetic(self):
        return any(row.synthetic for row in self.rows)


def layer_of(row):
    """The layer of a row whose features are a single layer of an encoder, else None."""
    features = row["features"]
    layers = features.get("layers") if isinstance(features, dict) else None
    return str(layers[0]) if isinstance(layers, list) and len(layers) == 1 else None


def read_scores(rows, order=()):
    """[Scores]: one per setting of which two layers or more are there; of repeated rows the newest.

    Args:
      rows: result rows.
      order: names of layers from the input on, where known; others follow by name, numbers by size.
    """
    groups = {}
    for row in sorted(rows, key=lambda row: str(row["created"] or "")):
        if layer_of(row) is not None and number(row["value"]) is not None:
            groups.setdefault(_setting(row), {})[row["metric"], str(row["target"] or ""), layer_of(row)] = row
    found = []
    for group in groups.values():
        layers = sorted({layer for *_, layer in group}, key=lambda name: _place(name, order))
        if len(layers) < 2:
            continue
        drawn = sorted(group.values(), key=lambda row: row.number)
        parts = [drawn[0][key] for key in ("system", "corpus", "head", "protocol")]
        found.append(Scores(" · ".join(filter(None, map(name_of, parts))), layers, _panels(group, layers), drawn))
    return sorted(found, key=lambda scores: scores.rows[0].number)


def best(points, metric):
    """The point with the best value."""
    return (min if lower_is_better(metric) else max)(points, key=lambda point: point.value)


def _setting(row):
    features = row["features"]
    same = [row[key] for key in ("kind", "system", "corpus", "head", "protocol", "classes", "split", "seeds")]
    where = {key: features.get(key) for key in ("hash", "pooling", "where", "select", "selection")}
    return json.dumps([same, where, sorted(set(row.stamps))], sort_keys=True)


def _panels(group, layers):
    panels = {}
    for (metric, target, layer), row in group.items():
        low, high = (number(end) for end in row["ci"] or (None, None))
        panels.setdefault((metric, "95 % interval"), {}).setdefault(target, []).append(
            Point(layer, number(row["value"]), low, high, row)
        )
    own = {(metric, target) for metric, target, _ in group}
    for (_, target, layer), row in group.items():
        for metric in BESIDE:
            mean, spread = (number((row["secondary"] or {}).get(f"{metric}_fold_{key}")) for key in ("mean", "std"))
            if (metric, target) not in own and mean is not None and spread is not None:
                panels.setdefault((metric, "mean ± std of the folds"), {}).setdefault(target, []).append(
                    Point(layer, mean, mean - spread, mean + spread, row)
                )
    for targets in panels.values():
        for target, points in targets.items():
            one = {point.layer: point for point in points}  # two rows of one layer can differ in their metric
            targets[target] = [one[layer] for layer in layers if layer in one]
    return [(metric, bars, dict(sorted(targets.items(), key=_target))) for (metric, bars), targets in panels.items()]


def _target(item):
    return TARGETS.index(item[0]) if item[0] in TARGETS else len(TARGETS), item[0]


def _place(name, order):
    known = list(order).index(name) if name in order else len(order)
    return known, [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]
