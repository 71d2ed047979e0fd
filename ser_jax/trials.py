"""The chain of a paper whose figures are scores of its nets themselves: label frames -> pretrain -> evaluate, fold by fold.

Runs may start from others; each fold of each run is a job of its own (see `ser_jax.jobs`).
"""

import dataclasses
import fnmatch
import hashlib
import shlex
from pathlib import Path

from ser_jax import config, jobs, scored
from ser_jax.errors import UsageError
from ser_jax.files import canonical_hash, read_json

ROOT = Path(__file__).parents[1]
PARTS = ("dev", "test")


@dataclasses.dataclass(frozen=True)
class Trial:
    """One fold of a run: its workdir, the folders of its result rows by part, and the job that makes them (None: given)."""

    name: str
    workdir: Path
    scores: dict
    job: jobs.Job


class Trials:
    """Everything of one call, planned before anything is trained.

    Args:
      paper: papers.Paper with `scored`.
      corpora: {name: folder} of those at hand.
      workdirs: {name of a run without folds: finished run}.
      labels: {name: file of frame labels} that are taken as they are.
      sizes: {name: text}.
      out: folder.
      overrides: those of --set: "A.B=C" for every run, "RUN:A.B=C" for those whose name, or corpus, matches.
      step: checkpoint that is scored, and that others start from.
      reduced: whether the configs of the reduced size are taken.
    """

    def __init__(self, paper, corpora, *, workdirs, labels, sizes, out, overrides, step, reduced):
        self.paper, self.corpora, self.sizes, self.out, self.reduced = paper, corpora, sizes, out, reduced
        self.overrides, self.step, self.given, self.labels = overrides, step, workdirs, labels
        self._indices, self._label_jobs, self.trials = {}, {}, {}
        self.cells = [one for one in paper.scored if self._wanted(one)]
        if not self.cells:
            raise UsageError(f"nothing to do: no row of the paper fits --size rows={sizes.get('rows', '*')} and the corpora "
                             f"{', '.join(corpora)}; rows: {', '.join(dict.fromkeys(one.row for one in paper.scored))}")
        self._check_overrides()
        for one in self.cells:
            self._plan(one.run)

    def run(self, count):
        """Makes what is missing; returns ({Scored: (fold, result row) of each}, workdirs by run, of the first fold)."""
        todo = [*self._label_jobs.values(), *(trial.job for trials in self.trials.values() for trial in trials)]
        jobs.run_all(todo, count, self.out / "logs")
        return self._found(), {name: trials[0].workdir for name, trials in self.trials.items()}

    def _found(self):
        from ser_jax.results import read_rows

        read = {}
        found = {}
        for one in self.cells:
            folds = []
            for trial in self.trials[one.run]:
                folder = trial.scores[one.part]
                if folder not in read:
                    read[folder] = read_rows(folder)
                row = scored.find(read[folder], one)
                if row is None:
                    raise UsageError(f"{folder}: no {one.metric} per {one.unit} there, as the paper's file asks for")
                folds.append((trial.name, row))
            found[one] = folds
        return found

    def _wanted(self, one):
        patterns = [pattern.strip() for pattern in self.sizes.get("rows", "*").split(",")]
        names = (one.row, f"{one.table}: {one.row}")
        return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns) and self._possible(one.run)

    def _possible(self, name):
        run = self.paper.runs[name]
        return run.on in self.corpora and (not run.source or run.source in self.given or self._possible(run.source))

    # ------------------------------------------------------------ plan
    def _plan(self, name):
        """Adds the trials of a run, after those of its source."""
        if name in self.trials:
            return self.trials[name]
        run = self.paper.runs[name]
        source = self._plan(run.source)[0] if run.source else None
        corpus = self.corpora[run.on]
        folds = run.held_out.folds(self._index(run.on)[0], self.sizes)
        if name in self.given and len(folds) > 1:
            raise UsageError(f"--workdir {name}={self.given[name]}: this run has {len(folds)} folds; leave it out")
        self.trials[name] = [self._trial(name, run, fold, corpus, source) for fold in folds]
        return self.trials[name]

    def _trial(self, name, run, fold, corpus, source):
        place = f"{name}_{fold.name}" if fold.name else name
        workdir = self.given.get(name) or self.out / "runs" / place
        scores = {part: self.out / "scores" / place / part for part in PARTS}
        file, labelled, after = self._labels(run.labels)
        file_of_config = ROOT / (run.reduced if self.reduced else run.config)
        settings = [f"data.corpora={corpus}", *fold.settings, *([f"task.labels={file}"] if file else []),
                    *(text.format(**self.sizes) for text in run.settings), *self._asked(name, run)]
        if source:
            settings = [f"transfer.init_from={source.workdir}", f"transfer.step={self.step}", *settings]
            after = [*after, source.job]
        experiment = config.to_dict(config.load(file_of_config, settings))
        verbs = []
        if name not in self.given:
            verbs.append(f"pretrain {_q(file_of_config)} --workdir {_q(workdir)} " + " ".join(f"--set {_q(text)}" for text in settings))
        tests = {"dev": "--part dev", "test": fold.test.format(corpus=_q(corpus))}
        verbs += [f"evaluate {_q(workdir)} --step {self.step} {tests[part]} --out {_q(scores[part])}" for part in PARTS]
        depends = [canonical_hash(experiment), self._index(run.on)[1], labelled]
        job = jobs.Job(place, tuple(verbs), self.out / "scores" / place / "done.json", depends, tuple(after))
        return Trial(fold.name or name, workdir, scores, job)

    def _index(self, name):
        """(index, fingerprint) of a corpus."""
        if name not in self._indices:
            from ser_jax.data.prepared import PreparedCorpus

            corpus = PreparedCorpus(self.corpora[name])
            self._indices[name] = corpus.index, corpus.fingerprint
        return self._indices[name]

    def _labels(self, name):
        """(file, what it depends on, jobs that make it) of frame labels."""
        if not name:
            return None, None, []
        if name in self.labels:
            return self.labels[name], hashlib.sha256(self.labels[name].read_bytes()).hexdigest(), []
        wanted, file = self.paper.labels[name], self.out / "labels" / f"{name}.parquet"
        fingerprint = self._index(wanted.corpus)[1]
        self._label_jobs.setdefault(name, jobs.Job(
            f"labels/{name}", (f"align {_q(self.corpora[wanted.corpus])} --from {wanted.made} --out {_q(file)}",),
            self.out / "labels" / f"{name}.done.json", fingerprint))
        return file, fingerprint, [self._label_jobs[name]]

    # ------------------------------------------------------------ --set
    def _asked(self, name, run):
        """The overrides of the command line that this run shall have."""
        found = []
        for text in self.overrides:
            where, setting = scope(text)
            if not where or fnmatch.fnmatchcase(name, where) or where == run.on:
                found.append(setting)
        return found

    def _check_overrides(self):
        for text in self.overrides:
            where, setting = scope(text)
            if where and not any(fnmatch.fnmatchcase(name, where) or where == run.on for name, run in self.paper.runs.items()):
                raise UsageError(f"--set {text}: no run or corpus {where!r}; runs: {', '.join(self.paper.runs)}")


def scope(text):
    """("RUN", "A.B=C") of "RUN:A.B=C"; ("", text) of "A.B=C"."""
    key = text.partition("=")[0]
    where, colon, _ = key.rpartition(":")
    return (where, text[len(where) + 1:]) if colon else ("", text)


def synthetic(corpora):
    """Whether one of the prepared corpora is an embedded one."""
    return any(read_json(folder / "prepared.json")["synthetic"] for folder in corpora.values())


def _q(value):
    return shlex.quote(str(value))
