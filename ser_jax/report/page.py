"""Renders result rows as one self-contained HTML page, with a CSV of all rows and PNG figures beside it."""

import base64
import hashlib
import sys
from pathlib import Path

from ser_jax import files
from ser_jax.errors import DONE, UsageError, UserError, suggestion

EXAMPLE = "ser-jax report work/results.jsonl --workdir work/sample_cnn --out report.html"
TEMPLATE, SCRIPT = "page.html.j2", "layers.js"


def add_arguments(parser):
    parser.add_argument(
        "results",
        nargs="*",
        type=Path,
        metavar="RESULTS",
        help="results.jsonl of `probe` or `evaluate`, or folders that hold some",
    )
    parser.add_argument(
        "--workdir",
        action="append",
        type=Path,
        default=[],
        metavar="WORKDIR",
        help="work folder of `pretrain`, for learning curves (from its metrics.jsonl); may be repeated",
    )
    parser.add_argument(
        "--layer-study",
        action="append",
        type=Path,
        default=[],
        metavar="FEATURES",
        help="features file of several layers: maps of their correlations with valence and arousal; may be repeated",
    )
    parser.add_argument(
        "--speaker",
        action="append",
        default=[],
        metavar="ID",
        help="with --layer-study: whose maps to draw as PNG (default: who has the most utterances); may be repeated",
    )
    parser.add_argument(
        "--tsne",
        action="append",
        type=Path,
        default=[],
        metavar="FEATURES",
        help="features file: t-SNE map of its utterances by emotion, ratings, gender and speaker; may be repeated",
    )
    parser.add_argument(
        "--tsne-layers", metavar="NAMES", help="with --tsne: layers of the files, with commas between (default: all)"
    )
    parser.add_argument(
        "--reconstructions",
        type=Path,
        metavar="CORPUS",
        help="prepared corpus: what each autoencoder among the --workdir makes of a few of its utterances",
    )
    parser.add_argument(
        "--transfer",
        action="append",
        type=Path,
        default=[],
        metavar="TABLE",
        help="table.csv of `reproduce` of a transfer study: curves over the layers that are held constant; may be repeated",
    )
    parser.add_argument(
        "--filters",
        action="append",
        type=Path,
        default=[],
        metavar="WORKDIR",
        help="pretraining run whose first layer is a convolution over time and mel bands: its filters; may be repeated",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="the page; FILE with .csv and _*.png goes beside it (default report.html)",
    )


def run(args):
    if not (args.results or args.workdir or args.layer_study or args.tsne or args.transfer or args.filters):
        raise UsageError(
            "nothing to report; name results.jsonl files, or give --layer-study, --tsne, --transfer, --filters or --workdir"
        )
    for option, value, needs in (
        ("--speaker", args.speaker, "layer_study"),
        ("--tsne-layers", args.tsne_layers, "tsne"),
        ("--reconstructions", args.reconstructions, "workdir"),
    ):
        if value and not getattr(args, needs):
            raise UsageError(f"{option}: of what? give --{needs.replace('_', '-')} too")
    if args.reconstructions:
        from ser_jax import sharding

        sharding.use_compilation_cache()
    page, warnings = render(
        args.results, args.workdir, args.out, args.layer_study, args.speaker, args.tsne, args.tsne_layers,
        args.reconstructions, args.transfer, args.filters,
    )  # fmt: skip
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(page)
    return DONE


def render(
    results, workdirs, out, layer_studies=(), speakers=(), projections=(), projected_layers=None, reconstructions=None,
    transfers=(), filters=(),
):  # fmt: skip
    """Writes the page `out`, `<stem>.csv` and `<stem>_*.png`. Equal input files give equal output files.

    Args:
      results: paths of results.jsonl files or of folders that hold some; without any, no `<stem>.csv` is written.
      workdirs: work folders of pretraining whose learning curves to show.
      out: path of the page, ending in .html.
      layer_studies: features files of several layers; the cells of each go to `<stem>_layers_<number>.csv`.
      speakers: whose maps to draw as figures; by default the speaker with the most utterances.
      projections: features files of which to make t-SNE maps; the places go to `<stem>_tsne_<number>.csv`.
      projected_layers: which of their layers, with commas between; None = all.
      reconstructions: prepared corpus, of which the autoencoders among `workdirs` reconstruct a few utterances, or
        None.
      transfers: tables of transfer studies, whose curves to show.
      filters: workdirs, the filters of whose first convolution to show.

    Returns:
      (path of the page, warnings).

    Raises:
      UserError: input is missing or malformed (the message names file and line), or the output cannot be written.
    """
    from ser_jax.report import rows as reading

    out = Path(out)
    if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
        raise UsageError(f"--out {out}: give the name of an .html file")
    rows, sources, warnings = reading.read_rows(results) if results else ([], [], [])
    logs, more = reading.read_logs(workdirs)
    warnings += more
    studies = _studies(layer_studies, speakers)
    maps = _projections(projections, projected_layers)
    rebuilt = _reconstructions(logs, reconstructions)
    carried = _transfer_study(transfers, filters)
    text, pictures, tables = _build(rows, logs, studies, maps, rebuilt, carried, sources, warnings, out.stem)
    try:
        for picture in pictures:
            with files.atomic_path(out.with_name(f"{out.stem}_{picture.name}.png")) as temporary:
                temporary.write_bytes(picture.png)
        for ending, table in tables.items():
            files.write_text(out.with_name(f"{out.stem}{ending}.csv"), table)
        files.write_text(out, text)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror})") from error
    return out, warnings


def _studies(paths, speakers):
    """What the page shows of each features file, each read once."""
    if not paths:
        return []
    from ser_jax.report import layer_study, layer_view

    studies = [layer_study.study(path) for path in _each_once(paths)]
    known = [name for study in studies for name in study.views[1:]]
    for speaker in speakers:
        if speaker not in known:
            raise UsageError(f"--speaker {speaker}: not in {studies[0].file}{suggestion(speaker, known)}")
    return [layer_view.present(study, place, speakers) for place, study in enumerate(studies, 1)]


def _each_once(paths):
    first = {}
    for path in map(Path, paths):
        first.setdefault(path.resolve(), path)
    return list(first.values())


def _projections(paths, layers):
    """[(projection, picture, caption, facts)] of the t-SNE maps."""
    if not paths:
        return []
    from ser_jax.report import feature_file, tsne, tsne_figures

    names, found = tsne.check_layers(layers), []
    for place, path in enumerate(_each_once(paths), 1):
        each = tsne.project(path, names)
        picture = tsne_figures.picture(each, f"tsne_{place}")
        found.append((each, picture, tsne.caption(each), feature_file.facts(path, each.metadata)))
    return found


def _reconstructions(logs, corpus):
    """[(reconstructions, picture, notes)] of each autoencoder."""
    if corpus is None:
        return []
    from ser_jax.report import reconstruction_figures, reconstructions

    return [
        (each, reconstruction_figures.picture(each, f"reconstructions_{place}"), reconstructions.notes(each))
        for place, each in enumerate(reconstructions.of_logs(logs, corpus), 1)
    ]


def _transfer_study(tables, workdirs):
    """([(study, picture)] of each direction of each table, [(filters, picture)] of each net)."""
    if not (tables or workdirs):
        return [], []
    from ser_jax.report import filters, transfer_figures

    studies = [study for path in _each_once(tables) for study in transfer_figures.read(path)]
    nets = [filters.read(workdir) for workdir in _each_once(workdirs)]
    return (
        [(each, transfer_figures.picture(each, f"transfer_{place}")) for place, each in enumerate(studies, 1)],
        [(each, filters.picture(each, f"filters_{place}")) for place, each in enumerate(nets, 1)],
    )


def _build(rows, logs, studies, maps, rebuilt, carried, sources, warnings, stem):
    """(text of the page, pictures, {ending of the name: CSV text})."""
    import jinja2
    import markupsafe

    from ser_jax.report import csv_table, curves, figures, layer_scores, layer_study, seeds, tables, transcripts, tsne

    found = layer_scores.read_scores(rows, [layer for each in studies for layer in each["study"].layers])
    scores = _draw_scores(found)
    drawn_as_curve = {row.number for each in found for row in each.rows}
    single = [row for row in rows if row.number in drawn_as_curve]
    several = [row for row in rows if row.number not in drawn_as_curve]
    metrics = figures.metric_pictures(several)
    confusions = [(row, tables.confusion(row), figures.confusion_picture(row)) for row in rows if row["confusion"]]
    drawn = [(log, figures.curves_picture(log, place)) for place, log in enumerate(logs, 1)]
    pictures = [*metrics, *(picture for *_, picture in confusions), *(picture for _, picture in drawn)]
    pictures += [picture for _, picture, _ in scores]
    for each in studies:
        pictures += [*each["maps"], each["curves"]]
    transfers, filters = carried
    pictures += [picture for _, picture, *_ in (*maps, *rebuilt, *transfers, *filters)]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["svg"] = lambda picture: markupsafe.Markup(picture.svg())
    script = Path(__file__).with_name(SCRIPT).read_text(encoding="utf-8") if studies else ""
    text = environment.get_template(TEMPLATE).render(
        t=tables,
        seeds=seeds,
        rows=rows,
        several=several,
        single=single,
        spread=any(tables.summary(row)["spread"] and not seeds.values(row) for row in several),
        seeded=any(seeds.values(row) for row in several),
        legend=tables.stamp_legend(rows),
        metrics=metrics,
        studies=studies,
        orders=layer_study.ORDERS,
        scores=scores,
        maps=maps,
        rebuilt=rebuilt,
        transfers=transfers,
        filters=filters,
        examples=transcripts.sentences(rows),
        confusions=confusions,
        curves=[(log, picture, curves.training(log)) for log, picture in drawn],
        sources=sources,
        warnings=warnings,
        stem=stem,
        contents=_contents(rows, sources, studies, maps, rebuilt, transfers, filters, logs),
        synthetic=sum(row.synthetic for row in rows),
        script=markupsafe.Markup(script),
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
    )
    csv = {"": csv_table.csv_text(rows)} if rows else {}
    for place, each in enumerate(studies, 1):
        csv[f"_layers_{place}"] = layer_study.cells(each["study"]).to_csv(index=False, float_format="%.6g")
    for place, (each, *_) in enumerate(maps, 1):
        csv[f"_tsne_{place}"] = tsne.as_csv(each)
    return (
        _encodable(text),
        [picture for picture in pictures if picture is not None],
        {ending: _encodable(table) for ending, table in csv.items()},
    )


def _draw_scores(found):
    """[(scores, picture, which layer is best)] of curves over the layers."""
    if not found:
        return []
    from ser_jax.report import layer_figures, layer_scores, tables

    drawn = []
    for place, scores in enumerate(found, 1):
        summary = []
        for metric, _, targets in scores.panels:
            for target, points in targets.items():
                best = layer_scores.best(points, metric)
                value = f"{tables.format_metric(metric, best.value)}{' %' if tables.unit(metric) else ''}"
                summary.append(f"{target}: best {metric} {value} at {best.layer}.")
        drawn.append((scores, layer_figures.scores_picture(scores, f"scores_{place}"), " ".join(summary)))
    return drawn


def _contents(rows, sources, studies, maps, rebuilt, transfers, filters, logs):
    """What the page holds, as texts for its first line."""

    def count(number, what):
        return f"{number} {what}{'' if number == 1 else 's'}"

    texts = [f"{count(len(rows), 'result')} from {count(len(sources), 'file')}"] if rows else []
    texts += [f"layer study of {count(len(studies), 'features file')}"] if studies else []
    texts += [count(len(maps), "t-SNE map")] if maps else []
    texts += [f"reconstructions by {count(len(rebuilt), 'autoencoder')}"] if rebuilt else []
    texts += [f"curves of {count(len(transfers), 'transfer direction')}"] if transfers else []
    texts += [f"filters of {count(len(filters), 'net')}"] if filters else []
    return texts + ([f"learning curves of {count(len(logs), 'pretraining run')}"] if logs else [])


def _encodable(text):
    """Text that UTF-8 can hold: JSON may carry half a surrogate pair, which it cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")
