"""The figures of result rows and training logs; how they are drawn is in `drawing`."""

from ser_jax.report import curves, seeds, tables
from ser_jax.report.drawing import (
    ACCENT,
    ALERT,
    INK,
    MUTED,
    PAPER,
    WARN,
    WIDTH,
    Picture,
    blank,
    clean,
    short,
    stack,
    style,
)
from ser_jax.report.rows import lower_is_better, name_of, number
from ser_jax.results import IN_PERCENT

PATCH = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.8}  # behind text, so that no grid line runs through it
SPEED = "examples / s"
MOST_POINTS = 300  # per curve; more are averaged in bins, with their range behind


def metric_pictures(rows):
    """Dots with intervals and chance marks: one picture per metric, its rows grouped by corpus and target."""
    panels = {}
    for row in rows:
        if number(row["value"]) is not None:
            groups = panels.setdefault(row["metric"], {})
            groups.setdefault((name_of(row["corpus"]), str(row["target"] or "")), []).append(row)
    pictures = []
    for place, (metric, groups) in enumerate(panels.items(), 1):
        count = sum(map(len, groups.values()))
        size = 0.44 * count + 0.32 * len(groups)
        with style():
            figure, boxes = stack([size], above=0.5, below=0.42, left=0.22, right=0.18)
            _metric_panel(figure.add_axes(boxes[0]), metric, groups, size)
            text = f"{clean(metric)} of {count} results with 95 % intervals and chance; the numbers are in the table."
            pictures.append(Picture(figure, text, f"metric_{place}"))
    return pictures


def _metric_panel(axes, metric, groups, size):
    values = [
        number(value)
        for group in groups.values()
        for row in group
        for value in (row["value"], row["chance"], *(row["ci"] or []), *_marks(row))
    ]
    values = [value for value in values if value is not None]
    low = min(0.0, min(values) * 1.08)
    high = 1.0 if max(values) <= 1 and not lower_is_better(metric) else (max(values) * 1.08 or 1.0)
    axes.set(xlim=(low, high), ylim=(size, 0), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    if metric in IN_PERCENT:
        axes.xaxis.set_major_formatter(_in_percent)
    better = "lower is better" if lower_is_better(metric) else "higher is better"
    _write(axes, 0, -0.14, f"{clean(metric)}{tables.unit(metric)}", weight="bold", size=12)
    _write(axes, 1, -0.14, f"{better};  ▏ chance", ha="right", color=MUTED, size=9)
    y = 0.0
    for (corpus, target), group in groups.items():
        y += 0.32
        title = " · ".join(filter(None, (clean(corpus), clean(target)))) or "no corpus named"
        _write(axes, 0, y - 0.08, short(title, 60), weight="bold", color=MUTED, size=9)
        for row in group:
            _metric_line(axes, row, y)
            y += 0.44


def _marks(row):
    """Values beside the one reported: those of the seeds, else of the folds of a row that gives their spread."""
    values = seeds.values(row)
    if not values and tables.summary(row)["spread"]:
        values = [number(fold.get("value")) for fold in row["folds"] or []]
    return [value for value in values if value is not None]


def _metric_line(axes, row, y):
    colour = WARN if row.synthetic else ACCENT
    stamps = " ".join(stamp for stamp in row.stamps if stamp in tables.STAMPS)
    interval = tables.format_interval(row["metric"], row["ci"])
    printed = f"{tables.format_metric(row['metric'], row['value'])} {interval}".strip()
    room = 72 * (WIDTH - 0.4) - 28 - 5.2 * len(printed) - 4.9 * len(stamps)  # points; mean widths of characters
    parts = (clean(row["system"] or "unnamed"), clean(tables.summary(row)["layer"]), clean(row["head"] or ""))
    label = " · ".join(filter(None, parts))
    label = short(label, max(12, int(room / 5.7)))
    bold = axes.annotate(f"{row.name} ", (0, y + 0.16), xycoords=("axes fraction", "data"), color=MUTED, size=9)
    name = axes.annotate(label, (1, 0), xycoords=bold, size=10, va="bottom", bbox=PATCH)
    if stamps:
        alert = ALERT if "LEAKY" in stamps else WARN
        axes.annotate("  " + stamps, (1, 0), xycoords=name, size=7, va="bottom", color=alert, weight="bold")
    _write(axes, 1, y + 0.16, printed, ha="right", size=9.5, bbox=PATCH)
    line, value, chance = y + 0.28, number(row["value"]), number(row["chance"])
    marks = _marks(row)
    axes.plot(marks, [line] * len(marks), "|", color=MUTED, ms=5, mew=0.8, alpha=0.7)
    if interval:
        axes.plot(row["ci"], [line, line], color=colour, lw=2.2, solid_capstyle="butt")
    if chance is not None:
        axes.plot([chance, chance], [line - 0.065, line + 0.065], color=INK, lw=1.4)
    axes.plot([value], [line], "o", ms=7, mec=colour, mfc=PAPER if row.synthetic else colour, mew=2, clip_on=False)


def confusion_picture(row):
    """Row-normalised confusion matrix with counts, as a heat map."""
    import matplotlib.colors
    import numpy as np

    classes = [short(clean(name), 14) for name in tables.classes_of(row)]
    parts = np.array([[part or 0.0 for part in line] for line in tables.shares(row["confusion"])])
    many = len(classes) > 12
    size = min(WIDTH, 2.2 + 0.55 * len(classes))
    colours = matplotlib.colors.LinearSegmentedColormap.from_list("share", [PAPER, ACCENT])
    with style():
        figure = blank(size, size)
        axes = figure.add_axes((1.15 / size, 1.15 / size, 1 - 1.35 / size, 1 - 1.75 / size))
        axes.imshow(parts, cmap=colours, vmin=0, vmax=1, aspect="auto")
        axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=5 if many else 9)
        axes.set_yticks(range(len(classes)), classes, fontsize=5 if many else 9)
        axes.tick_params(length=0)
        axes.set(xlabel="predicted", ylabel="truth")
        stamps = " ".join(stamp for stamp in row.stamps if stamp in tables.STAMPS)
        title = f"{row.name} {row['system'] or ''} · {name_of(row['corpus'])} {row['target'] or ''}"
        below = " · ".join(filter(None, [seeds.mean_of(row), stamps]))
        title = short(clean(title), 48) + (f"\n{below}" if below else "")
        axes.set_title(title, fontsize=10, color=WARN if row.synthetic else INK, loc="left")
        if not many:
            for i, line in enumerate(row["confusion"]):
                for j, count in enumerate(line):
                    colour = PAPER if parts[i, j] > tables.DARK_SHARE else INK
                    text = f"{100 * parts[i, j]:.0f}\n({tables.format_mean_count(count)})"
                    axes.text(j, i, text, ha="center", va="center", fontsize=8, color=colour)
        return Picture(figure, f"Confusion matrix of {row.name}, rows are the truth.", f"confusion_{row.name.lower()}")


def curves_picture(log, place):
    """Loss, metric on held-out data and speed over steps, whatever of them the log holds; None for an empty log."""
    metric = curves.eval_metric(log)
    panels = [
        *((key.replace("_", " "), [("train", key, ACCENT), ("eval", key, WARN)]) for key in curves.losses(log)),
        (metric and metric + tables.unit(metric), [("train", metric, ACCENT), ("eval", metric, WARN)]),
        (SPEED, [("train", "examples_per_second", ACCENT)]),
    ]
    panels = [
        (title, [(kind, colour, curves.series(log, kind, key)) for kind, key, colour in lines])
        for title, lines in panels
        if title
    ]
    panels = [(title, [line for line in lines if line[2][0]]) for title, lines in panels]
    panels = [(title, lines) for title, lines in panels if lines]
    if not panels:
        return None
    with style():
        figure, boxes = stack([1.35] * len(panels), above=0.34, below=0.34, left=0.6, right=0.15, bottom=0.2)
        first = None
        for box, (title, lines) in zip(boxes, panels, strict=True):
            axes = figure.add_axes(box, sharex=first)
            first = first or axes
            percent = metric in IN_PERCENT and title.startswith(metric)
            for kind, colour, (steps, values) in lines:
                last = tables.format_metric(metric, values[-1]) if percent else f"{values[-1]:.4g}"
                _curve(axes, steps, values, colour, f"{kind} (last {last})", marker=kind == "eval")
            if percent:
                axes.yaxis.set_major_formatter(_in_percent)
            if title == SPEED:
                axes.set_ylim(bottom=0)
            axes.grid(axis="y")
            axes.set_title(clean(title), loc="left", fontsize=10, weight="bold")
            axes.legend(
                loc="lower right",
                bbox_to_anchor=(1, 0.97),
                ncols=2,
                frameon=False,
                fontsize=9,
                labelcolor="linecolor",
                handlelength=1.2,
                borderpad=0,
                borderaxespad=0.2,
            )
            axes.margins(x=0.02)
        axes.set_xlabel("step")
        if log.synthetic:
            figure.text(0.995, 0.005, "SYNTHETIC", ha="right", va="bottom", color=WARN, weight="bold", fontsize=8)
        text = f"Learning curves of {log.name}: {', '.join(title for title, _ in panels)} over steps."
        return Picture(figure, text, f"curves_{place}")


def _in_percent(value, _):
    return f"{100 * value:.6g}"


def _curve(axes, steps, values, colour, label, marker):
    import numpy as np

    steps, values = np.asarray(steps), np.asarray(values)
    if len(steps) > MOST_POINTS:
        bins = np.array_split(np.arange(len(steps)), MOST_POINTS)
        low, high = [values[b].min() for b in bins], [values[b].max() for b in bins]
        steps, values = np.array([steps[b].mean() for b in bins]), np.array([values[b].mean() for b in bins])
        axes.fill_between(steps, low, high, color=colour, alpha=0.18, lw=0)
    dots = "o" if marker or len(steps) == 1 else ""
    axes.plot(steps, values, color=colour, lw=1.6, marker=dots, ms=3.5, label=label)


def _write(axes, x, y, text, **style):
    axes.text(x, y, text, transform=axes.get_yaxis_transform(), va="baseline", **style)
