"""Two corpora in one table: heads are trained on the first and tested on the second (protocol "cross")."""

import numpy as np

from ser_jax.errors import UserError
from ser_jax.export.features import Features, extractor_hash
from ser_jax.protocols.folds import CROSS, OF_CROSS


def join(train, test):
    """The rows of two features files of one extractor, with a column CROSS that holds "train" or "test".

    Equal ids on both sides are told apart by a prefix, the name of the corpus (or train and test if that is one, too).

    Args:
      train, test: `Features`.

    Raises:
      UserError: they were made by different extractors.
    """
    import pandas as pd

    both, facts = (train, test), (train.metadata, test.metadata)
    if len({extractor_hash(part.metadata, part.embedding.shape[1]) for part in both}) > 1:
        told = [_told(part) for part in both]
        differ = [f"{key} {a} and {b}" for (key, a), b in zip(told[0].items(), told[1].values()) if a != b]
        raise UserError(
            f"--test-features: made by another extractor than --features ({'; '.join(differ) or 'front end or options'}); "
            "export both corpora with the same checkpoint, layers and pooling"
        )
    corpora = [dict(part.get("corpus") or {}) for part in facts]
    tables = [part.table.assign(**{CROSS: name}) for part, name in zip(both, OF_CROSS)]
    if set(tables[0]["id"]) & set(tables[1]["id"]):
        names = [corpus.get("name") for corpus in corpora]
        for table, name in zip(tables, names if all(names) and len(set(names)) > 1 else OF_CROSS):
            table["id"] = f"{name}/" + table["id"]
            table["chunk_of"] = table["chunk_of"].where(table["chunk_of"] == "", f"{name}/" + table["chunk_of"])
    about = [{key: corpus.get(key) for key in ("name", "fingerprint")} for corpus in corpora]
    metadata = {
        **train.metadata,
        "corpus": {
            "name": " > ".join(str(corpus["name"] or "unknown") for corpus in about),
            "fingerprint": about[1]["fingerprint"],
            "trained_on": about[0],
            "synthetic": any(bool(corpus.get("synthetic")) for corpus in corpora),
        },
        "pretrained_synthetic": any(bool(part.get("pretrained_synthetic")) for part in facts),
        "test_features_hash": test.metadata.get("features_hash"),
    }
    table = pd.concat(tables, ignore_index=True)
    return Features(table, np.concatenate([part.embedding for part in both]), metadata)


def shared_classes(features, target):
    """Features of the rows whose class is in both corpora, and notes on the others.

    Raises:
      UserError: they share fewer than two.
    """
    labels, side = features.table[target], features.table[CROSS]
    own = [set(labels[side == name]) for name in OF_CROSS]
    both = own[0] & own[1]
    if len(both) < 2:
        there = "; ".join(f"{name}: {', '.join(sorted(found)) or 'none'}" for name, found in zip(OF_CROSS, own))
        raise UserError(
            f"--test-features: the corpora share {len(both)} class(es) of {target}, a head needs two ({there}); "
            "merge some with --classes a+b"
        )
    notes = []
    for name, found in zip(OF_CROSS, own):
        for label in sorted(found - both):
            count = features.table["id"][(labels == label) & (side == name)].nunique()
            notes.append(f"class {label!r} is in the {name} corpus only: {count} utterances left out")
    return (features.rows(labels.isin(both)) if notes else features), notes


def _told(features):
    metadata = features.metadata
    return {
        "kind": metadata.get("kind"),
        "layers": ",".join(features.layers) or metadata.get("layer"),
        "pooling": metadata.get("pooling"),
        "checkpoint": (metadata.get("checkpoint") or {}).get("hash"),
        "dimension": features.embedding.shape[1],
    }
