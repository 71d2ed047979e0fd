"""A head on every fold of a protocol: predictions, their metrics and stamps."""

import dataclasses

import pandas as pd

from ser_jax.errors import UsageError, suggestion
from ser_jax.heads import DEFAULTS, make_head
from ser_jax.heads.fold_loop import arrays, head_to_keep, run_folds
from ser_jax.heads.labelled import with_labels, with_numbers, with_protocol
from ser_jax.heads.layers import layer_sets
from ser_jax.heads.selection import check_selection, selection_beforehand, selection_inside
from ser_jax.heads.summary import FEW_SPEAKERS, METRICS_OF, summary_of_labels, summary_of_numbers
from ser_jax.heads.vote import VOTES
from ser_jax.protocols.audit import audit
from ser_jax.protocols.folds import make_protocol
from ser_jax.protocols.protocol import Protocol
from ser_jax.results import result_row


@dataclasses.dataclass
class Outcome:
    """What `cross_validate` returns.

    Attributes:
      row: the result row, without the path of the predictions.
      predictions: table id, speaker_id, audio_sha256, fold, truth, prediction; one row per tested unit. The last two
        are labels, or float64 in a regression.
      protocol: as run.
      notes: lines for the reader: what was left out, findings of the audit, fits that did not converge.
      head, head_rows, head_features: the head to keep, what it was fitted on and the metadata of its features, when
        asked for.
    """

    row: dict
    predictions: pd.DataFrame
    protocol: Protocol
    notes: list
    head: object = None
    head_rows: str = ""
    head_features: dict = None


def cross_validate(
    features,
    target="emotion",
    protocol="loso",
    head=None,
    classes=None,
    folds=5,
    seed=0,
    vote="sum",
    jobs=1,
    keep_head=False,
    metric=None,
    select=None,
    selection="training",
    layers=None,
):
    """Trains and tests a head on every fold and pools the predictions.

    Args:
      features: a `ser_jax.export.features.Features`.
      target: column of its table: labels to classify, or numbers for a regression.
      protocol: a name of PROTOCOLS, the path of a protocol file, or a `Protocol`.
      head: a name of HEADS; by default linear for labels and ridge for a column of floats.
      classes: labels to keep, in any order, or None; "a+b" merges b into a.
      folds, seed: see `protocols.folds.make_protocol`; the seed is also that of the bootstrap.
      vote: a rule of heads.vote.VOTES, for labels. (The numbers of the chunks of a unit are averaged.)
      jobs: folds fitted at the same time, in processes.
      keep_head: also return a fitted head: that of the only fold, or one fitted on all labelled rows.
      metric: that of the row: UAR for labels; CCC (default), MSE or Pearson for numbers.
      select: number of features of the greatest F to keep, or None for all.
      selection: "training": the features are selected anew in every fit, from its own rows. "all-data": the historical
        leak, once on all labelled rows, tested ones included; the row is then stamped LEAKY.
      layers: None, or one set of layers as in `heads.layers.layer_sets`.

    Returns:
      an `Outcome`.

    Raises:
      UserError: with one line that says what to do.
    """
    fitter = make_head(head or DEFAULTS["numbers" if _holds_floats(features, target) else "labels"])
    numbers = fitter.predicts == "numbers"
    metric = _checked_metric(fitter, metric, classes, vote)
    check_selection(select, selection)
    short, parts = features.metadata.get("layer"), features
    if layers is not None:
        [(short, names), *several] = layer_sets(features, layers)
        if several:
            raise UsageError(f"--layers {layers}: is more than one set; probe each by itself")
        parts = features.select_layers(names)
    if select is not None and select > parts.embedding.shape[1]:
        raise UsageError(f"--select {select}: there are {parts.embedding.shape[1]} features only")
    parts, notes = with_numbers(parts, target) if numbers else with_labels(parts, target, classes)
    table, metadata = parts.table, parts.metadata

    if isinstance(protocol, str):
        protocol = make_protocol(protocol, table, target, folds, seed)
    protocol, left_out = with_protocol(protocol, table)
    corpus, experiment = metadata.get("corpus") or {}, metadata.get("experiment")
    synthetic = bool(corpus.get("synthetic") or metadata.get("pretrained_synthetic"))
    audited = audit(protocol, table, bool(metadata.get("linguistic")), synthetic)
    notes += left_out + audited.lines
    stamps = audited.stamps

    data = arrays(parts, target)
    inside, how = None, fitter.selection
    if select is not None:
        inside = selection_inside(select) if selection == "training" else selection_beforehand(data.x, data.y, select)
        when = "inside every training part, inner ones too"
        if selection == "all-data":
            when = "once on all labelled rows, those of the test parts included (historical leak)"
            stamps = ["LEAKY", *(stamp for stamp in stamps if stamp != "LEAKY")]
            notes.append(
                f"LEAKY: selection=all-data chose the {select} features with the labels of the tested rows; it shows "
                "what this leak is worth, the honest figure is that without it"
            )
        how = (
            f"{select} of {data.x.shape[1]} features by {'f_regression' if numbers else 'f_classif'}, ties by index, "
            f"{when}; {how}"
        )
    predictions, fitted = run_folds(data, protocol, fitter, inside, vote, jobs)
    if numbers:
        row = summary_of_numbers(predictions, metric, seed)
    else:
        row = summary_of_labels(predictions, sorted(set(table[target])), seed)
    notes += _notes_on(row, fitted)
    for item, model in zip(row["folds"], fitted):
        item["chosen"] = model.chosen
        if select is not None and len(parts.layers) > 1:
            item["selected"] = _selected(model, metadata["columns"])
    options = {"vote": None if vote == "sum" else vote, "select": select}
    options["selection"] = None if selection == "training" else selection
    row |= {
        "system": metadata.get("kind"),
        "target": target,
        "head": " ".join([fitter.name, *(f"{name}={value}" for name, value in options.items() if value)]),
        "selection": how,
        "seeds": [seed],
        "protocol": {"name": protocol.name, "hash": protocol.hash},
        "features": {
            "hash": metadata.get("features_hash"),
            "layer": short,
            "layers": parts.layers,
            "pooling": metadata.get("pooling"),
            **({} if select is None else {"select": select, "selection": selection}),
        },
        "corpus": {"name": corpus.get("name"), "fingerprint": corpus.get("fingerprint")},
        "checkpoint": {key: (metadata.get("checkpoint") or {}).get(key) for key in ("hash", "step")},
        "experiment": experiment.get("name") if isinstance(experiment, dict) else experiment,
        "stamps": stamps,
        "notes": notes,
    }
    outcome = Outcome(result_row("probe", **row), predictions, protocol, list(notes))
    if keep_head:
        outcome.head, outcome.head_rows = head_to_keep(data, table, target, protocol, fitter, inside, fitted, seed)
        outcome.head_features = metadata
    return outcome


def _holds_floats(features, target):
    return target in features.table and features.table[target].dtype.kind == "f"


def _checked_metric(fitter, metric, classes, vote):
    """The metric to report, if it and the other options are for what this head predicts."""
    known = METRICS_OF[fitter.predicts]
    metric = metric or known[0]
    if metric not in known:
        raise UsageError(
            f"--metric {metric}: head {fitter.name} predicts {fitter.predicts}{suggestion(metric, known)}; "
            f"known for these: {', '.join(known)}"
        )
    if vote not in VOTES:
        raise UsageError(f"--vote {vote}: unknown{suggestion(vote, VOTES)}; known: {', '.join(VOTES)}")
    if fitter.predicts == "numbers" and vote != "sum":
        raise UsageError(f"--vote {vote}: the numbers that head {fitter.name} predicts are averaged; leave it out")
    if fitter.predicts == "numbers" and classes is not None:
        raise UsageError(f"--classes: head {fitter.name} predicts numbers; keep rows with --where COLUMN=VALUE")
    return metric


def _notes_on(row, fitted):
    """Lines on few speakers, least squares without a single answer, and fits that did not converge."""
    notes = []
    if 0 < row["n_speakers"] < FEW_SPEAKERS:
        notes.append(
            f"{row['n_speakers']} speaker(s) tested: an interval over fewer than {FEW_SPEAKERS} is too narrow"
        )
    deficient = sum("rank" in model.chosen for model in fitted)
    if deficient:
        notes.append(
            f"least squares has no single answer in {deficient} of {len(fitted)} folds (features that depend on each "
            "other, or more of them than rows): that of the least norm is taken; --select K or --head ridge mend it"
        )
    stopped = sum(model.unconverged for model in fitted)
    if stopped:
        notes.append(
            f"{stopped} fits stopped at the limit of iterations (all folds and candidates of the search counted)"
        )
    return notes


def _selected(model, columns):
    """How many of the selected features each layer has."""
    used = (model.coef != 0).any(axis=0)
    return {column["layer"]: int(used[column["start"] : column["stop"]].sum()) for column in columns}
