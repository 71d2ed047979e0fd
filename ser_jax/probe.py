"""Train heads on exported features under an honest protocol; report with confidence interval and stamps.

Labels are classified, numbers (valence, arousal, dominance) regressed. Ends in rows of results.jsonl, the predictions
behind them and the protocol as a file. As a library: `ser_jax.heads.cross_validation`.
"""

import re
import sys
from pathlib import Path

from ser_jax.errors import DONE, UsageError, UserError

EXAMPLE = "ser-jax probe --features emodb.parquet --protocol loso --target emotion --head linear --out results"


def add_arguments(parser):
    parser.add_argument(
        "--features",
        required=True,
        metavar="FILE",
        help="features file (.parquet, .npz or .csv) made by `ser-jax export`",
    )
    parser.add_argument(
        "--protocol",
        required=True,
        metavar="NAME",
        help="loso (leave one speaker out), losso (leave one session out), kfold (whole speakers), official (the "
        "corpus' own splits), cross (trained on --features, tested on --test-features), or a protocol file ending in "
        ".json",
    )
    parser.add_argument(
        "--test-features",
        metavar="FILE",
        help="features of another corpus by the same extractor, tested by --protocol cross; classes of one corpus only "
        "are left out",
    )
    parser.add_argument(
        "--target",
        default="emotion",
        metavar="COLUMN",
        help="column to predict: labels, or numbers such as valence (default: emotion)",
    )
    parser.add_argument(
        "--head",
        metavar="NAME",
        help="for labels: linear (SVM, nested choice of C; the default), logistic, or compare (the ComParE 2020 "
        "baseline), or attentive_cnn (a net on frames); for numbers: ridge (nested choice of its penalty; the default) "
        "or ols (ordinary least squares)",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the head, e.g. epochs=50 of attentive_cnn; may be repeated",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=1,
        metavar="N",
        help="train a head that depends on a seed N times, with --seed and those that follow; figures are the mean over "
        "them (default: 1)",
    )
    parser.add_argument(
        "--metric", metavar="NAME", help="of a regression: CCC (default), MSE or Pearson; the others are kept beside it"
    )
    parser.add_argument(
        "--layers",
        metavar="SET",
        help="layers of the features to use: first-N, last-N, all, NAME,NAME, or each (one row per layer)",
    )
    parser.add_argument(
        "--select",
        type=int,
        metavar="K",
        help="keep the K features of the greatest F statistic (Fisher score), selected inside the training folds",
    )
    parser.add_argument(
        "--selection",
        default="training",
        metavar="ROWS",
        help="training (default), or all-data: show beside the honest figure the historical leak of selecting on all "
        "rows, tested ones included",
    )
    parser.add_argument(
        "--classes", metavar="A,B", help="keep these classes only; happy+excited merges the second into the first"
    )
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="COLUMN=VALUE[,VALUE]",
        help="keep the rows with these values (COLUMN!=VALUE: without them); may be repeated",
    )
    parser.add_argument("--folds", type=int, default=5, metavar="K", help="number of folds of kfold (default: 5)")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the assignment of speakers to folds and dev, of the bootstrap, and the first of --seeds (default: 0)",
    )
    parser.add_argument(
        "--dev",
        default="groups",
        metavar="WHAT",
        help="the dev part of each fold: groups (default: a fifth of the training speakers or sessions), or utterances "
        "(a random tenth of the training utterances)",
    )
    parser.add_argument(
        "--vote",
        default="sum",
        metavar="RULE",
        help="from chunks to a unit: sum of scores (default; numbers are averaged), or compare2020 (majority, tie to "
        "the first label)",
    )
    parser.add_argument(
        "--out", default="results", metavar="PATH", help="folder, or results.jsonl to append to (default: results)"
    )
    parser.add_argument(
        "--versus",
        metavar="PATH",
        help="paired test over speakers against the predictions of another row (head, layers or features): "
        "results.jsonl (the last honest row of this target), results.jsonl:LINE, or a predictions .parquet",
    )
    parser.add_argument(
        "--save-head",
        metavar="FILE",
        help=".npz of the fitted head: that of the only fold, or, with several folds, one fitted on all labelled rows",
    )
    parser.add_argument(
        "--save-protocol", metavar="FILE", help="also write the protocol here, for use with --protocol FILE"
    )
    parser.add_argument(
        "--save-representations",
        metavar="FILE",
        help="features file of what the last layer of a head that depends on a seed sees of the tested utterances (first "
        "seed), e.g. for `report --tsne`",
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="folds fitted at the same time (default: 1)")


def run(args):
    from ser_jax.export.features import FORMATS
    from ser_jax.heads import is_seeded, make_head
    from ser_jax.heads.comparison import read_predictions
    from ser_jax.heads.labelled import where
    from ser_jax.heads.layers import layer_sets
    from ser_jax.heads.selection import check_selection
    from ser_jax.results import print_rows

    if args.seed < 0:
        raise UsageError(f"--seed {args.seed}: must not be negative")
    if args.jobs < 1:
        raise UsageError(f"--jobs {args.jobs}: must be at least 1")
    check_selection(args.select, args.selection)
    out = Path(args.out)
    results = out if out.suffix == ".jsonl" else out / "results.jsonl"
    if results.parent.exists() and not results.parent.is_dir():
        raise UsageError(f"--out {out}: {results.parent} is a file; name a folder, or a results.jsonl in one")
    kept = args.save_representations
    if kept and not kept.endswith(FORMATS):
        raise UsageError(f"--save-representations {kept}: end it in one of {', '.join(FORMATS)}")
    read = [Path(path).resolve() for path in (args.features, args.test_features) if path]
    for option, path in (("save-representations", kept), ("save-head", args.save_head)):
        if path and Path(path).resolve() in read:
            raise UsageError(f"--{option} {path}: is a file that is read here and would be lost; name another")
    if args.head and is_seeded(make_head(args.head, args.option)):
        from ser_jax import sharding

        sharding.use_compilation_cache()
    versus = read_predictions(args.versus, args.target) if args.versus else None
    features = _features(args)
    for condition in args.where:
        features = features.rows(where(features.table, condition))
    sets = [None] if args.layers is None else [short for short, _ in layer_sets(features, args.layers)]
    for option in ("save_head", "save_representations"):
        if getattr(args, option) and len(sets) > 1:
            name = f"--{option.replace('_', '-')} {getattr(args, option)}"
            raise UsageError(f"{name}: takes one set of layers, not --layers {args.layers}")

    # The leak never goes without the honest figure, which comes first.
    selections = dict.fromkeys(["training", args.selection])
    rows, notes = [], []
    for layers in sets:
        for selection in selections:
            row, said = _probe(args, features, layers, selection, results, versus)
            rows.append(row)
            notes += said
    print_rows(rows)
    if rows[0].get("confusion") and len(sets) == 1:
        _print_confusion(rows[0])
    if versus:
        _print_versus(rows)
    if versus and len(rows) > 1:
        notes.append(f"the p-values are of {len(rows)} comparisons, each by itself: not corrected for their number")
    for note in dict.fromkeys(notes):
        print(note, file=sys.stderr)
    print(f"{len(rows)} row{'s' * (len(rows) > 1)} appended to {results}", file=sys.stderr)
    return DONE


def _probe(args, features, layers, selection, results, versus):
    """Runs one set of layers; writes its files and its row. Returns the row and its notes."""
    from ser_jax.export.features import write_features
    from ser_jax.heads.comparison import compare
    from ser_jax.heads.cross_validation import cross_validate
    from ser_jax.heads.linear import save_head
    from ser_jax.protocols.protocol import write_protocol
    from ser_jax.results import append_row

    outcome = cross_validate(
        features,
        args.target,
        args.protocol,
        args.head,
        args.classes.split(",") if args.classes else None,
        args.folds,
        args.seed,
        args.vote,
        args.jobs,
        keep_head=bool(args.save_head) and selection == "training",
        metric=args.metric,
        select=args.select,
        selection=selection,
        layers=layers,
        seeds=args.seeds,
        options=args.option,
        dev=args.dev,
        keep_representations=bool(args.save_representations),
    )
    row = outcome.row
    row["features"] = {"path": str(args.features), **row["features"], **({"where": args.where} if args.where else {})}
    if args.test_features:
        row["features"]["test_path"] = str(args.test_features)
    unpaired = None
    if versus:
        try:
            found = compare(outcome.predictions, versus[1], row["metric"], row.get("classes"), args.seed)
            row["versus"] = {"predictions": versus[0], **found}
        except UserError as error:
            if "seed" not in outcome.predictions:
                raise
            unpaired = error  # a row of long trainings is not thrown away for it

    row["predictions"] = f"predictions/{_row_key(row, outcome.predictions)}.parquet"
    _write_predictions(outcome.predictions, results.parent / row["predictions"])
    name = re.sub(r"[^\w.-]+", "_", row["protocol"]["name"])
    write_protocol(outcome.protocol, results.parent / "protocols" / f"{name}-{row['protocol']['hash']}.json")
    if args.save_protocol:
        write_protocol(outcome.protocol, args.save_protocol)
    append_row(results, row)
    if outcome.head is not None:
        about = {**{key: row[key] for key in ("target", "head", "protocol")}, "fitted_on": outcome.head_rows}
        save_head(outcome.head, args.save_head, outcome.head_features, about)
        outcome.notes.append(f"{args.save_head}: head fitted on {outcome.head_rows}")
    if outcome.representations is not None:
        write_features(outcome.representations, args.save_representations)
        outcome.notes.append(
            f"{args.save_representations}: {len(outcome.representations.table)} tested utterances as the head's last "
            f"layer sees them, seed {args.seed}"
        )
    if unpaired:
        raise UserError(f"{unpaired}; the row itself was appended to {results}")
    return row, outcome.notes


def _features(args):
    """The features to probe: those of one file, or of two corpora in one table."""
    from ser_jax.export.features import read_features

    if args.test_features is None:
        return read_features(args.features)
    from ser_jax.heads.cross_corpus import join

    if args.protocol != "cross" and not args.protocol.endswith(".json"):
        raise UsageError(f"--test-features {args.test_features}: goes with --protocol cross, not {args.protocol}")
    return join(read_features(args.features), read_features(args.test_features))


def _row_key(row, predictions):
    from ser_jax.files import canonical_hash

    setting = [row.get(key) for key in ("features", "target", "head", "protocol", "classes", "seeds")]
    columns = ["id", "fold", *(["seed"] if "seed" in predictions else []), "truth", "prediction"]
    return canonical_hash([setting, predictions[columns].astype("str").values.tolist()], 12)


def _write_predictions(predictions, path):
    from ser_jax.files import atomic_path

    with atomic_path(path) as temporary:
        predictions.to_parquet(temporary, index=False)


def _print_confusion(row):
    from ser_jax.results import print_table

    print()
    # Means over seeds are no whole numbers.
    rows = [
        [label, *(round(count, 1) if count % 1 else int(count) for count in counts)]
        for label, counts in zip(row["classes"], row["confusion"])
    ]
    print_table(["truth \\ prediction", *row["classes"]], rows)


def _print_versus(rows):
    from ser_jax.results import features_cell, format_value, print_table

    header = ["features", "head", "versus", "metric", "here", "there", "difference", "95% CI", "p", "n", "speakers"]
    header += ["only here", "only there"]
    seeded = any("seeds" in row["versus"] for row in rows)
    if seeded:
        header += ["seeds", "seed min", "seed max", "seed std"]
    lines = []
    for row in rows:
        versus, metric = row["versus"], row["metric"]
        interval = "..".join(format_value(metric, value) for value in versus["ci"])
        line = [
            features_cell(row),
            row["head"],
            Path(versus["predictions"]).name,
            metric,
            *(format_value(metric, versus[key]) for key in ("a", "b", "difference")),
            interval,
            f"{versus['p_value']:.4g}",
            *(versus[key] for key in ("n", "n_speakers", "only_here", "only_there")),
        ]
        if seeded:
            spread = versus.get("seeds") or {}
            line += [len(spread.get("values", [])) or None]
            line += [format_value(metric, spread.get(key)) for key in ("min", "max", "std")]
        lines.append(line)
    print()
    print_table(header, lines)
