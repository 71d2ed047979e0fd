"""What a file in configs/papers/ says: a paper's chain of verbs, its table, and the figures that were published."""

import dataclasses
import importlib.util
from pathlib import Path

from ser_jax.errors import UsageError, suggestion
from ser_jax.held_out import Official, Rotation


@dataclasses.dataclass(frozen=True)
class Run:
    """A pretraining.

    Attributes:
      config: of the full size, relative to the root of the repository.
      reduced: config of the reduced size.
      reduced_corpora: {name of the folder: options of `prepare espeak`}, what the reduced size is pretrained on and, its
        split "test", evaluated on.
      on: key of `Paper.corpora`: pretrained on that corpus itself, not on the corpora of the config.
      held_out: `held_out.Official` or `held_out.Rotation`: which part of `on` is kept for dev and test; such a run is scored by
        `evaluate`, once for each fold, see `Scored`.
      labels: key of `Paper.labels`, the frame labels that its task needs.
      source: key of the run that it starts from (of its first fold, where it has several).
      settings: overrides of the config; "{name}" stands for one of `Paper.sizes`.
    """

    config: str
    reduced: str
    reduced_corpora: dict[str, str] = dataclasses.field(default_factory=dict)
    on: str = ""
    held_out: Official | Rotation | None = None
    labels: str = ""
    source: str = ""
    settings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Labelled:
    """A file of frame labels, made by `ser-jax align` unless it is there.

    Attributes:
      corpus: key of `Paper.corpora`.
      made: its option --from.
    """

    corpus: str
    made: str


@dataclasses.dataclass(frozen=True)
class Exported:
    """A features file.

    Attributes:
      corpus: key of `Paper.corpora`.
      run: key of `Paper.runs` whose checkpoint is applied, or "".
      options: more options of `ser-jax export`; "{name}" stands for one of `Paper.sizes`.
      fuse: keys of earlier files that are put side by side instead.
      needs: Python package without which the file is left out.
    """

    corpus: str
    run: str = ""
    options: str = ""
    fuse: tuple[str, ...] = ()
    needs: str = ""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One figure of a paper's table, and how ours is made.

    Attributes:
      table, row, column: where it stands.
      features: a key of `Paper.features`.
      probe: options of `ser-jax probe`, without its files; "{name}" stands for one of `Paper.sizes`.
      value, beside: the paper's figure and those beside it, as many as `Paper.beside`; None where its text has none.
      versus: row of the same table and column that is compared with, paired over speakers; it must come earlier.
      test_features: key of the features of another corpus that is tested, or "".
    """

    table: str
    row: str
    column: str
    features: str
    probe: str
    value: float | None = None
    beside: tuple[float | None, ...] = ()
    versus: str = ""
    test_features: str = ""

    @property
    def files(self):
        return [name for name in (self.features, self.test_features) if name]


@dataclasses.dataclass(frozen=True)
class Scored:
    """One figure of a paper's table that `ser-jax evaluate` gives for a run, over its folds.

    Attributes:
      table, row, column, value, versus: as those of `Cell`.
      run: key of `Paper.runs`.
      part: "dev" or "test".
      metric, unit: of the result row, e.g. "UAR" per "utterance".
      complement: the paper's figure is what is missing to 1.
    """

    table: str
    row: str
    column: str
    run: str
    part: str
    metric: str
    unit: str
    value: float | None = None
    complement: bool = False
    versus: str = ""


@dataclasses.dataclass(frozen=True)
class Paper:
    """A paper's chain.

    Attributes:
      name: of the folder that is written.
      citation: one line.
      runs: pretrainings by name, in the order in which they are made.
      corpora: {name of an emotion corpus: options of `prepare espeak` for what stands in for it at the reduced size}.
      features: features files by name, in the order in which they are made.
      sizes, reduced_sizes: what "{name}" in options stands for.
      statistic: what is shown beside the paper's figure: "value" of a result row, or a field of its `secondary`.
      beside: (heading, field of `secondary`) of what stands beside it.
      cells: in the order in which they are run and shown.
      labels: files of frame labels by name.
      scored: figures of runs with `held_out`; the size "rows", shell patterns of ROW or "TABLE: ROW" with commas between, says
        which of them are made.
      figures: (option of `ser-jax report`, key of `runs`, or "" for the table) of such a paper.
      for_the_page: (features, options of `ser-jax probe`) of rows that the page shows and the table does not.
      pictures: (option of `ser-jax report`, key of `features` or `corpora`) for the page.
      remarks: lines for the reader.
    """

    name: str
    citation: str
    runs: dict[str, Run]
    corpora: dict[str, str]
    features: dict[str, Exported] = dataclasses.field(default_factory=dict)
    statistic: str = "value"
    beside: tuple[tuple[str, str], ...] = ()
    cells: tuple[Cell, ...] = ()
    labels: dict[str, Labelled] = dataclasses.field(default_factory=dict)
    scored: tuple[Scored, ...] = ()
    figures: tuple[tuple[str, str], ...] = ()
    sizes: dict[str, str] = dataclasses.field(default_factory=dict)
    reduced_sizes: dict[str, str] = dataclasses.field(default_factory=dict)
    for_the_page: tuple[tuple[str, str], ...] = ()
    pictures: tuple[tuple[str, str], ...] = ()
    remarks: tuple[str, ...] = ()


def load(path):
    """The `Paper` of a file with a function `paper()`.

    Raises:
      UsageError: no such file, or no such function in it.
    """
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


def header(paper):
    """Names of the columns of the paper's table."""
    headings = [heading for heading, _ in paper.beside]
    return ["table", "set", "target", "paper", *(f"paper {name}" for name in headings), "ours",
            *(f"ours {name}" for name in headings), "ours − paper", "pooled", "95% CI low", "95% CI high", "n", "speakers",
            "seeds", "versus", "pooled difference", "p", "stamps"]


def table(paper, rows):
    """Lines of the table, one for each result row: dicts with the keys of `header`; numbers, text or None.

    Args:
      rows: {Cell: its result rows, the honest one first}; a cell that is missing was not run.
    """
    lines, columns = [], header(paper)
    for cell in paper.cells:
        found = rows.get(cell)
        published = {"table": cell.table, "set": cell.row, "target": cell.column, "paper": cell.value}
        for i, (heading, _) in enumerate(paper.beside):
            published[f"paper {heading}"] = cell.beside[i] if i < len(cell.beside) else None
        if not found:
            lines.append(dict.fromkeys(columns) | published | {"stamps": "NOT RUN"})
        for number, row in enumerate(found or ()):
            ours = row["value"] if paper.statistic == "value" else row["secondary"].get(paper.statistic)
            versus = (row.get("versus") or {}) if number == 0 else {}  # the other side is an honest row
            # A historical leak is beside the honest figure, never instead of it.
            named = published if number == 0 else published | {"set": f"{cell.row}, {row['head']}"}
            gap = ours - cell.value if cell.value is not None and ours is not None and number == 0 else None
            lines.append(dict.fromkeys(columns) | named | {
                "ours": ours, **{f"ours {heading}": row["secondary"].get(field) for heading, field in paper.beside},
                "ours − paper": gap, "pooled": row["value"], "95% CI low": row["ci"][0], "95% CI high": row["ci"][1],
                "n": row["n"], "speakers": row["n_speakers"], "seeds": len(row.get("seeds") or ()) or None,
                "versus": cell.versus if versus else None, "pooled difference": versus.get("difference"),
                "p": versus.get("p_value"), "stamps": " ".join(row["stamps"])})
    return lines
