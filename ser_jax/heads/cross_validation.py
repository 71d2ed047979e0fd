"""A head on every fold of a protocol: predictions, their metrics and stamps."""

import dataclasses

import pandas as pd

from ser_jax.errors import UsageError, suggestion
from ser_jax.heads import DEFAULTS, is_seeded, make_head
from ser_jax.heads.cross_corpus import shared_classes
from ser_jax.heads.fold_loop import arrays, head_to_keep, run_folds
from ser_jax.heads.labelled import with_labels, with_numbers, with_protocol
from ser_jax.heads.layers import layer_sets
from ser_jax.heads.seeded import check_seeds, representations, run_seeds
from ser_jax.heads.selection import check_selection, selection_beforehand, selection_inside
from ser_jax.heads.summary import FEW_SPEAKERS, METRICS_OF, check_tested, summary_of_labels, summary_of_numbers
from ser_jax.heads.vote import VOTES
from ser_jax.protocols.audit import audit
from ser_jax.protocols.folds import CROSS, make_protocol
from ser_jax.protocols.protocol import Protocol
from ser_jax.results import result_row


@dataclasses.dataclass
class Outcome:
    """What `cross_validate` returns.

    Attributes:
      row: the result row, without the path of the predictions.
      predictions: table id, speaker_id, audio_sha256, fold, truth, prediction; one row per tested unit. The last two
        are labels, or float64 in a regression. Of a seeded head with a column seed, and one row per unit and seed.
      protocol: as run.
      notes: lines for the reader: what was left out, findings of the audit, fits that did not converge.
      head, head_rows, head_features: the head to keep, what it was fitted on and the metadata of its features, when
        asked for.
      representations: `Features` of the tested utterances, when asked for; see `seeded.representations`.
    """

    row: dict
    predictions: pd.DataFrame
    protocol: Protocol
    notes: list
    head: object = None
    head_rows: str = ""
    head_features: dict = None
    representations: object = None


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
    seeds=1,
    options=(),
    dev="groups",
    keep_representations=False,
):
    """Trains and tests a head on every fold and pools the predictions.

    Args:
      features: a `ser_jax.export.features.Features`; two corpora as `cross_corpus.join` makes them for protocol "cross".
      target: column of its table: labels to classify, or numbers for a regression.
      protocol: a name of PROTOCOLS, the path of a protocol file, or a `Protocol`.
      head: a name of HEADS; by default linear for labels and ridge for a column of floats.
      classes: labels to keep, in any order, or None; "a+b" merges b into a.
      folds, seed, dev: see `protocols.folds.make_protocol`; the seed is also that of the bootstrap.
      vote: a rule of heads.vote.VOTES, for labels. (The numbers of the chunks of a unit are averaged.)
      jobs: folds (of a seeded head: trainings) fitted at the same time, in processes.
      keep_head: also return a fitted head: that of the only fold, or one fitted on all labelled rows.
      metric: that of the row: UAR for labels; CCC (default), MSE or Pearson for numbers.
      select: number of features of the greatest F to keep, or None for all.
      selection: "training": the features are selected anew in every fit, from its own rows. "all-data": the historical
        leak, once on all labelled rows, tested ones included; the row is then stamped LEAKY.
      layers: None, or one set of layers as in `heads.layers.layer_sets`.
      seeds: with how many seeds (seed, seed + 1, …) a seeded head is trained on every fold; the folds are the same for
        all. The numbers of the row are then means over seeds.
      options: texts "NAME=VALUE", options of the head.
      keep_representations: also return what the last layer of a seeded head sees of the tested utterances.

    Returns:
      an `Outcome`.

    Raises:
      UserError: with one line that says what to do.
    """
    fitter = make_head(head or DEFAULTS["numbers" if _holds_floats(features, target) else "labels"], options)
    numbers, seeded = fitter.predicts == "numbers", is_seeded(fitter)
    metric = _checked_metric(fitter, metric, classes, vote)
    check_selection(select, selection)
    check_seeds(fitter, seeds)
    _check_wishes(fitter, select, keep_head, keep_representations)
    short, parts = features.metadata.get("layer"), features
    if layers is not None:
        [(short, names), *several] = layer_sets(features, layers)
        if several:
            raise UsageError(f"--layers {layers}: is more than one set; probe each by itself")
        parts = features.select_layers(names)
    if parts.frame_layers and not seeded:
        raise UsageError(_no_frames(fitter, features, parts))
    if select is not None and select > parts.embedding.shape[1]:
        raise UsageError(f"--select {select}: there are {parts.embedding.shape[1]} features only")
    parts, notes = with_numbers(parts, target) if numbers else with_labels(parts, target, classes)
    if CROSS in parts.table and not numbers:
        parts, said = shared_classes(parts, target)
        notes += said
    table, metadata = parts.table, parts.metadata

    if isinstance(protocol, str):
        protocol = make_protocol(protocol, table, target, folds, seed, dev)
        if dev != "groups":
            notes.append(f"protocol {protocol.name}: {protocol.description}")
    protocol, left_out = with_protocol(protocol, table)
    corpus = metadata.get("corpus") or {}
    synthetic = bool(corpus.get("synthetic") or metadata.get("pretrained_synthetic"))
    audited = audit(protocol, table, bool(metadata.get("linguistic")), synthetic)
    notes += left_out + audited.lines
    stamps = audited.stamps
    if _fitted(metadata):
        stamps = ["LEAKY", *(stamp for stamp in stamps if stamp != "LEAKY")]
        notes.append("LEAKY: the features are representations of nets that were trained on labels of these utterances")

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
    several, trained = list(range(seed, seed + seeds)), None
    if seeded:
        if not numbers:  # not after hours of training
            check_tested(table[target][table["id"].isin(protocol.ids("test"))], set(table[target]))
        predictions, trained = run_seeds(parts, data, target, protocol, fitter, several, vote, jobs)
        fitted = []
    else:
        predictions, fitted = run_folds(data, protocol, fitter, inside, vote, jobs)
    if numbers:
        row = summary_of_numbers(predictions, metric, seed)
    else:
        row = summary_of_labels(predictions, sorted(set(table[target])), seed)
    notes += _notes_on(row, fitted)
    if seeded:
        for item in row["folds"]:
            item["chosen"] = [chosen[item["name"]] for chosen in trained.chosen]
    for item, model in zip(row["folds"], fitted):
        item["chosen"] = model.chosen
        if select is not None and len(parts.layers) > 1:
            item["selected"] = _selected(model, metadata["columns"])
    row |= {
        "system": metadata.get("kind"),
        "target": target,
        "head": _head_cell(fitter, vote, select, selection),
        "selection": how,
        **({"options": dataclasses.asdict(fitter.options)} if hasattr(fitter, "options") else {}),
        "seeds": several,
        "protocol": {"name": protocol.name, "hash": protocol.hash},
        "features": {
            "hash": metadata.get("features_hash"),
            "layer": short,
            "layers": parts.layers,
            "pooling": metadata.get("pooling"),
            **({} if select is None else {"select": select, "selection": selection}),
            **_of_several_files(metadata),
        },
        "corpus": {
            "name": corpus.get("name"),
            "fingerprint": corpus.get("fingerprint"),
            **({"trained_on": corpus["trained_on"]} if "trained_on" in corpus else {}),
        },
        "checkpoint": {key: (metadata.get("checkpoint") or {}).get(key) for key in ("hash", "step")},
        "experiment": _name_of(metadata.get("experiment")),
        "stamps": stamps,
        "notes": notes,
    }
    outcome = Outcome(result_row("probe", **row), predictions, protocol, list(notes))
    if keep_head:
        outcome.head, outcome.head_rows = head_to_keep(data, table, target, protocol, fitter, inside, fitted, seed)
        outcome.head_features = metadata
    if keep_representations:
        outcome.representations = representations(parts, target, protocol, fitter, trained, seed)
    return outcome


def _fitted(metadata):
    """Whether labels went into the features, or into a part of them, however often they were fused."""
    return "fitted" in metadata or any(_fitted(part) for part in metadata.get("fused") or [])


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


def _check_wishes(fitter, select, keep_head, keep_representations):
    """Refuses what the head cannot do."""
    if is_seeded(fitter) and select is not None:
        raise UsageError(f"--select {select}: head {fitter.name} takes the features as they are; leave it out")
    if is_seeded(fitter) and keep_head:
        raise UsageError(
            f"--save-head: the nets of head {fitter.name} are not kept; --save-representations keeps what they see"
        )
    if keep_representations and not is_seeded(fitter):
        raise UsageError(f"--save-representations: head {fitter.name} has none; the features are what it sees")


def _no_frames(fitter, features, parts):
    """What to say to a head that cannot use the frames among `parts`, a part of `features`."""
    others = [name for name in features.layers if name not in features.frame_layers]
    do = f"choose others, --layers {','.join(others)}" if others else "export embeddings or functionals for it"
    return f"--head {fitter.name}: layer {parts.frame_layers[0]} holds frames, which it cannot use; {do}"


def _head_cell(fitter, vote, select, selection):
    """Name and options of the head, those that are not as by default."""
    given = {"vote": None if vote == "sum" else vote, "select": select}
    given["selection"] = None if selection == "training" else selection
    if hasattr(fitter, "options"):
        usual = dataclasses.asdict(type(fitter.options)())
        given |= {name: value for name, value in dataclasses.asdict(fitter.options).items() if value != usual[name]}
    return " ".join([fitter.name, *(f"{name}={value}" for name, value in given.items() if value is not None)])


def _name_of(experiment):
    return experiment.get("name") if isinstance(experiment, dict) else experiment


def _of_several_files(metadata):
    """What a row tells of the files that its features were put together from."""
    found = {}
    if metadata.get("fused"):
        found["fused"] = [
            {
                "kind": part.get("kind"),
                "layer": part.get("layer"),
                "hash": part.get("features_hash"),
                "checkpoint": (part.get("checkpoint") or {}).get("hash"),
                "experiment": _name_of(part.get("experiment")),
            }
            for part in metadata["fused"]
        ]
    if metadata.get("test_features_hash"):
        found["test_hash"] = metadata["test_features_hash"]
    return found


def _notes_on(row, fitted):
    """Lines on few speakers, least squares without a single answer, and fits that did not converge."""
    notes = []
    if 0 < row["n_speakers"] < FEW_SPEAKERS:
        notes.append(f"{row['n_speakers']} speaker(s) tested: an interval over fewer than {FEW_SPEAKERS} is too narrow")
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
