"""Which features of which layers go with valence and arousal (Tits et al. 2018, Figures 1 and 3), and which by chance.

Pearson correlation of every cell (layer × feature) with a rating over the utterances of one speaker. The chance band
comes from the ratings of that speaker in random order: all cells of all orders are one matrix product. The given order
is one of the orders, so a share LEVEL of cells without any relation lies outside their band, neither more nor less
(Phipson and Smyth 2010); orders that tie with it count as reaching it. Utterances are taken as exchangeable; in a
dialogue neighbours resemble each other, and the band is then somewhat too narrow.
"""

import dataclasses
import re
from pathlib import Path

import numpy as np

from ser_jax.errors import UserError
from ser_jax.report.feature_file import per_utterance, synthetic

TARGETS = ("valence", "arousal")
ORDERS = 1000  # the given one and 999 random ones
LEVEL = 0.05
MIN_UTTERANCES = 3
UNDEFINED, INSIDE, OUTSIDE, BEYOND = range(4)  # states of a cell; BEYOND: outside the band of all cells together
_ROUNDING = 1e-5  # of a correlation in float32; what is closer counts as a tie
_CONSTANT = 1e-6  # a range that is smaller, relative to the values, is rounding of float32


@dataclasses.dataclass(frozen=True)
class Map:
    """Correlations of one speaker, or their mean over speakers, with one rating. L layers, W features of each.

    Attributes:
      r: float64[L, W], NaN where a side is constant or there are fewer than 3 utterances.
      state: uint8[L, W], UNDEFINED, INSIDE, OUTSIDE (the band of this cell) or BEYOND (the limit for all cells).
      band: float32[L, W], |r| that this cell exceeds in a share LEVEL of the orders.
      limit: |r| that the largest cell of the map exceeds in a share LEVEL of the orders; NaN without defined cells.
      utterances: how many there are (of all speakers for a mean).
      expected, expected_high: cells outside their band by chance, the mean over the orders, and the number that a share
        LEVEL of the orders exceeds. Cells depend on each other, so that number is far from the mean.
      p_value: share of the orders with at least as many cells outside as the given one.
    """

    r: np.ndarray
    state: np.ndarray
    band: np.ndarray
    limit: float
    utterances: int
    expected: float
    expected_high: int
    p_value: float

    @property
    def defined(self):
        return int((self.state != UNDEFINED).sum())

    @property
    def outside(self):
        return int((self.state >= OUTSIDE).sum())

    @property
    def beyond(self):
        return int((self.state == BEYOND).sum())


@dataclasses.dataclass(frozen=True)
class Curve:
    """Mean |r| of each layer, float[L], and the range of 95 % of the orders."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclasses.dataclass(frozen=True)
class Study:
    """The layer study of one features file.

    Attributes:
      file, metadata: the features file.
      layers: names, from the input on.
      width: features of each layer.
      targets: the ratings that there are, valence first.
      views: names of the maps: the mean over speakers, then each speaker.
      maps: {target: [Map of each view]}.
      within: {target: Curve}, mean over speakers of the mean |r| within a speaker.
      shared: {target: Curve}, mean |r| of the mean map: only what goes the same way in all speakers.
      utterances, seen: how many, and how many of them the encoder was pretrained on.
      synthetic: the speech, or what the encoder was pretrained on, was made by a synthesiser.
    """

    file: str
    metadata: dict
    layers: list
    width: int
    targets: list
    views: list
    maps: dict
    within: dict
    shared: dict
    utterances: int
    seen: int
    synthetic: bool

    @property
    def name(self):
        return Path(self.file).stem

    @property
    def most_heard(self):
        """Place in `views` of the speaker with the most utterances; the first of several."""
        counts = [max(self.maps[target][place].utterances for target in self.targets)
                  for place in range(1, len(self.views))]
        return 1 + int(np.argmax(counts))

    @property
    def parts(self):
        """Kinds of features within a layer, in equal shares, e.g. ["mean", "std"]."""
        parts = str(self.metadata.get("pooling") or "").split("+")
        return parts if self.width % len(parts) == 0 else [""]

    def feature(self, place):
        """Name of a feature within its layer: "17", or "std 17" where a layer was pooled in several ways."""
        each = self.width // len(self.parts)
        return f"{self.parts[place // each]} {place % each}" if len(self.parts) > 1 else str(place)


def study(path, orders=ORDERS, seed=0):
    """The layer study of a features file with several layers of equal width.

    Pieces of one utterance are averaged first. Utterances without a rating, and rows without a speaker, are left out.

    Raises:
      UserError: the file has no several layers of equal width, no ratings, no speakers, or no speaker with 3 rated
        utterances.
    """
    from ser_jax.export.features import read_features

    features = read_features(path)
    layers, width = _grid(features, path)
    table, x = _utterances(features, path)
    targets = [target for target in TARGETS if table[target].notna().any()]
    if not targets:
        raise UserError(f"{path}: no valence or arousal in it; the layer study needs ratings of the utterances")
    if all((table[target].groupby(table["speaker"]).count() < MIN_UTTERANCES).all() for target in targets):
        raise UserError(f"{path}: no speaker has {MIN_UTTERANCES} rated utterances; no correlation is defined")
    speakers = sorted(set(table["speaker"]), key=natural)
    maps, within, shared = {}, {}, {}
    for number, target in enumerate(targets):
        rated = table[target].notna().to_numpy()
        maps[target], total = [], _Sum()
        spread = _Sum()
        for place, speaker in enumerate(speakers):
            rows = rated & (table["speaker"] == speaker).to_numpy()
            y = table[target].to_numpy(np.float64)[rows]
            # Seeded by place, so that one speaker's maps do not depend on how long another spoke.
            pool = permuted_correlations(x[rows], y, orders, np.random.default_rng([seed, number, place]))
            maps[target].append(_against_chance(correlations(x[rows], y), pool, len(layers), int(rows.sum())))
            total.add(pool)
            spread.add(_layer_means(pool, len(layers)))
        mean = total.mean()
        r = _mean_of_defined(np.stack([each.r.reshape(-1) for each in maps[target]]))
        maps[target].insert(0, _against_chance(r, mean, len(layers), int(rated.sum())))
        within[target], shared[target] = _curve(spread.mean()), _curve(_layer_means(mean, len(layers)))
    return Study(
        str(path), features.metadata, layers, width, targets, ["mean over speakers", *speakers],
        maps, within, shared, len(table), int(table["seen"].sum()),
        synthetic(features.metadata),
    )  # fmt: skip


def correlations(x, y):
    """Pearson correlation of each column of x [N, D] with y [N]: float64[D].

    NaN where it is not defined: a constant or not finite column, a constant y, fewer than 3 rows.
    """
    if len(y) < MIN_UTTERANCES:
        return np.full(x.shape[1], np.nan)
    return np.clip(_standardised(y[:, None])[:, 0] @ _standardised(x), -1, 1)


def permuted_correlations(x, y, orders, rng):
    """`correlations` with y in `orders` orders, the first the given one: float32[D, orders]."""
    if len(y) < MIN_UTTERANCES:
        return np.full((x.shape[1], orders), np.nan, np.float32)
    order = rng.permuted(np.broadcast_to(np.arange(len(y)), (orders, len(y))), axis=1)
    order[0] = np.arange(len(y))
    x, y = _standardised(x).astype(np.float32), _standardised(y[:, None])[:, 0].astype(np.float32)
    undefined = np.isnan(x).any(0)
    pool = np.where(undefined, 0, x).T @ y[order].T
    pool[undefined] = np.nan
    return pool


def cells(study):
    """All cells as a table: target, layer, feature, then r and state of the mean map, its band, r of each speaker."""
    import pandas as pd

    names = ("undefined", "inside", "outside", "beyond")
    tables = []
    for target in study.targets:
        mean, *others = study.maps[target]
        columns = {
            "target": target,
            "layer": np.repeat(study.layers, study.width),
            "feature": np.tile([study.feature(place) for place in range(study.width)], len(study.layers)),
            "mean": mean.r.reshape(-1),
            "mean_band": mean.band.reshape(-1),
            "mean_state": [names[state] for state in mean.state.reshape(-1)],
        }
        speakers = {f"r {name}": each.r.reshape(-1) for name, each in zip(study.views[1:], others)}
        tables.append(pd.DataFrame(columns | speakers))
    return pd.concat(tables, ignore_index=True)


class _Sum:
    """Running mean over speakers of arrays [..., orders] that are NaN as a whole where a speaker has no value."""

    def __init__(self):
        self.total = self.count = 0

    def add(self, values):
        defined = ~np.isnan(values[..., :1])
        self.total = self.total + np.where(defined, values, 0)
        self.count = self.count + defined

    def mean(self):
        return np.where(self.count > 0, self.total / np.maximum(self.count, 1), np.nan).astype(np.float32)


def _mean_of_defined(values):
    count = (~np.isnan(values)).sum(0)
    return np.where(count > 0, np.nansum(values, 0) / np.maximum(count, 1), np.nan)


def _standardised(values):
    """Columns about their mean, of length 1; NaN where constant up to rounding, or not finite."""
    values = np.asarray(values, np.float64)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        spread = values.max(0) - values.min(0)
        varied = np.isfinite(spread) & (spread > _CONSTANT * np.abs(values).max(0))
        centred = (values - values.mean(0)) / np.where(varied, spread, 1)  # squares of tiny numbers would vanish
        return np.where(varied, centred / np.sqrt((centred**2).sum(0)), np.nan)


def _against_chance(r, pool, layers, utterances):
    """The Map of float64[D] `r`, whose orders are float32[D, orders] `pool`, the given one first."""
    defined = ~np.isnan(pool[:, 0])
    state, band = np.full(len(r), UNDEFINED, np.uint8), np.full(len(r), np.nan, np.float32)
    limit, expected, high, p_value = np.nan, 0.0, 0, np.nan
    if defined.any():
        size = np.abs(pool[defined])
        band[defined] = _exceeded(size)
        largest = size.max(0)
        limit = float(_exceeded(largest))
        outside = size > band[defined][:, None] + _ROUNDING
        state[defined] = np.where(outside[:, 0], OUTSIDE, INSIDE)
        state[defined] = np.where(outside[:, 0] & (size[:, 0] > limit + _ROUNDING), BEYOND, state[defined])
        counts = outside.sum(0)
        expected, high, p_value = float(counts.mean()), int(_exceeded(counts)), float((counts >= counts[0]).mean())
    shape = (layers, -1)
    return Map(
        r.reshape(shape), state.reshape(shape), band.reshape(shape), limit, utterances, expected, high, p_value
    )  # fmt: skip


def _exceeded(values):
    """The value along the last axis that a share LEVEL of the values exceeds."""
    place = values.shape[-1] - int(LEVEL * values.shape[-1]) - 1
    return np.partition(values, place, axis=-1)[..., place]


def _layer_means(pool, layers):
    """Mean |r| of the defined cells of each layer, [D, orders] -> [L, orders]; NaN for a layer without one."""
    return _mean_of_defined(np.abs(pool).reshape(layers, -1, pool.shape[-1]).swapaxes(0, 1))


def _curve(pool):
    low, high = np.percentile(pool, [2.5, 97.5], axis=1)
    return Curve(pool[:, 0], low, high)


def _grid(features, path):
    columns = features.metadata.get("columns") or []
    widths = {column["stop"] - column["start"] for column in columns}
    if len(columns) < 2:
        found = f"only the layer {columns[0]['layer']}" if columns else "no named layers"
        raise UserError(f"{path}: {found} in it; a layer study compares several, exported with e.g. --layer 'gcu_*'")
    if len(widths) > 1:
        raise UserError(
            f"{path}: layers of {min(widths)} to {max(widths)} features; export layers of one width for the layer study"
        )
    return [column["layer"] for column in columns], widths.pop()


def _utterances(features, path):
    """(table of speaker, ratings and `seen`, float32[N, D]), one row per utterance, the mean of its pieces."""
    spoken = (features.table["speaker_id"] != "").to_numpy()
    if not spoken.any():
        raise UserError(f"{path}: no speaker_id in it; the layer study is made speaker by speaker")
    return per_utterance(features.rows(spoken), dict.fromkeys(TARGETS, "mean"))


def natural(name):
    """Sorts "s2" before "s10"."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]
