"""A head that depends on a seed, trained on all folds with several seeds: predictions, and what its last layer sees."""

import numpy as np
import pandas as pd

from ser_jax.errors import UsageError, UserError
from ser_jax.export.features import Features, layer_columns
from ser_jax.heads import is_seeded
from ser_jax.heads.fold_loop import decide, tested


def check_seeds(head, seeds):
    """Raises UsageError unless `head` can be trained with so many seeds."""
    if seeds < 1:
        raise UsageError(f"--seeds {seeds}: must be at least 1")
    if seeds > 1 and not is_seeded(head):
        raise UsageError(f"--seeds {seeds}: head {head.name} does not depend on a seed; leave it out")


def run_seeds(parts, data, target, protocol, head, seeds, rule, jobs):
    """Predictions of all seeds and folds in one table with a column `seed`, and what the head returned.

    Args:
      parts: `Features` of the labelled rows.
      data: their `fold_loop.Data`.
      target: column of labels or numbers.
      protocol: a `Protocol`.
      head: a `heads.SeededHead`.
      seeds: whole numbers.
      rule: of heads.vote.VOTES, for labels.
      jobs: processes of the head.
    """
    lacking = [fold.name for fold in protocol.folds if not fold.dev]
    if head.needs_dev and lacking:
        raise UserError(
            f"fold {lacking[0]!r}: --head {head.name} needs a dev part; add one to the protocol or use --dev utterances"
        )
    outcome = head.predict_folds(parts, target, protocol, seeds, jobs)
    unit_of, tables = dict(zip(data.ids, data.units)), []
    for seed, scores in zip(seeds, outcome.scores, strict=True):
        for fold in protocol.folds:
            rows, (ids, values) = np.isin(data.ids, fold.test), scores[fold.name]
            if sorted(ids) != sorted(data.ids[rows]) or len(values) != len(ids):
                raise ValueError(f"head {head.name} did not score the tested rows of fold {fold.name!r}, each once")
            names, prediction = decide(head.predicts, values, [unit_of[name] for name in ids], outcome.labels, rule)
            table = tested(data, rows, fold.name, head.predicts, names, prediction)
            table.insert(table.columns.get_loc("fold") + 1, "seed", seed)
            tables.append(table)
    return pd.concat(tables, ignore_index=True), outcome


def representations(parts, target, protocol, head, outcome, seed):
    """What the head's last layer sees of every tested utterance, as `Features`; of the first seed.

    Pieces of an utterance are averaged; of an utterance that several folds test the first one counts. Every fold has a
    net of its own, which the column `fold` tells; those nets were trained on labels of the other folds' utterances, which
    the metadata say by `fitted`, so that a probe on them is stamped.
    """
    table, metadata, kept = parts.table.drop_duplicates("id").set_index("id", drop=False), parts.metadata, {}
    for fold in protocol.folds:
        ids, values = outcome.scores[0][fold.name][0], outcome.representations[0][fold.name]
        names, member = np.unique(np.asarray(ids, dtype=object), return_inverse=True)
        means = np.zeros((len(names), values.shape[1]))
        np.add.at(means, member.reshape(-1), values)
        means /= np.bincount(member.reshape(-1))[:, None]
        for name, value in zip(names, means):
            kept.setdefault(name, (fold.name, value))
    width = next(iter(kept.values()))[1].shape[0]
    facts = {
        "kind": head.name,
        "layer": "representation",
        "columns": layer_columns(["representation"], [width]),
        "pooling": None,
        "fitted": {
            "target": target,
            "seed": seed,
            "protocol": {"name": protocol.name, "hash": protocol.hash},
            "features_hash": metadata.get("features_hash"),
            "layers": parts.layers,
        },
    }
    keep = ("linguistic", "checkpoint", "experiment", "corpus", "pretrained_synthetic", "versions")
    rows = table.loc[list(kept)].assign(fold=[fold for fold, _ in kept.values()], chunk=0).reset_index(drop=True)
    return Features(
        rows, np.stack([value for _, value in kept.values()]), {**{key: metadata.get(key) for key in keep}, **facts}
    )
