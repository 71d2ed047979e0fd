"""t-SNE maps (van der Maaten and Hinton 2008) of the embeddings of a features file, one point per utterance.

Made by scikit-learn. The start is the projection on the two first principal components, not chance, so equal files give
equal maps. Distances between far groups and the sizes of groups mean nothing in such a map.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np

from ser_jax.errors import UsageError, UserError
from ser_jax.report import feature_file
from ser_jax.report.tables import format_count

PERPLEXITY = 30.0  # of scikit-learn and of the paper that introduced t-SNE: 5 to 50
FEWEST, MOST = 10, 10_000  # utterances; below, a map says nothing; above, it takes long and the dots hide each other
PATIENCE = 1_000  # utterances; of more it is said how long the map may take
SEED = 0
COLUMNS = ("emotion", "arousal", "valence", "gender", "speaker")  # by which the maps are coloured, in this order
NEUTRAL = "neutral"


@dataclasses.dataclass(frozen=True)
class Projection:
    """The map of one features file.

    Attributes:
      file, metadata: the features file; the layers are those in the map.
      table: one row per utterance: unit (its id), speaker, gender, emotion, arousal, valence, seen (in pretraining),
        and x, y, its place in the map.
      whole: utterances in the file; more than in `table` where a part was drawn.
      perplexity, divergence: of the map; `divergence` is what t-SNE minimises.
      scaled: whether each value was standardised.
      nets: heads that the vectors come from, one per fold where the file tells; 0 where it does not.
    """

    file: str
    metadata: dict
    table: "pandas.DataFrame"  # noqa: F821  (pandas is imported where it is used)
    whole: int
    perplexity: float
    divergence: float
    scaled: bool
    nets: int

    @property
    def name(self):
        return Path(self.file).stem

    @property
    def layer(self):
        return str(self.metadata.get("layer") or self.metadata.get("kind") or "embedding")

    @property
    def stamps(self):
        stamps = ["TRANSDUCTIVE"] if self.table["seen"].any() else []
        return stamps + (["SYNTHETIC"] if feature_file.synthetic(self.metadata) else [])

    @property
    def columns(self):
        """Those of COLUMNS that the file knows anything of."""
        return [name for name in COLUMNS if self.known(name).any()]

    def known(self, column):
        """bool[N]: the utterances with a value of a column."""
        values = self.table[column]
        return (values.notna() if values.dtype.kind == "f" else values != "").to_numpy()

    @property
    def views(self):
        """[(title, bool[N])] of the utterances to show: all, and where there are some, those that are not neutral."""
        every = np.ones(len(self.table), bool)
        others = ((self.table["emotion"] != NEUTRAL) & self.known("emotion")).to_numpy()
        neutral = (self.table["emotion"] == NEUTRAL).any()
        return [("all", every), *([("without neutral", others)] if neutral and others.any() else [])]


def project(path, layers=()):
    """The map of a features file.

    Pieces of one utterance are averaged first. Values that all lie in [−1, 1] (those of tanh and shares) are taken as
    they are, others are standardised. Runs on one core: with more, sums are made in another order and the map is
    another.

    Args:
      layers: which layers of the file; by default all, side by side.

    Raises:
      UserError: a layer of frames or not in the file, fewer than FEWEST utterances, values that are not finite, that
        are all equal, or one only.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    from ser_jax.export.features import read_features

    features = _layers(read_features(path), layers, path)
    wanted = {"emotion": "first", "gender": "first", "arousal": "mean", "valence": "mean"}
    folds = features.table["fold"].nunique() if "fold" in features.table else 0
    table, x = feature_file.per_utterance(features, wanted)
    whole = len(table)
    if whole < FEWEST:
        raise UserError(f"{path}: {whole} utterances; a t-SNE map needs at least {FEWEST}")
    if not np.isfinite(x).all():
        row = int(np.argmin(np.isfinite(x).all(1)))
        raise UserError(
            f"{path}: the embedding of {table['unit'].iloc[row]!r} is not finite; export the features again"
        )
    if whole > MOST:
        chosen = np.sort(np.random.default_rng(SEED).permutation(whole)[:MOST])
        table, x = table.iloc[chosen].reset_index(drop=True), x[chosen]
    spread = x.std(0)
    if x.shape[1] < 2 or not spread.any():
        what = "one value only" if x.shape[1] < 2 else "equal vectors"
        raise UserError(f"{path}: {what} for each utterance; a t-SNE map needs vectors that differ")
    scaled = bool(np.abs(x).max() > 1)
    if scaled:
        x = (x[:, spread > 0] - x.mean(0)[spread > 0]) / spread[spread > 0]
    if len(x) > PATIENCE:
        print(
            f"{path}: t-SNE of {len(x)} utterances, about {len(x) / 90:.0f} s on one core", file=sys.stderr, flush=True
        )
    perplexity = min(PERPLEXITY, (len(x) - 1) / 3)
    with threadpool_limits(1):
        model = TSNE(perplexity=perplexity, init="pca" if x.shape[1] > 1 else "random", random_state=SEED)
        place = model.fit_transform(np.asarray(x, np.float32))
    table[["x", "y"]] = place.astype(np.float64)
    return Projection(
        str(path), features.metadata, table, whole, perplexity, float(model.kl_divergence_), scaled, folds
    )


def _layers(features, layers, path):
    """The features of the layers to draw."""
    columns = features.metadata.get("columns") or []
    framed = [column["layer"] for column in columns if column.get("frames")]
    if layers:
        features = features.select_layers(list(layers))
    drawn = [name for name in framed if name in features.layers]
    if drawn:
        others = [name for name in features.layers if name not in framed] or [
            column["layer"] for column in columns if column["layer"] not in framed
        ]
        do = (
            f"name others with --tsne-layers, e.g. {','.join(others)}" if others else "export pooled embeddings instead"
        )
        raise UserError(f"{path}: {drawn[0]} holds frames, not one vector per utterance; {do}")
    return features


def caption(each):
    """What a map shows and how it was made, as sentences."""
    table, metadata = each.table, each.metadata
    names = [str(part.get("name")) for part in feature_file.corpora(metadata)]
    of = f" of {' + '.join(names)}" if names else ""
    some = f" ({format_count(len(table))} drawn at random, seed {SEED}, of {format_count(each.whole)})"
    sentences = [f"t-SNE of {each.layer}: {format_count(len(table))} utterances{of}"
                 f"{some if each.whole > len(table) else ''}, one dot each."]  # fmt: skip
    sentences.append(
        f"scikit-learn, perplexity {each.perplexity:.3g}, start by PCA, seed {SEED}, KL divergence "
        f"{each.divergence:.3g}; "
        + ("each value standardised over these utterances." if each.scaled
           else "values as they are (all within [−1, 1]), not standardised.")
    )  # fmt: skip
    if len(each.views) > 1:
        sentences.append(
            "One map: the second row leaves neutral (and unlabelled) utterances out of the picture, not out of the "
            "computation."
        )
    elif each.known("emotion").any():
        has = "every labelled utterance is" if (table["emotion"] == NEUTRAL).any() else "no utterance is"
        sentences.append(f"No second row without neutral: {has} neutral.")
    absent = [name for name in COLUMNS if name not in each.columns]
    if absent:
        sentences.append(f"Not in the file, so left out: {', '.join(absent)}.")
    fitted = metadata.get("fitted")
    if isinstance(fitted, dict):
        sentences.append(
            f"The nets were trained on labels of {fitted.get('target')}, those of other folds' utterances, with seed "
            f"{fitted.get('seed')}."
        )
    if each.nets > 1:
        sentences.append(f"The vectors come from {each.nets} nets, one per fold: groups may be folds.")
    if "TRANSDUCTIVE" in each.stamps:
        seen = format_count(int(table["seen"].sum()))
        sentences.append(f"TRANSDUCTIVE: {seen} of the utterances were in the pretraining data.")
    if "SYNTHETIC" in each.stamps:
        sentences.append("SYNTHETIC: synthesised speech, in this corpus or in pretraining; it says nothing about human "
                         "emotion.")  # fmt: skip
    return " ".join(sentences)


def check_layers(text):
    """--tsne-layers as a list of names."""
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    if text is not None and not names:
        raise UsageError(f"--tsne-layers {text}: give names of layers, with commas between")
    return names


def as_csv(each):
    """The map as CSV text: the utterances with their labels and places."""
    order = ["unit", "speaker", "gender", "emotion", "arousal", "valence", "seen", "x", "y"]
    return (
        each.table[order].rename(columns={"unit": "id"}).to_csv(index=False, float_format="%.6g", lineterminator="\n")
    )
