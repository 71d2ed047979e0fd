"""A paper's table in one command: pretrain -> export -> probe, then the paper's figures beside ours.

Without --corpus everything runs on the embedded corpus, at a reduced size and in a few minutes; its figures are stamped
SYNTHETIC. With --corpus (a prepared emotion corpus) the paper's full-size pretraining runs first, unless --workdir names a
finished run. Every step is a verb of the command, printed as you would type it; an interrupted pretraining continues. A paper of many runs
can train several at a time (--jobs).
"""

import csv
import importlib.util
import shlex
import time
from pathlib import Path

from ser_jax import papers
from ser_jax.errors import DONE, FAILED, UsageError, suggestion
from ser_jax.jobs import verb
from ser_jax.progress import format_seconds

EXAMPLE = "ser-jax reproduce configs/papers/tits2018.py --corpus prepared/iemocap --workdir runs/wavenet_union --out tits2018"
ROOT = Path(__file__).parents[1]


def add_arguments(parser):
    parser.add_argument("paper", help="file in configs/papers/")
    parser.add_argument("--corpus", action="append", default=[], metavar="[NAME=]DIR",
                        help="prepared emotion corpus, with its name in the paper where there are several (NAME=DIR, may be "
                             "repeated); default: the embedded one, reduced size, SYNTHETIC")
    parser.add_argument("--workdir", action="append", default=[], metavar="[NAME=]DIR",
                        help="pretraining run to take, with its name in the paper where there are several; default: pretrain "
                             "(or continue) OUT/runs/NAME")
    parser.add_argument("--step", default="best", help="checkpoint: best (default), last, or a number of steps")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", dest="overrides",
                        help="override a field of the pretraining configs, e.g. data.corpora=FOLDER; RUN:A.B=C: of some runs "
                             "only, by their name, a pattern or their corpus; may be repeated")
    parser.add_argument("--size", action="append", default=[], metavar="NAME=VALUE",
                        help="one of the sizes that the paper's file names, e.g. folds=3; may be repeated")
    parser.add_argument("--labels", action="append", default=[], metavar="[NAME=]FILE",
                        help="frame labels to take, where the paper needs some; default: OUT/labels/NAME.parquet, made by `align`")
    parser.add_argument("--jobs", type=int, default=1, metavar="N",
                        help="train N runs at a time, where the paper has many: as processes, each on a GPU, or on a share of the "
                             "CPU cores, of its own, with a log in OUT/logs (default: 1, in this process)")
    parser.add_argument("--out", type=Path, help="folder for everything that is made (default: the name of the paper)")


def run(args):
    paper = papers.load(args.paper)
    corpora, workdirs = _named("--corpus", args.corpus, paper.corpora), _named("--workdir", args.workdir, paper.runs)
    if args.overrides and set(workdirs) == set(paper.runs):
        raise UsageError("--set changes the pretraining, and --workdir names a run that is taken as it is; give one of them")
    if len(paper.runs) > 1 and any(item.startswith("data.corpora=") for item in args.overrides):
        raise UsageError("--set data.corpora: the pretrainings of this paper differ in just that; take finished runs by "
                         "--workdir NAME=DIR")
    for option, folders, file, maker in (("--corpus", corpora, "prepared.json", "prepare"),
                                        ("--workdir", workdirs, "config.json", "pretrain")):
        for folder in folders.values():
            if not (folder / file).is_file():
                raise UsageError(f"{option} {folder}: no {file} there; make one with `ser-jax {maker}`")
    sizes = _sizes(paper, args.size, reduced=not corpora)
    if args.jobs < 1:
        raise UsageError(f"--jobs {args.jobs}: must be at least 1")
    if paper.scored:
        return _run_trials(paper, corpora, workdirs, sizes, args)
    for option, given in (("--jobs", args.jobs > 1), ("--labels", args.labels)):
        if given:
            raise UsageError(f"{option}: this paper has no runs that it is for; leave it out")
    return _Chain(paper, corpora, workdirs, sizes, args).run()


def _sizes(paper, assignments, reduced):
    """The sizes of the paper's file, or of its reduced form, with those of --size put in."""
    sizes = dict(paper.reduced_sizes if reduced else paper.sizes)
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or name not in sizes:
            raise UsageError(f"--size {assignment}: write NAME=VALUE{suggestion(name, sizes)}; sizes of this paper: "
                             f"{', '.join(f'{name}={value}' for name, value in sizes.items()) or 'none'}")
        sizes[name] = value
    return sizes


def _run_trials(paper, corpora, workdirs, sizes, args):
    """The chain of a paper whose figures are scores of its runs."""
    from ser_jax import results, scored
    from ser_jax.trials import Trials

    begin, out, reduced = time.monotonic(), args.out or Path(paper.name), not corpora
    labels = _named("--labels", args.labels, paper.labels)
    for name, file in labels.items():
        if not file.is_file():
            raise UsageError(f"--labels {name}={file}: no such file; make it with `ser-jax align`, or leave the option out")
    if reduced:
        for name, options in paper.corpora.items():
            corpora[name] = out / "prepared" / name
            verb(f"prepare espeak {options} --out {_q(corpora[name])}")
    trials = Trials(paper, corpora, workdirs=workdirs, labels=labels, sizes=sizes, out=out, overrides=args.overrides,
                    step=args.step, reduced=reduced)
    folds, runs = trials.run(args.jobs)
    lines, table, folder = scored.table(paper.scored, folds), out / "table.csv", out / f"results_{paper.name}"
    _write(table, scored.COLUMNS, lines)
    (folder / "results.jsonl").unlink(missing_ok=True)  # a second call must not list the rows of the first
    drawn = set()
    for one in paper.scored:
        if one in folds:
            confusion = one.part == "test" and (one.run, one.unit) not in drawn  # once, not for every metric
            drawn |= {(one.run, one.unit)} if confusion else set()
            results.append_row(folder / "results.jsonl", scored.result(one, folds[one], f"{one.table}: {one.row}", confusion))
    shown = "".join(f" {option} {_q(runs[name] if name else table)}" for option, name in paper.figures if not name or name in runs)
    verb(f"report {_q(folder)}{shown} --out {_q(out / 'report.html')}")
    print(f"\n{paper.citation}")
    print("ours: mean over the folds; pooled: over all of them, with its interval over speakers; difference: to the row "
          "named, paired over speakers\n")
    _print_lines(scored.COLUMNS, lines, paper)
    print(f"\ntable  {table}\npage   {out / 'report.html'}\nin     {format_seconds(time.monotonic() - begin)}")
    return DONE


def _named(option, values, known):
    """{name: folder} of an option that says NAME=DIR, or just DIR where there is one name."""
    found = {}
    for value in values:
        name, equals, folder = value.partition("=")
        if not equals and len(known) == 1:
            name, folder = next(iter(known)), value
        if name not in known or not folder:
            raise UsageError(f"{option} {value}: write NAME=DIR{suggestion(name, known)}; names of this paper: {', '.join(known)}")
        found[name] = Path(folder)
    return found


class _Chain:
    """The verbs of one call, in their order. `corpora`: the emotion corpora at hand; `workdirs`: finished runs by name."""

    def __init__(self, paper, corpora, workdirs, sizes, args):
        self.paper, self.args, self.reduced = paper, args, not corpora
        self.out = args.out or Path(paper.name)
        self.sizes = sizes
        self.corpora = corpora or {name: self.out / "prepared" / name for name in paper.corpora}
        self.given, self.workdirs, self.features = set(workdirs), dict(workdirs), {}
        self.results = self.out / f"results_{paper.name}" / "results.jsonl"  # a folder of our own: older rows are removed

    def run(self):
        begin = time.monotonic()
        if self.reduced:
            for name, options in self.paper.corpora.items():
                self._prepare_embedded(name, options)
        runs = {item.run for item in self.paper.features.values() if item.run and item.corpus in self.corpora}
        for name, run in self.paper.runs.items():
            if name in runs and name not in self.given and (not run.on or run.on in self.corpora):
                self._pretrain(name, run)
        self.results.unlink(missing_ok=True)  # a second call must not list the rows of the first
        for name in self.workdirs:
            if name not in self.given:
                self._evaluate(name)
        for name, item in self.paper.features.items():
            self._export(name, item)
        rows = {}
        for cell in self.paper.cells:
            if all(name in self.features for name in cell.files):
                rows[cell] = self._probe(cell, rows)
        for name, options in self.paper.for_the_page:
            if name in self.features:
                verb(f"probe --features {_q(self.features[name])} {options.format(**self.sizes)} --out {_q(self.results.parent)}")
        lines = papers.table(self.paper, rows)
        _write(self.out / "table.csv", papers.header(self.paper), lines)
        self._report()
        _print(self.paper, lines)
        print(f"\ntable  {self.out / 'table.csv'}\npage   {self.out / 'report.html'}\nin     "
              f"{format_seconds(time.monotonic() - begin)}")
        return DONE

    def _prepare_embedded(self, name, options):
        verb(f"prepare espeak {options} --out {_q(self.out / 'prepared' / name)}")

    def _pretrain(self, name, run):
        """Pretrains one run. The workdir of a run that a later one shares its corpora with is its own all the same."""
        self.workdirs[name] = self.out / "runs" / name
        overrides = list(self.args.overrides)
        if run.on:
            overrides += [f"data.corpora={self.corpora[run.on]}", "data.splits=", "data.eval_splits=", "data.holdout=0"]
        elif self.reduced:
            for folder, options in run.reduced_corpora.items():
                self._prepare_embedded(folder, options)
            overrides.insert(0, f"data.corpora={','.join(map(str, self._heard(run)))}")
        config = ROOT / (run.reduced if self.reduced else run.config)
        verb(f"pretrain {_q(config)} --workdir {_q(self.workdirs[name])} " + " ".join(f"--set {_q(item)}" for item in overrides))

    def _heard(self, run):
        """Folders of the embedded corpora that a reduced run is pretrained on."""
        return [self.out / "prepared" / folder for folder in run.reduced_corpora]

    def _evaluate(self, name):
        run = self.paper.runs[name]
        if run.on:  # it has heard all there is
            return
        parts = "".join(f" --corpus {_q(folder)}" for folder in self._heard(run)) + " --split test" if self.reduced else ""
        verb(f"evaluate {_q(self.workdirs[name])} --step {self.args.step}{parts} --out {_q(self.results.parent)}",
              tolerated=DONE if self.reduced else FAILED)

    def _export(self, name, item):
        if item.corpus not in self.corpora or (item.run and item.run not in self.workdirs):
            return
        if any(part not in self.features for part in item.fuse):
            return
        if item.needs and importlib.util.find_spec(item.needs) is None:
            print(f"\n{name}: left out, the package {item.needs} is not installed (extra [{item.needs}])")
            return
        self.features[name] = self.out / "features" / f"{name}.parquet"
        if item.fuse:
            made = "--fuse " + " ".join(_q(self.features[part]) for part in item.fuse)
        else:
            made = f"--corpus {_q(self.corpora[item.corpus])}"
            made += f" --workdir {_q(self.workdirs[item.run])} --step {self.args.step}" if item.run else ""
        verb(f"export {made} --out {_q(self.features[name])} {item.options.format(**self.sizes)}")

    def _probe(self, cell, rows):
        """Result rows of a cell: the honest one, and one with a historical leak where asked for."""
        from ser_jax.results import read_rows

        before = len(read_rows(self.results)) if self.results.exists() else 0
        other = next((found for known, found in rows.items()
                      if (known.table, known.row, known.column) == (cell.table, cell.versus, cell.column)), None)
        versus = f" --versus {_q(self.results.parent / other[0]['predictions'])}" if other else ""
        tested = f" --test-features {_q(self.features[cell.test_features])}" if cell.test_features else ""
        verb(f"probe --features {_q(self.features[cell.features])}{tested} {cell.probe.format(**self.sizes)}{versus} "
              f"--out {_q(self.results.parent)}")
        return read_rows(self.results)[before:]

    def _report(self):
        shown = "".join(f" --workdir {_q(workdir)}" for workdir in self.workdirs.values())
        for option, name in self.paper.pictures:
            file = self.features.get(name) or self.corpora.get(name)
            shown += f" {option} {_q(file)}" if file else ""
        verb(f"report {_q(self.results)}{shown} --out {_q(self.out / 'report.html')}")


def _write(path, columns, lines):
    from ser_jax.files import atomic_path

    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(lines)


def _print(paper, lines):
    beside = ", ".join(f"{heading} = {field.replace('_', ' ')}" for heading, field in paper.beside)
    print(f"\n{paper.citation}")
    print(f"paper, ours: {paper.statistic.replace('_', ' ')} ({beside}); pooled: over all predictions, with its interval over "
          "speakers; p: permutation test over speakers\n")
    _print_lines(papers.header(paper), lines, paper)


def _print_lines(columns, lines, paper):
    from ser_jax.results import print_table

    print_table(columns, [[f"{line[key]:.3f}" if isinstance(line[key], float) else line[key] for key in columns] for line in lines])
    print()
    for remark in paper.remarks:
        print(f"- {remark}")


def _q(value):
    return shlex.quote(str(value))
