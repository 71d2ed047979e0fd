"""The rows of a features file that a probe can use: those with a label or number, and those that its protocol names."""

import dataclasses

import numpy as np

from ser_jax.errors import UsageError, UserError, suggestion

_NO_LABELS = ("id", "text", "audio_sha256", "chunk_of")
_NO_NUMBERS = ("chunk", "frame", "start", "end")


def where(table, condition):
    """bool[N]: the rows of a features table that a condition "COLUMN=VALUE[,VALUE]" (or "COLUMN!=…") keeps.

    Raises:
      UserError: no such column, or no row is left.
    """
    column, equal, values = condition.partition("=")
    negated = column.endswith("!")
    column = column.rstrip("!").strip()
    if not equal or column not in table:
        raise UsageError(
            f"--where {condition}: expected COLUMN=VALUE with a column of the table{suggestion(column, table.columns)}"
        )
    found = table[column].astype(str).isin([value.strip() for value in values.split(",")])
    keep = (~found if negated else found).to_numpy()
    if not keep.any():
        some = ", ".join(sorted(set(table[column].astype(str)))[:8])
        raise UserError(f"--where {condition}: no row is left; {column} has the values {some}")
    return keep


def with_labels(features, target, classes=None):
    """Features of the rows that have a wanted label, and notes on the others.

    Args:
      features: a `Features`.
      target: text column of its table.
      classes: labels to keep, in any order, or None; "a+b" merges b into a.
    """
    table, notes = features.table, []
    _check_column(table, target, "text", _text_columns(table))
    if table[target].dtype.kind == "f":
        raise UsageError(
            f"--target {target}: holds numbers, and this head predicts labels; use --head ridge or ols, or other labels"
        )
    labels = table[target].astype("str").fillna("")
    wanted = labels != ""
    if not wanted.all():
        notes.append(f"{_count(table[~wanted])} without {target} left out")
    if not wanted.any():
        raise UserError(f"--target {target}: no row has a label (rows: {len(table)}); export labels or relax --where")
    if classes is not None:
        merge = {part.strip(): item.split("+")[0].strip() for item in classes for part in item.split("+")}
        unknown = sorted(set(merge) - set(labels[wanted]))
        if unknown:
            known = sorted(set(labels[wanted]))
            raise UsageError(
                f"--classes {unknown[0]}: no row of this {target}{suggestion(unknown[0], known)}; "
                f"there are: {', '.join(known)}"
            )
        other = wanted & ~labels.isin(list(merge))
        if other.any():
            notes.append(f"{_count(table[other])} of other classes left out ({', '.join(sorted(set(labels[other])))})")
        merged = [f"{label} into {into}" for label, into in merge.items() if label != into]
        if merged:
            notes.append(f"classes merged: {', '.join(merged)}")
        wanted, labels = wanted & ~other, labels.replace(merge)
    kept = _keep(features, target, wanted.to_numpy(), labels)
    found = sorted(set(kept.table[target]))
    if len(found) < 2:
        raise UserError(f"--target {target}: only one class, {found[0]!r}; a head needs two")
    return kept, notes


def with_numbers(features, target):
    """Features of the rows that have a number (as float64), and notes on the others.

    Args:
      features: a `Features`.
      target: column of numbers of its table.
    """
    table = features.table
    known = [name for name in table if table[name].dtype.kind in "iuf" and name not in _NO_NUMBERS]
    _check_column(table, target, "number", known)
    if target not in known:
        raise UsageError(
            f"--target {target}: holds {'text' if target in _text_columns(table) else 'no ratings'}, and this head "
            f"predicts numbers; number columns: {', '.join(known)}"
        )
    numbers = table[target].astype(np.float64)
    wanted = np.isfinite(numbers)
    notes = [] if wanted.all() else [f"{_count(table[~wanted])} without {target} left out"]
    if not wanted.any():
        raise UserError(f"--target {target}: no row has a number (rows: {len(table)}); export ratings or relax --where")
    kept = _keep(features, target, wanted.to_numpy(), numbers)
    if kept.table[target].nunique() < 2:
        value = kept.table[target].iloc[0]
        raise UserError(f"--target {target}: every row has the value {value:g}; nothing to predict")
    return kept, notes


def with_protocol(protocol, table):
    """The protocol without utterances that are not in the table, and notes on what is left out on either side."""
    ids, notes = set(table["id"]), []
    listed = protocol.ids("train") | protocol.ids("dev") | protocol.ids("test")
    missing = listed - ids
    kept = protocol.restricted(ids) if missing else protocol
    if missing:
        notes.append(
            f"{len(missing)} of {len(listed)} utterances of the protocol are not among the labelled rows, "
            f"e.g. {min(missing)!r}"
        )
    if not kept.folds:
        raise UserError(
            f"--protocol {protocol.name}: no fold has train and test utterances among the labelled rows; are these the "
            f"features of that corpus? (a row here is called {min(ids)!r})"
        )
    lost = len(protocol.folds) - len(kept.folds)
    if lost:
        notes.append(f"{lost} of {len(protocol.folds)} folds left out: nothing to train on or test")
    if ids - listed:
        notes.append(f"{len(ids - listed)} of {len(ids)} labelled utterances are in no fold of {protocol.name}")
    return kept, notes


def _check_column(table, target, what, known):
    if target not in table:
        raise UsageError(
            f"--target {target}: no such column{suggestion(target, known)}; {what} columns: {', '.join(known)}"
        )


def _text_columns(table):
    return [name for name in table if table[name].dtype.kind not in "biuf" and name not in _NO_LABELS]


def _keep(features, target, wanted, values):
    # A file of frames may be large; it is not copied where all rows are wanted.
    kept = dataclasses.replace(features) if wanted.all() else features.rows(wanted)
    kept.table[target] = values[wanted].to_numpy()
    bad = ~np.isfinite(kept.embedding).all(axis=1)
    if bad.any():
        raise UserError(
            f"--features: the embedding of {kept.table['id'][bad].iloc[0]!r} is not finite "
            f"({int(bad.sum())} such rows); export again, or leave them out with --where id!=…"
        )
    return kept


def _count(table):
    units = table["id"].nunique()
    rows = "" if units == len(table) else f" ({len(table)} rows)"
    return f"{units} utterance{'s' if units > 1 else ''}{rows}"
