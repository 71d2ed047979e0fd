"""A head on every fold of a protocol: predictions, their metrics and stamps; and the paired comparison of two."""

import dataclasses

import joblib
import numpy as np
import pandas as pd

from ser_jax.errors import UsageError, UserError, suggestion
from ser_jax.heads import make_head
from ser_jax.heads.vote import VOTES, unit_labels
from ser_jax.heads.vote import vote as vote_per_unit
from ser_jax.metrics import (
    BOOTSTRAP_SAMPLES,
    chance_level,
    confusion,
    macro_f1,
    paired_test,
    speaker_bootstrap,
    uar,
    war,
)
from ser_jax.progress import Progress
from ser_jax.protocols.audit import audit
from ser_jax.protocols.folds import corpus_keys, hold_out, make_protocol
from ser_jax.protocols.protocol import Protocol
from ser_jax.results import result_row

FEW_SPEAKERS = 10


@dataclasses.dataclass
class Outcome:
    """What `cross_validate` returns.

    Attributes:
      row: the result row, without the path of the predictions.
      predictions: table id, speaker_id, audio_sha256, fold, truth, prediction; one row per tested unit.
      protocol: as run.
      notes: lines for the reader: what was left out, findings of the audit, fits that did not converge.
      head, head_rows: the head to keep and what it was fitted on, when asked for.
    """

    row: dict
    predictions: pd.DataFrame
    protocol: Protocol
    notes: list
    head: object = None
    head_rows: str = ""


def cross_validate(
    features,
    target="emotion",
    protocol="loso",
    head="linear",
    classes=None,
    folds=5,
    seed=0,
    vote="sum",
    jobs=1,
    keep_head=False,
):
    """Trains and tests a head on every fold and pools the predictions.

    Args:
      features: a `ser_jax.export.features.Features`.
      target: text column of its table.
      protocol: a name of PROTOCOLS, the path of a protocol file, or a `Protocol`.
      head: a name of HEADS.
      classes: labels to keep, in any order, or None; "a+b" merges b into a.
      folds, seed: see `protocols.folds.make_protocol`; the seed is also that of the bootstrap.
      vote: a rule of heads.vote.VOTES.
      jobs: folds fitted at the same time, in processes.
      keep_head: also return a fitted head: that of the only fold, or one fitted on all labelled rows.

    Returns:
      an `Outcome`.

    Raises:
      UserError: with one line that says what to do.
    """
    fitter = make_head(head)
    if vote not in VOTES:
        raise UsageError(f"--vote {vote}: unknown{suggestion(vote, VOTES)}; known: {', '.join(VOTES)}")
    features, notes = _labelled(features, target, classes)
    table = features.table
    _check_finite(features)
    labels = sorted(set(table[target]))
    if len(labels) < 2:
        raise UserError(f"--target {target}: only one class, {labels[0]!r}; a head needs two")

    if isinstance(protocol, str):
        protocol = make_protocol(protocol, table, target, folds, seed)
    protocol = _present(protocol, table, notes)
    metadata = features.metadata
    corpus, experiment = metadata.get("corpus") or {}, metadata.get("experiment")
    synthetic = bool(corpus.get("synthetic") or metadata.get("pretrained_synthetic"))
    audited = audit(protocol, table, bool(metadata.get("linguistic")), synthetic)
    notes += audited.lines

    speakers = corpus_keys(table, "speaker_id").to_numpy(dtype=object)
    units = features.units.to_numpy(dtype=object)
    # For inner folds an unknown speaker is as many speakers as there are units.
    data = _Data(
        features.embedding,
        table[target].to_numpy(dtype=object),
        table["id"].to_numpy(dtype=object),
        units,
        speakers,
        np.where(speakers == "", units, speakers),
        table["audio_sha256"].to_numpy(dtype=object),
    )
    predictions, fitted = _run_folds(data, protocol, fitter, vote, jobs)
    row = _summary(predictions, labels, seed)
    if 0 < row["n_speakers"] < FEW_SPEAKERS:
        notes.append(
            f"{row['n_speakers']} speaker(s) tested: an interval over fewer than {FEW_SPEAKERS} is too narrow"
        )
    stopped = sum(model.unconverged for model in fitted)
    if stopped:
        notes.append(
            f"{stopped} fits stopped at the limit of iterations (all folds and candidates of the search counted)"
        )
    for item, model in zip(row["folds"], fitted):
        item["chosen"] = model.chosen
    row |= {
        "system": metadata.get("kind"),
        "target": target,
        "head": head if vote == "sum" else f"{head} vote={vote}",
        "selection": fitter.selection,
        "seeds": [seed],
        "protocol": {"name": protocol.name, "hash": protocol.hash},
        "features": {
            "hash": metadata.get("features_hash"),
            "layer": metadata.get("layer"),
            "pooling": metadata.get("pooling"),
        },
        "corpus": {"name": corpus.get("name"), "fingerprint": corpus.get("fingerprint")},
        "checkpoint": {key: (metadata.get("checkpoint") or {}).get(key) for key in ("hash", "step")},
        "experiment": experiment.get("name") if isinstance(experiment, dict) else experiment,
        "stamps": audited.stamps,
        "notes": notes,
    }
    outcome = Outcome(result_row("probe", **row), predictions, protocol, list(notes))
    if keep_head:
        outcome.head, outcome.head_rows = _head_to_keep(data, table, target, protocol, fitter, fitted, seed)
    return outcome


def compare(predictions, others, metric, classes, seed=0):
    """Paired test of two tables of predictions on the units they share; says how many are on one side only.

    Raises:
      UserError: nothing in common, or the truths differ.
    """
    on = ["id"] if not (predictions["id"].duplicated().any() or others["id"].duplicated().any()) else ["id", "fold"]
    both = predictions.merge(others, on=on, suffixes=("", "_b"))
    if both.empty:
        raise UserError("--versus: no tested unit in common; compare results on the same corpus")
    other = (both["audio_sha256"] != both["audio_sha256_b"]) & (both["audio_sha256"] != "") & (both["audio_sha256_b"] != "")
    if other.any():
        raise UserError(
            f"--versus: {int(other.sum())} of {len(both)} units of the same name are other recordings, e.g. "
            f"{both[other]['id'].iloc[0]!r}; compare results on the same corpus"
        )
    differ = both["truth"] != both["truth_b"]
    if differ.any():
        row = both[differ].iloc[0]
        raise UserError(
            f"--versus: the truth differs for {int(differ.sum())} of {len(both)} units, e.g. {row['id']!r}: "
            f"{row['truth']!r} and {row['truth_b']!r}; compare results of one target"
        )
    labels = sorted(set(classes) | set(both["prediction_b"]))
    speakers = both["speaker_id"].where(both["speaker_id"] != "", both["id"])
    absent = sorted(set(labels) - set(both["truth"]))
    if absent and metric == "UAR":
        raise UserError(
            f"--versus: class {absent[0]!r} has no unit among the {len(both)} in common; use --classes on both sides"
        )
    found = paired_test(
        both["truth"], both["prediction"], both["prediction_b"], speakers, metric, seed=seed, classes=labels
    )
    return {**found, "only_here": len(predictions) - len(both), "only_there": len(others) - len(both)}


@dataclasses.dataclass(frozen=True)
class _Data:
    """Columns of the labelled rows as arrays of length N; `groups` are the speakers with unknown ones told apart."""

    x: np.ndarray
    y: np.ndarray
    ids: np.ndarray
    units: np.ndarray
    speakers: np.ndarray
    groups: np.ndarray
    audio: np.ndarray


def _run_folds(data, protocol, fitter, vote, jobs):
    """Predictions of all folds in one table, and the fitted models."""
    tasks = (joblib.delayed(_run_fold)(data, fold, fitter, vote) for fold in protocol.folds)
    tables, models = [], []
    with Progress(len(protocol.folds), f"probe {protocol.name}", "folds") as progress:
        for table, model in joblib.Parallel(n_jobs=jobs, return_as="generator")(tasks):
            tables.append(table)
            models.append(model)
            progress.update()
    return pd.concat(tables, ignore_index=True), models


def _run_fold(data, fold, fitter, rule):
    dev, test = np.isin(data.ids, fold.dev), np.isin(data.ids, fold.test)
    train = np.isin(data.ids, fold.train) | dev
    try:
        model = fitter.fit(data.x[train], data.y[train], data.groups[train], dev[train])
    except UserError as error:
        raise UserError(f"fold {fold.name!r}: {error}") from None
    units = data.units[test]
    names, prediction = vote_per_unit(model.scores(data.x[test]), units, model.classes, rule)
    truth = unit_labels(data.y[test], units)[1]
    speaker = dict(zip(units[::-1], data.speakers[test][::-1]))
    audio = dict(zip(units[::-1], data.audio[test][::-1]))  # of the first piece, enough to tell recordings apart
    return pd.DataFrame(
        {
            "id": names,
            "speaker_id": [speaker[name] for name in names],
            "audio_sha256": [audio[name] for name in names],
            "fold": fold.name,
            "truth": truth,
            "prediction": prediction,
        }
    ).astype("str"), model


def _summary(predictions, labels, seed):
    """The numbers of a result row, from pooled predictions."""
    truth, prediction = predictions["truth"].tolist(), predictions["prediction"].tolist()
    absent = sorted(set(labels) - set(truth))
    if absent:
        raise UserError(
            f"class {', '.join(map(repr, absent))} is trained but never tested, so UAR is not defined; choose --classes"
        )
    speakers = predictions["speaker_id"]
    known, unknown = speakers[speakers != ""].nunique(), int((speakers == "").sum())
    ci = speaker_bootstrap(
        truth, prediction, speakers.where(speakers != "", predictions["id"]), "UAR", seed=seed, classes=labels
    )
    method = f"percentile bootstrap over speakers, {BOOTSTRAP_SAMPLES} resamples, seed {seed}"
    if unknown:
        method += f"; {unknown} units of unknown speaker are drawn one by one, so it is too narrow"
    elif known < FEW_SPEAKERS:
        method += f"; {known} speakers: too narrow" if known > 1 else "; not defined for one speaker"
    folds, lacking = [], 0
    for name, part in predictions.groupby("fold", sort=False):
        lacking += part["truth"].nunique() < len(labels)
        folds.append(
            {"name": name, "value": uar(part["truth"], part["prediction"], labels, absent="skip"), "n": len(part)}
        )
    pooling = "pooled predictions of all folds"
    if lacking:
        pooling += f"; fold mean: {lacking} of {len(folds)} folds lack a class, their UAR is over the classes present"
    secondary = {
        "WAR": war(truth, prediction),
        "macro_F1": macro_f1(truth, prediction, labels),
        "UAR_fold_mean": float(np.mean([fold["value"] for fold in folds])),
        "WAR_chance": chance_level("WAR", truth),
    }
    return {
        "metric": "UAR",
        "value": uar(truth, prediction, labels),
        "ci": list(ci),
        "ci_method": method,
        "n": len(predictions),
        "n_speakers": known,
        "chance": chance_level("UAR", truth, labels),
        "classes": labels,
        "confusion": confusion(truth, prediction, labels),
        "secondary": secondary,
        "fold_pooling": pooling,
        "folds": folds,
    }


def _head_to_keep(data, table, target, protocol, fitter, fitted, seed):
    if len(protocol.folds) == 1:
        return fitted[0], f"train and dev of {protocol.name}"
    dev = hold_out(table, data.groups, target, f"{seed}/head") if fitter.needs_dev else np.zeros(len(data.y), bool)
    model = fitter.fit(data.x, data.y, data.groups, dev)
    return model, f"all {len(set(data.units))} labelled units, those of the test parts included"


def _labelled(features, target, classes):
    """Features of the rows that have a wanted label, and notes on the others."""
    table, notes = features.table, []
    if target not in table:
        other = ("id", "text", "audio_sha256", "chunk_of")
        known = [name for name in table.columns if table[name].dtype.kind not in "biuf" and name not in other]
        raise UsageError(
            f"--target {target}: no such column{suggestion(target, known)}; text columns: {', '.join(known)}"
        )
    if table[target].dtype.kind == "f":
        raise UsageError(f"--target {target}: holds numbers, and heads predict labels; choose a text column")
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
    kept = features.rows(wanted.to_numpy())
    kept.table[target] = labels[wanted].to_numpy()
    return kept, notes


def _count(table):
    units = table["id"].nunique()
    rows = "" if units == len(table) else f" ({len(table)} rows)"
    return f"{units} utterance{'s' if units > 1 else ''}{rows}"


def _check_finite(features):
    bad = ~np.isfinite(features.embedding).all(axis=1)
    if bad.any():
        raise UserError(
            f"--features: the embedding of {features.table['id'][bad].iloc[0]!r} is not finite "
            f"({int(bad.sum())} such rows); export again, or leave them out with --where id!=…"
        )


def _present(protocol, table, notes):
    """The protocol without utterances that are not in the table; notes say what is left out on either side."""
    ids = set(table["id"])
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
    return kept
