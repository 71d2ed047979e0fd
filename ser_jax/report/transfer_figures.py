"""Curves of a transfer study: a metric against the number of layers held constant, the paper's beside ours."""

import csv
import dataclasses
import re
from pathlib import Path

from ser_jax.errors import UserError
from ser_jax.report.drawing import ACCENT, INK, MUTED, PAPER, WARN, Picture, clean, stack, style

NEEDED = ("table", "set", "target", "part", "paper", "pooled", "95% CI low", "95% CI high", "versus", "stamps")
PART = "test"  # what the curves show; dev has chosen the checkpoints


@dataclasses.dataclass(frozen=True)
class Point:
    """One row of the table at one number of layers (None: the baseline); shares of 1 or None."""

    layers: int | None
    paper: float | None
    ours: float | None
    interval: tuple[float, float] | None


@dataclasses.dataclass(frozen=True)
class Study:
    """One direction of transfer: {target: its Points in rising order of layers, the baseline first if there is one}."""

    file: str
    name: str
    panels: dict
    synthetic: bool


def read(path):
    """The studies in a table.csv of `ser-jax reproduce`.

    Raises:
      UserError: no such file, columns missing, no row with a number of layers.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--transfer {path}: cannot be read ({error})") from None
    missing = [name for name in NEEDED if not lines or name not in lines[0]]
    if missing:
        raise UserError(f"--transfer {path}: no column {missing[0]!r}; give the table.csv of `ser-jax reproduce` of a transfer study")
    try:
        studies = [_study(path, name, [line for line in lines if line["table"] == name and line["part"] == PART])
                   for name in dict.fromkeys(line["table"] for line in lines)]
    except ValueError as error:
        raise UserError(f"--transfer {path}: {error}") from None
    studies = [study for study in studies if study.panels]
    if not studies:
        raise UserError(f"--transfer {path}: no row such as l=3 that says how many layers are held constant")
    return studies


def _study(path, name, lines):
    panels = {}
    for target in dict.fromkeys(line["target"] for line in lines):
        of_target = [line for line in lines if line["target"] == target]
        bases = {line["versus"] for line in of_target} - {""}
        points = []
        for line in of_target:
            found = re.fullmatch(r"\w+\s*=\s*(\d+)", line["set"])
            if found or line["set"] in bases:
                points.append(_point(line, int(found.group(1)) if found else None))
        points.sort(key=lambda point: -1 if point.layers is None else point.layers)
        if any(point.layers is not None and (point.paper is not None or point.ours is not None) for point in points):
            panels[target] = points
    return Study(Path(path).name, name, panels, any("SYNTHETIC" in line["stamps"] for line in lines))


def _point(line, layers):
    paper, ours, low, high = (float(line[name]) if line[name] else None for name in ("paper", "pooled", "95% CI low", "95% CI high"))
    return Point(layers, paper, ours, None if low is None or high is None else (low, high))


def picture(study, name):
    """The figure of a Study: a panel for each target."""
    with style():
        figure, boxes = stack([1.55] * len(study.panels), above=0.42, below=0.42, left=0.52, right=0.14, bottom=0.05)
        for (target, points), box in zip(study.panels.items(), boxes, strict=True):
            _panel(figure.add_axes(box), f"{study.name}: {target}", points, study.synthetic)
        text = (f"{clean(study.name)}: {', '.join(map(clean, study.panels))} on the test part against the number of layers "
                "that are held constant, ours with intervals and the paper's; the numbers are in the table.")
        return Picture(figure, text, name)


def _panel(axes, title, points, synthetic):
    from matplotlib.ticker import FuncFormatter

    colour = WARN if synthetic else ACCENT
    base = next((point for point in points if point.layers is None), None)
    curve = [point for point in points if point.layers is not None]
    if base and base.ours is not None:
        axes.axhline(base.ours, color=colour, lw=1)
    if base and base.paper is not None:
        axes.axhline(base.paper, color=MUTED, lw=1, ls=":")
    theirs = [(point.layers, point.paper) for point in curve if point.paper is not None]
    if theirs:
        axes.plot(*zip(*theirs), "s--", color=MUTED, ms=4, lw=1.2)
    ours = [point for point in curve if point.ours is not None]
    for point in ours:
        if point.interval:
            axes.plot([point.layers] * 2, point.interval, color=colour, lw=2, alpha=0.55, solid_capstyle="butt")
    axes.plot([point.layers for point in ours], [point.ours for point in ours], "o-", color=colour, ms=6,
              mfc=PAPER if synthetic else colour, mew=1.6, lw=1.6)
    layers = [point.layers for point in curve]
    axes.set(xticks=layers, xlim=(min(layers) - 0.25, max(layers) + 0.25))
    axes.set_ylim(0, 1.05 * max(value for point in points for value in (point.ours, point.paper, *(point.interval or ()))
                                if value is not None))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f}"))
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.set_xlabel("layers held constant", fontsize=8.5, labelpad=1)
    beside = {"xycoords": "axes fraction", "textcoords": "offset points"}
    axes.annotate(f"{clean(title)} %", (0, 1), (0, 8), weight="bold", size=10.5, color=INK, **beside)
    if synthetic:
        axes.annotate("SYNTHETIC", (1, 1), (0, 9), ha="right", weight="bold", size=7.5, color=WARN, **beside)
    axes.annotate("● ours   ─ its baseline", (0.01, 0), (0, 5), size=8, color=colour, **beside)
    paper = "■ paper   ┈ its baseline" if theirs else "not in the paper's table"
    axes.annotate(paper, (0.99, 0), (0, 5), ha="right", size=8, color=MUTED, **beside)
