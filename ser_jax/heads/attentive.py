"""The head `attentive_cnn`: the attentive convolutional net of Neumann and Vu (2019) on log-mel frames, alone or beside
other features (an autoencoder's representation), trained on the training side of every fold with every seed.

The features have one layer of frames; all their other layers are put beside the attention's output. Emotion is the
task; arousal and valence in three bins are auxiliary targets where the corpus rates them.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from ser_jax.errors import UsageError, UserError
from ser_jax.heads import FoldsOutcome
from ser_jax.heads.bins import BINS, bins
from ser_jax.heads.replicas import Replica, Schedule, train_replicas
from ser_jax.models.attentive_cnn import AttentiveCNN, AttentiveCNNConfig

RATINGS = ("arousal", "valence")


@dataclasses.dataclass(frozen=True)
class AttentiveOptions:
    """What `--option NAME=VALUE` sets.

    Attributes:
      epochs, batch_size, patience: see `heads.replicas.Schedule`.
      learning_rate: of Adam.
      dropout, filters, kernel, stride, pool: see `models.attentive_cnn.AttentiveCNNConfig`.
      alpha, beta: share of the arousal and the valence loss; emotion has the rest.
      replicas_per_program: see `heads.replicas.train_replicas`.
    """

    epochs: int = 100
    batch_size: int = 32
    learning_rate: float = 1e-3
    dropout: float = 0.8
    alpha: float = 0.2
    beta: float = 0.2
    patience: int = 0
    replicas_per_program: int = 0
    filters: int = 200
    kernel: int = 10
    stride: int = 3
    pool: int = 30

    def __post_init__(self):
        if not 0 < self.learning_rate < float("inf"):
            raise UsageError(f"learning_rate={self.learning_rate:g}: must be greater than 0")
        if not (self.alpha >= 0 and self.beta >= 0 and self.alpha + self.beta < 1):
            raise UsageError(f"alpha={self.alpha:g}, beta={self.beta:g}: at least 0, and less than 1 together")
        if self.replicas_per_program < 0:
            raise UsageError(f"replicas_per_program={self.replicas_per_program}: at least 1, or 0 for the default")
        _ = self.model, self.schedule  # they check their own fields

    @property
    def model(self):
        return AttentiveCNNConfig(self.filters, self.kernel, self.stride, self.pool, self.dropout)

    @property
    def schedule(self):
        return Schedule(self.epochs, self.batch_size, self.patience)


class AttentiveHead:
    """See the module; `options` is an `AttentiveOptions`."""

    name = "attentive_cnn"
    predicts = "labels"
    seeded = True
    needs_dev = True
    selection = "epoch by UAR of the dev part (tie: the first), trained on train only"
    Options = AttentiveOptions

    def __init__(self, options=None):
        self.options = options or AttentiveOptions()

    def predict_folds(self, features, target, protocol, seeds, jobs=1):
        """Trains a net for every fold and seed.

        Args:
          features: a `Features` whose rows all have a label.
          target: the text column of the labels.
          protocol: a `Protocol` whose folds all have a dev part.
          seeds: numbers, one training of each fold for each.
          jobs: processes.

        Returns:
          a `FoldsOutcome`; scores are probabilities, representations the attention's output and the vector beside it.

        Raises:
          UserError: not exactly one layer of frames, frames fewer than a pooling window, a fold without dev or with one
            class only, ratings that are learnt and not on a scale from 1 to 5.
        """
        config, table = self.options.model, features.table
        layer, others = _layers(features)
        frames, counts = features.frames(layer)
        if not config.windows(frames.shape[1]):
            raise UsageError(
                f"layer {layer}: {frames.shape[1]} frames are fewer than the {config.frames(1)} of a pooling window; "
                "export with a larger --chunk-seconds or set --option pool"
            )
        labels, emotion = np.unique(table[target].to_numpy(dtype=str), return_inverse=True)
        windows = config.windows(frames.shape[1])
        used = np.minimum(config.windows_with_sound(counts), windows).astype(np.int32)
        ids = table["id"].to_numpy(dtype=object)
        # Windows that no utterance reaches are not stored; the net knows that they are zero.
        stored = np.ascontiguousarray(frames[:, : config.frames(max(int(used.max()), 1))])
        data = {
            "frames": stored,
            "count": counts.astype(np.int32),
            "windows": used,
            "vector": np.concatenate([features.embedding[:, :0], *others.values()], axis=1),
            "emotion": emotion.reshape(-1).astype(np.int32),
        }
        for name, share in zip(RATINGS, (self.options.alpha, self.options.beta), strict=True):
            # A rating that is not learnt may be on any scale.
            data[name] = bins(table[name] if share else np.full(len(ids), np.nan), ids, name)

        folds = [_fold(fold, ids, emotion) for fold in protocol.folds]
        constants = _constants(frames, counts, list(others.values()), [train for train, _, _ in folds])
        net = AttentiveNet(
            config,
            frames.shape[2],
            windows,
            data["vector"].shape[1],
            len(labels),
            self.options.learning_rate,
            self.options.alpha,
            self.options.beta,
        )
        replicas = [Replica(seed, *fold, own) for seed in seeds for fold, own in zip(folds, constants)]
        trained = train_replicas(
            net,
            data,
            replicas,
            self.options.schedule,
            self.options.replicas_per_program,
            jobs,
            f"{self.name} {protocol.name}",
        )
        outcome, trained = FoldsOutcome(labels.tolist(), [], [], []), iter(trained)
        for _ in seeds:
            scores, chosen, representations = {}, {}, {}
            for fold, (_, _, test) in zip(protocol.folds, folds):
                replica = next(trained)
                scores[fold.name] = ids[test].tolist(), _probabilities(replica.outputs["logits"])
                representations[fold.name] = replica.outputs["representation"]
                chosen[fold.name] = {
                    "best_epoch": replica.best_epoch,
                    "dev_UAR": round(replica.best_score, 6),
                    "last_dev_UAR": round(replica.last_score, 6),
                    "epochs": replica.epochs,
                }
            outcome.scores.append(scores)
            outcome.chosen.append(chosen)
            outcome.representations.append(representations)
        return outcome


@dataclasses.dataclass(frozen=True)
class AttentiveNet:
    """The `heads.replicas.Net` of this head; constants are those of `_constants`."""

    config: AttentiveCNNConfig
    bands: int
    windows: int
    values: int
    classes: int
    learning_rate: float
    alpha: float
    beta: float

    def build(self, rngs):
        sizes = {"emotion": self.classes} | dict.fromkeys(RATINGS, len(BINS))
        return AttentiveCNN(self.config, self.bands, self.windows, self.values, sizes, rngs=rngs)

    def optimiser(self):
        return optax.adam(self.learning_rate)

    def init(self, key, constants):
        return nnx.to_pure_dict(nnx.state(self.build(nnx.Rngs(params=key)), nnx.Param))

    def loss(self, params, constants, batch, weight, key):
        model = nnx.merge(_graph(self), params)
        model.train()
        batch = batch | {"windows": jnp.where(weight > 0, batch["windows"], 0)}  # nothing to compute for padding
        logits = model(*_inputs(constants, batch), rngs=key)["logits"]
        shares = {"emotion": 1 - self.alpha - self.beta, "arousal": self.alpha, "valence": self.beta}
        each = 0.0
        for name, share in shares.items():
            known = batch[name] >= 0
            loss = optax.softmax_cross_entropy_with_integer_labels(logits[name], jnp.maximum(batch[name], 0))
            each += share * jnp.where(known, loss, 0)
        return (each * weight).sum() / jnp.maximum(weight.sum(), 1)

    def outputs(self, params, constants, batch):
        model = nnx.merge(_graph(self), params)
        model.eval()
        made = model(*_inputs(constants, batch))
        return {"logits": made["logits"]["emotion"], "representation": made["representation"]}

    def score(self, outputs, batch, weight):
        """UAR over the classes that the rows have."""
        member = jax.nn.one_hot(batch["emotion"], self.classes) * weight[:, None]
        hit = outputs["logits"].argmax(1) == batch["emotion"]
        counts = member.sum(0)
        recall = (member * hit[:, None]).sum(0) / jnp.maximum(counts, 1)
        return recall.sum() / jnp.maximum((counts > 0).sum(), 1)


@functools.lru_cache
def _graph(net):
    return nnx.graphdef(nnx.eval_shape(lambda: net.build(nnx.Rngs(0))))


def _inputs(constants, batch):
    frames = batch["frames"]
    valid = jnp.arange(frames.shape[1]) < batch["count"][:, None]
    normal = (frames - constants["frames_shift"]) * constants["frames_scale"]
    vector = (batch["vector"] - constants["vector_shift"]) * constants["vector_scale"]
    return jnp.where(valid[..., None], normal, 0), vector, batch["windows"]


def _layers(features):
    """(the layer of frames, {layer: float32[N, D] of the others})."""
    names = features.frame_layers
    if len(names) != 1:
        raise UserError(
            f"--head attentive_cnn needs one layer of frames, the features have {', '.join(names) or 'none'}; make "
            "some with `ser-jax export --frames logmel26` (and put other features beside them with `export --fuse`)"
        )
    others = {}
    for column in features.metadata["columns"]:
        if column["layer"] != names[0]:
            others[column["layer"]] = features.embedding[:, column["start"] : column["stop"]]
    return names[0], others


def _fold(fold, ids, emotion):
    """Row numbers of train, dev and test."""
    if not fold.dev:
        raise UserError(
            f"fold {fold.name!r}: --head attentive_cnn needs a dev part to choose the epoch; use a protocol with one"
        )
    train, dev, test = (np.flatnonzero(np.isin(ids, part)) for part in (fold.train, fold.dev, fold.test))
    if len(set(emotion[train])) < 2:
        raise UserError(
            f"fold {fold.name!r}: the training part has one class only; choose another --protocol or --classes"
        )
    return train, dev, test


def _constants(frames, counts, others, trains):
    """Normalisation of each fold by its training rows.

    Frames: per band, over the valid frames. Vector: a layer whose training values all lie within [-1, 1] is taken as it
    is (outputs of a tanh), the values of another are standardised.
    """
    valid = np.arange(frames.shape[1]) < counts[:, None]
    sums, squares = np.empty((2, len(frames), frames.shape[2]))
    for row, (values, real) in enumerate(zip(frames, valid)):
        known = values[real].astype(np.float64)
        sums[row], squares[row] = known.sum(0), np.square(known).sum(0)
    made = []
    for train in trains:
        total = max(valid[train].sum(), 1)
        mean = sums[train].sum(0) / total
        spread = np.sqrt(np.maximum(squares[train].sum(0) / total - np.square(mean), 0))
        shifts, scales = [np.zeros(0)], [np.zeros(0)]
        for values in others:
            own = values[train].astype(np.float64)
            bounded = np.abs(own).max() <= 1
            shifts.append(np.zeros(own.shape[1]) if bounded else own.mean(0))
            scales.append(np.ones(own.shape[1]) if bounded else _inverse(own.std(0)))
        constants = {
            "frames_shift": mean,
            "frames_scale": _inverse(spread),
            "vector_shift": np.concatenate(shifts),
            "vector_scale": np.concatenate(scales),
        }
        made.append({name: values.astype(np.float32) for name, values in constants.items()})
    return made


def _inverse(spread):
    return 1 / np.where(spread > 1e-6, spread, 1)


def _probabilities(logits):
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)
