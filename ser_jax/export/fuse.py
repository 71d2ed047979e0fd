"""Features files side by side: one row per utterance, the layers of each file behind those of the file before.

The rows of an utterance are matched by its id; of a file with several pieces of an utterance the first one is taken.
"""

import os
import sys
from pathlib import Path

import numpy as np

from ser_jax import results
from ser_jax.errors import UsageError, UserError
from ser_jax.export.features import Features, check_writable, read_features, write_features
from ser_jax.export.layers import layer_columns, side_by_side
from ser_jax.export.parts import check_out, check_rejects


def export(paths, out, max_rejects=None):
    """Writes the features files at `paths` as one; a single one is written as it is, in another format perhaps.

    Args:
      paths: features files, in the order of their layers.
      out: path of the features file.
      max_rejects: largest share of utterances that may be left out because a file lacks them; they are listed in
        `<out>.rejects.csv`. None = none.

    Raises:
      UsageError: unknown format of `out`; a file named twice.
      UserError: files of different corpora, with one row per step, or that lack utterances of others.
    """
    out, paths = check_out(out), [Path(path) for path in paths]
    if os.environ.get("SER_JAX_COORDINATOR"):
        raise UsageError("--fuse runs as one process only")
    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError("--fuse: a file is named twice; name each once")
    if len(paths) == 1:
        features = read_features(paths[0])
        write_features(features, out)
        print(f"{out}: {len(features.table)} rows of {features.metadata.get('layer') or 'unknown layers'} "
              f"({features.embedding.shape[1]} values), as in {paths[0]}")
        return
    several = [_first_pieces(read_features(path), path) for path in paths]
    _check_labels(several, paths)
    for features in several:
        check_writable(features, out)  # before anything is left out
    corpus = _corpus([features.metadata for features in several], paths)
    ids, left_out = _common(several, paths, out, max_rejects)
    features = _fused(several, _names(paths), ids, corpus)
    write_features(features, out)
    print(f"{out}: {len(ids)} rows of {', '.join(features.layers)} ({features.embedding.shape[1]} values)"
          + (f", {left_out} utterances not in all files (listed in {out}.rejects.csv)" if left_out else ""))


def _first_pieces(features, path):
    if "frame" in features.table:
        raise UserError(f"{path}: has one row per step (pooling none), which cannot stand beside others; export it "
                        "pooled")
    bad = ~np.isfinite(features.embedding).all(axis=1)
    if bad.any():
        raise UserError(f"{path}: the features of {features.table['id'][bad].iloc[0]!r} are not finite "
                        f"({int(bad.sum())} such rows); export it again")
    first = (features.table["chunk"] == 0).to_numpy()
    if first.all():
        return features
    print(f"{path}: {int((~first).sum())} rows of later pieces are left out; the first piece of each utterance is "
          "taken", file=sys.stderr)
    return features.rows(first)


def _check_labels(several, paths):
    """Files of one corpus tell the same of an utterance, or it would be decided silently which of them counts.

    (A file that does not tell its corpus has no say in labels.)
    """
    known = [(features, path) for features, path in zip(several, paths)
             if (features.metadata.get("corpus") or {}).get("fingerprint")]
    if len(known) < 2:
        return
    (lead, here), *others = known
    first = lead.table.set_index("id")
    for features, path in others:
        other = features.table.set_index("id")
        both = first.index.intersection(other.index)
        for column in ("emotion", "valence", "arousal", "dominance", "speaker_id"):
            a, b = first.loc[both, column], other.loc[both, column]
            unknown = a.isna() | b.isna() | (a == "") | (b == "")
            differ = ((a != b) & ~unknown).to_numpy()
            if differ.any():
                name = both[differ][0]
                raise UserError(f"{here} and {path}: {column} of {name!r} is {a[name]!r} and {b[name]!r} "
                                f"({int(differ.sum())} such utterances); export both from one prepared corpus")


def _corpus(metadata, paths):
    """Metadata of the corpus that all files are of; None if none of them tells."""
    known = {}
    for about, path in zip(metadata, paths):
        corpus = about.get("corpus") or {}
        if corpus.get("fingerprint"):
            known.setdefault(corpus["fingerprint"], (corpus, path))
        else:
            print(f"{path}: does not tell its corpus; its rows are matched by their ids alone", file=sys.stderr)
    if len(known) > 1:
        (one, here), (other, there), *_ = known.values()
        raise UserError(f"{here} and {there} are of different corpora: {one.get('name')} {one['fingerprint']}, "
                        f"{other.get('name')} {other['fingerprint']}")
    return next(iter(known.values()))[0] if known else None


def _common(several, paths, out, max_rejects):
    """Ids that are in all files, in the order of the first one; how many are not."""
    import pandas as pd

    tables = [pd.Index(features.table["id"]) for features in several]
    every = tables[0]
    for ids in tables[1:]:
        every = every.union(ids, sort=False)
    refused = {}
    for ids, path in zip(tables, paths):
        missing = ~every.isin(ids)
        if missing.any() and max_rejects is None:
            raise UserError(f"{path}: has no features of {every[missing][0]!r} ({int(missing.sum())} of {len(every)} "
                            "utterances are in other files only); --max-rejects SHARE leaves such utterances out")
        for row in np.flatnonzero(missing):
            refused.setdefault(int(row), []).append(str(path))
    index = pd.DataFrame({"id": every, "source": ""})
    check_rejects(out, index, [(row, f"not in {', '.join(files)}") for row, files in sorted(refused.items())],
                  "are not in all files", max_rejects or 0)
    return [name for row, name in enumerate(every) if row not in refused], len(refused)


def _names(paths):
    """What tells the files apart in the names of layers: the stem, with as many folders before it as it takes."""
    stems = [path.resolve().with_suffix("").parts for path in paths]
    for depth in range(1, max(map(len, stems)) + 1):
        names = ["_".join(parts[-depth:]) for parts in stems]
        if len(set(names)) == len(names):
            break
    else:
        names = [path.name for path in paths]  # they differ in their format alone
    return ["_".join(name.replace(",", " ").split()) for name in names]


def _fused(several, names, ids, corpus):
    """The files side by side, rows in the order of `ids`.

    In the metadata, `fused` are those of the files, and each layer tells by "from": [number of the file, layer there]
    where it comes from, whatever it is called here.
    """
    import pandas as pd

    blocks, columns, orders = [], [], []
    for number, features in enumerate(several):
        orders.append(pd.Index(features.table["id"]).get_indexer(ids))
        size = features.embedding.shape[1]
        given = features.metadata.get("columns") or layer_columns([features.metadata.get("layer") or names[number]], [size])
        columns += [{**column, "from": [number, column["layer"]]} for column in given]
        same = np.array_equal(orders[-1], np.arange(len(features.table)))
        blocks.append(features.embedding if same else features.embedding[orders[-1]])
    called = [column["layer"] for column in columns]
    columns = [{**column, "layer": f"{names[column['from'][0]]}.{name}" if called.count(name) > 1 else name}
               for column, name in zip(columns, called)]
    told = [column["layer"] for column in columns]
    if len(set(told)) < len(told):  # a file was called like the prefix of a fused layer
        raise UserError(f"--fuse: layers {', '.join(told)} are not told apart by the names of their files; rename one")
    parts = [features.metadata for features in several]
    # Labels are those of a file whose corpus is known, if there is one.
    lead = next((number for number, part in enumerate(parts) if (part.get("corpus") or {}).get("fingerprint")), 0)
    ordered = [features.table.iloc[order].reset_index(drop=True) for features, order in zip(several, orders)]
    table = ordered[lead].assign(
        seen_in_pretraining=np.any([each["seen_in_pretraining"] for each in ordered], axis=0),
        start=np.fmin.reduce([each["start"] for each in ordered]),
        end=np.fmax.reduce([each["end"] for each in ordered]))
    metadata = {
        "kind": "fused",
        "linguistic": any(bool(part.get("linguistic")) for part in parts),
        "checkpoint": None,
        "experiment": None,
        "corpus": corpus,
        "layer": ",".join(column["layer"] for column in columns),
        "columns": side_by_side(columns),
        "fused": parts,
        "pooling": _same(parts, "pooling"),
        "chunk_seconds": _same(parts, "chunk_seconds"),
        "pretrained_synthetic": any(bool(part.get("pretrained_synthetic")) for part in parts),
        "versions": results.versions(),
    }
    return Features(table, np.concatenate(blocks, axis=1), metadata)


def _same(parts, key):
    """What all of them say, else None."""
    found = [part.get(key) for part in parts]
    return found[0] if all(value == found[0] for value in found) else None
