"""A paper's table in one command: pretrain -> export -> probe, then the paper's figures beside ours.

Without --corpus everything runs on the embedded corpus, at a reduced size and in a few minutes; its figures are stamped
SYNTHETIC. With --corpus (a prepared emotion corpus) the paper's full-size pretraining runs first, unless --workdir names a
finished run. Every step is a verb of the command, printed as you would type it; an interrupted pretraining continues.
"""

import csv
import dataclasses
import importlib.util
import shlex
import time
from pathlib import Path

from ser_jax.errors import DONE, FAILED, SAVED, UsageError, UserError, suggestion
from ser_jax.progress import format_seconds

EXAMPLE = "ser-jax reproduce configs/papers/tits2018.py --corpus prepared/iemocap --workdir runs/wavenet_union --out tits2018"
ROOT = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One figure of a paper's table, and how ours is made.

    Attributes:
      table, row, column: where it stands.
      features: a key of `Paper.features`.
      probe: options of `ser-jax probe`, without --features and --out; "{name}" stands for one of `Paper.sizes`.
      value, spread: the paper's figure and the number after it; None where the paper's text has none.
      versus: row of the same table and column that is compared with, paired over speakers; it must come earlier.
    """

    table: str
    row: str
    column: str
    features: str
    probe: str
    value: float | None = None
    spread: float | None = None
    versus: str = ""


@dataclasses.dataclass(frozen=True)
class Paper:
    """A paper's chain.

    Attributes:
      name: of the folder that is written.
      citation: one line.
      pretraining: config of the full size, relative to the root of the repository.
      reduced: config of the reduced size.
      reduced_corpora: {name of the folder: options of `prepare espeak`}, what the reduced size is pretrained on and, its
        split "test", evaluated on.
      reduced_corpus: options of `prepare espeak` for the emotion corpus of the reduced size.
      features: {name: options of `ser-jax export`}; "{workdir}" stands for the run.
      needs: {name of features: Python package without which they are left out}.
      sizes, reduced_sizes: numbers in the options of the probes that go with the size of the net.
      statistic, spread: fields of `secondary` in a result row that the table shows.
      cells: in the order in which they are run and shown.
      for_the_page: (features, options of `ser-jax probe`) of rows that the page shows and the table does not.
      map_features: the features whose correlations with the labels are drawn, or "".
      remarks: lines for the reader.
    """

    name: str
    citation: str
    pretraining: str
    reduced: str
    reduced_corpora: dict[str, str]
    reduced_corpus: str
    features: dict[str, str]
    statistic: str
    spread: str
    cells: tuple[Cell, ...]
    sizes: dict[str, int] = dataclasses.field(default_factory=dict)
    reduced_sizes: dict[str, int] = dataclasses.field(default_factory=dict)
    needs: dict[str, str] = dataclasses.field(default_factory=dict)
    for_the_page: tuple[tuple[str, str], ...] = ()
    map_features: str = ""
    remarks: tuple[str, ...] = ()


def add_arguments(parser):
    parser.add_argument("paper", help="file in configs/papers/")
    parser.add_argument("--corpus", type=Path, help="prepared emotion corpus; default: the embedded one, reduced size, SYNTHETIC")
    parser.add_argument("--workdir", type=Path, help="pretraining run to take; default: pretrain (or continue) OUT/run")
    parser.add_argument("--step", default="best", help="checkpoint: best (default), last, or a number of steps")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", dest="overrides",
                        help="override a field of the pretraining config, e.g. data.corpora=FOLDER; may be repeated")
    parser.add_argument("--out", type=Path, help="folder for everything that is made (default: the name of the paper)")


def run(args):
    paper = load(args.paper)
    if args.workdir and args.overrides:
        raise UsageError("--set changes the pretraining, and --workdir names a run that is taken as it is; give one of them")
    for option, folder, file in (("--corpus", args.corpus, "prepared.json"), ("--workdir", args.workdir, "config.json")):
        if folder is not None and not (folder / file).is_file():
            raise UsageError(f"{option} {folder}: no {file} there; make one with `ser-jax prepare` or `ser-jax pretrain`")
    out, reduced = args.out or Path(paper.name), args.corpus is None
    begin = time.monotonic()
    corpus = args.corpus or out / "prepared" / "emotions"
    workdir = args.workdir or out / "run"
    if reduced:
        _verb(f"prepare espeak {paper.reduced_corpus} --out {_q(corpus)}")
    if args.workdir is None:
        _pretrain(paper, workdir, args.overrides, reduced, out)
    results, rows = out / f"results_{paper.name}" / "results.jsonl", {}  # a folder of our own: it is emptied of older rows
    results.unlink(missing_ok=True)  # a second call must not list the rows of the first
    if args.workdir is None:
        parts = "".join(f" --corpus {_q(folder)}" for folder in _folders(paper, out)) + " --split test" if reduced else ""
        _verb(f"evaluate {_q(workdir)} --step {args.step}{parts} --out {_q(results.parent)}", tolerated=DONE if reduced else FAILED)
    features = {}
    for name, options in paper.features.items():
        if name in paper.needs and importlib.util.find_spec(paper.needs[name]) is None:
            print(f"\n{name}: left out, the package {paper.needs[name]} is not installed (extra [{paper.needs[name]}])")
            continue
        features[name] = out / "features" / f"{name}.parquet"
        _verb(f"export --corpus {_q(corpus)} --out {_q(features[name])} "
              + options.format(workdir=f"--workdir {_q(workdir)} --step {args.step}"))
    for cell in paper.cells:
        if cell.features in features:
            options = cell.probe.format(**(paper.reduced_sizes if reduced else paper.sizes))
            rows[cell] = _probe(cell, options, features[cell.features], results, rows)
    for name, options in paper.for_the_page:
        if name in features:
            _verb(f"probe --features {_q(features[name])} {options} --out {_q(results.parent)}")
    lines = table(paper, rows)
    _write(out, paper, lines)
    maps = f" --layer-study {_q(features[paper.map_features])}" if paper.map_features in features else ""
    _verb(f"report {_q(results)} --workdir {_q(workdir)}{maps} --out {_q(out / 'report.html')}")
    _print(paper, lines, out, time.monotonic() - begin)
    return DONE


def load(path):
    """The `Paper` of a file with a function `paper()`."""
    path = Path(path)
    if not path.is_file() or path.suffix != ".py":
        there = [str(near) for near in Path("configs/papers").glob("*.py")]
        raise UsageError(f"no paper file {path}{suggestion(path, there)}; configs/papers/ has those of the project")
    spec = importlib.util.spec_from_file_location(f"ser_jax_paper_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "paper"):
        raise UsageError(f"{path} has no function paper() that returns a Paper")
    return module.paper()


def _pretrain(paper, workdir, overrides, reduced, out):
    config = ROOT / (paper.reduced if reduced else paper.pretraining)
    if reduced:
        folders = _folders(paper, out)
        for folder, options in zip(folders, paper.reduced_corpora.values(), strict=True):
            _verb(f"prepare espeak {options} --out {_q(folder)}")
        overrides = [f"data.corpora={','.join(map(str, folders))}", *overrides]
    _verb(f"pretrain {_q(config)} --workdir {_q(workdir)} " + " ".join(f"--set {_q(item)}" for item in overrides))


def _folders(paper, out):
    """Where the corpora of the reduced pretraining are."""
    return [out / "prepared" / name for name in paper.reduced_corpora]


def _verb(line, tolerated=DONE):
    """Runs a verb; `tolerated`: an exit code that does not end the chain (a run without held-out part has no score)."""
    from ser_jax import cli

    print(f"\n$ ser-jax {line}", flush=True)
    code = cli.main(shlex.split(line))
    if code not in (DONE, tolerated):
        what = "saved its state" if code == SAVED else f"ended with {code}; mend that"
        raise Stopped(f"the step above {what}; run the same command again", code)


class Stopped(UserError):
    """A step of the chain did not end well; the chain ends with its exit code."""

    def __init__(self, message, code):
        super().__init__(message)
        self.exit_code = code


def _probe(cell, options, features, results, rows):
    """Runs the probe of a cell; returns its result rows: the honest one, and one with a historical leak where asked for."""
    from ser_jax.results import read_rows

    before = len(read_rows(results)) if results.exists() else 0
    other = next((found for known, found in rows.items()
                  if (known.table, known.row, known.column) == (cell.table, cell.versus, cell.column)), None)
    versus = f" --versus {_q(results.parent / other[0]['predictions'])}" if other else ""
    _verb(f"probe --features {_q(features)} {options}{versus} --out {_q(results.parent)}")
    return read_rows(results)[before:]


HEADER = ("table", "set", "target", "paper", "paper ±", "ours", "ours ±", "ours − paper", "pooled", "95% CI low", "95% CI high",
          "n", "speakers", "versus", "pooled difference", "p", "stamps")


def table(paper, rows):
    """Lines of the table, one for each result row: dicts with the keys of HEADER; numbers or None."""
    lines = []
    for cell in paper.cells:
        found = rows.get(cell)
        published = {"table": cell.table, "set": cell.row, "target": cell.column, "paper": cell.value, "paper ±": cell.spread}
        if not found:
            lines.append(dict.fromkeys(HEADER) | published | {"stamps": "NOT RUN"})
        for number, row in enumerate(found or ()):
            ours = row["secondary"].get(paper.statistic)
            versus = (row.get("versus") or {}) if number == 0 else {}  # the other side is an honest row
            # The leak is what the paper's text reads like; its figure is beside the honest one, never instead of it.
            named = published if number == 0 else published | {"set": f"{cell.row}, {row['head']}"}
            gap = ours - cell.value if cell.value is not None and ours is not None and number == 0 else None
            lines.append(dict.fromkeys(HEADER) | named | {
                "ours": ours, "ours ±": row["secondary"].get(paper.spread), "ours − paper": gap, "pooled": row["value"],
                "95% CI low": row["ci"][0], "95% CI high": row["ci"][1], "n": row["n"], "speakers": row["n_speakers"],
                "versus": cell.versus if versus else None, "pooled difference": versus.get("difference"), "p": versus.get("p_value"),
                "stamps": " ".join(row["stamps"])})
    return lines


def _write(out, paper, lines):
    from ser_jax.files import atomic_path

    with atomic_path(out / "table.csv") as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, HEADER)
        writer.writeheader()
        writer.writerows(lines)


def _print(paper, lines, out, seconds):
    from ser_jax.results import print_table

    print(f"\n{paper.citation}")
    print(f"paper, ours: {paper.statistic.replace('_', ' ')} ± {paper.spread.replace('_', ' ')}; pooled: over all predictions, "
          "with its interval over speakers; p: permutation test over speakers\n")
    texts = [[f"{line[key]:.3f}" if isinstance(line[key], float) else line[key] for key in HEADER] for line in lines]
    print_table(HEADER, texts)
    print()
    for remark in paper.remarks:
        print(f"- {remark}")
    print(f"\ntable  {out / 'table.csv'}\npage   {out / 'report.html'}\nin     {format_seconds(seconds)}")


def _q(value):
    return shlex.quote(str(value))
