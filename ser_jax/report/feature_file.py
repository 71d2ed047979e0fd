"""What the figures of a features file need of it: one row per utterance, and what its metadata says of its origin."""

import numpy as np

from ser_jax.report.tables import format_count


def per_utterance(features, columns):
    """One row per utterance, the mean of its pieces.

    Args:
      features: `export.features.Features`.
      columns: {column of the table: how that of an utterance comes from its pieces, as pandas names it, e.g. "first"}.

    Returns:
      (table of `unit` (id of the utterance), `speaker` (with the corpus where there are several: speakers are unique
      only within one), `columns` and `seen` (in pretraining), float32[N, D]), in order of appearance.
    """
    import pandas as pd

    table, x = features.table, features.embedding
    several = table["corpus"].nunique() > 1
    speaker = table["speaker_id"]
    if several:
        speaker = (table["corpus"] + " " + speaker).where(speaker != "", "")
    grouped = pd.DataFrame(
        {"speaker": speaker, "unit": features.units, "seen": table["seen_in_pretraining"],
         **{column: table[column] for column in columns}}
    ).groupby(["speaker", "unit"], sort=False)  # fmt: skip
    units = grouped.agg({**columns, "seen": "max"}).reset_index()
    if len(units) < len(table):
        group = grouped.ngroup().to_numpy()
        order = np.argsort(group, kind="stable")
        starts = np.flatnonzero(np.diff(group[order], prepend=-1))
        counts = np.diff(starts, append=len(order))[:, None]
        x = (np.add.reduceat(x[order], starts, axis=0, dtype=np.float64) / counts).astype(np.float32)
    return units, x


def origins(metadata):
    """The metadata of every file that a features file was made of: its own, and those of the parts of a fused one."""
    parts = metadata.get("fused")
    found = [metadata]
    for part in parts if isinstance(parts, list) else []:
        if isinstance(part, dict):
            found += origins(part)
    return found


def corpora(metadata):
    """The corpora of a features file as [{"name", "fingerprint", "synthetic", …}], each once."""
    found = {}
    for each in origins(metadata):
        given = each.get("corpus")
        for part in given if isinstance(given, list) else [given]:
            if isinstance(part, dict):
                found.setdefault((part.get("name"), part.get("fingerprint")), part)
    return list(found.values())


def synthetic(metadata):
    """Whether the speech, or what an encoder was pretrained on, was made by a synthesiser."""
    return any(part.get("synthetic") for part in corpora(metadata)) or any(
        each.get("pretrained_synthetic") for each in origins(metadata)
    )


def facts(file, metadata):
    """[(label, text)] of where the embeddings of a features file come from."""
    checkpoints = {}
    for each in origins(metadata):
        given = each.get("checkpoint")
        if isinstance(given, dict) and given.get("hash"):
            checkpoints[given["hash"]] = given.get("step")
    pairs = [
        ("features file", f"{file}, hash {metadata.get('features_hash')}"),
        (
            "corpus",
            ", ".join(f"{part.get('name')} {part.get('fingerprint') or ''}".strip() for part in corpora(metadata)),
        ),
        ("checkpoint", ", ".join(f"{name} (step {format_count(step)})" for name, step in checkpoints.items())),
        ("pooling over time", str(metadata.get("pooling") or "")),
    ]
    return [(label, text) for label, text in pairs if text]
