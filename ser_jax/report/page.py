"""Renders result rows as one self-contained HTML page, with a CSV of all rows and PNG figures beside it."""

import sys
from pathlib import Path

from ser_jax import files
from ser_jax.errors import DONE, UsageError, UserError

EXAMPLE = "ser-jax report work/results.jsonl --workdir work/sample_cnn --out report.html"
TEMPLATE = "page.html.j2"


def add_arguments(parser):
    parser.add_argument(
        "results",
        nargs="+",
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
        "--out",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="the page; FILE with .csv and _*.png goes beside it (default report.html)",
    )


def run(args):
    page, warnings = render(args.results, args.workdir, args.out)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(page)
    return DONE


def render(results, workdirs, out):
    """Writes the page `out`, `<stem>.csv` and `<stem>_*.png`. Equal input files give equal output files.

    Args:
      results: paths of results.jsonl files or of folders that hold some.
      workdirs: work folders of pretraining whose learning curves to show.
      out: path of the page, ending in .html.

    Returns:
      (path of the page, warnings).

    Raises:
      UserError: input is missing or malformed (the message names file and line), or the output cannot be written.
    """
    from ser_jax.report import rows as reading

    out = Path(out)
    if out.suffix.lower() not in (".html", ".htm") or out.is_dir():
        raise UsageError(f"--out {out}: give the name of an .html file")
    rows, sources, warnings = reading.read_rows(results)
    logs, more = reading.read_logs(workdirs)
    warnings += more
    text, pictures, table = _build(rows, logs, sources, warnings, out.stem)
    try:
        for picture in pictures:
            with files.atomic_path(out.with_name(f"{out.stem}_{picture.name}.png")) as temporary:
                temporary.write_bytes(picture.png)
        files.write_text(out.with_suffix(".csv"), table)
        files.write_text(out, text)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror})") from error
    return out, warnings


def _build(rows, logs, sources, warnings, stem):
    import jinja2
    import markupsafe

    from ser_jax.report import curves, figures, tables

    metrics = figures.metric_pictures(rows)
    confusions = [(row, tables.confusion(row), figures.confusion_picture(row)) for row in rows if row["confusion"]]
    drawn = [(log, figures.curves_picture(log, place)) for place, log in enumerate(logs, 1)]
    pictures = [*metrics, *(picture for *_, picture in confusions), *(picture for _, picture in drawn)]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["svg"] = lambda picture: markupsafe.Markup(picture.svg())
    text = environment.get_template(TEMPLATE).render(
        t=tables,
        rows=rows,
        groups=tables.headline(rows),
        legend=tables.stamp_legend(rows),
        metrics=metrics,
        confusions=confusions,
        curves=[(log, picture, curves.training(log)) for log, picture in drawn],
        sources=sources,
        warnings=warnings,
        stem=stem,
        synthetic=sum(row.synthetic for row in rows),
    )
    return _encodable(text), [picture for picture in pictures if picture is not None], _encodable(tables.csv_text(rows))


def _encodable(text):
    """Text that UTF-8 can hold: JSON may carry half a surrogate pair, which it cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")
