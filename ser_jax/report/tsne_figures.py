"""The figure of a t-SNE map: rows with and without neutral utterances, a column for each thing it is coloured by."""

import numpy as np

from ser_jax.report.drawing import MUTED, VIOLET, WARN, WIDTH, Picture, blank, clean, short, style
from ser_jax.report.layer_study import natural
from ser_jax.report.tables import format_count
from ser_jax.report.tsne import SEED

# Okabe and Ito's colours for every kind of colour vision, without black and with a yellow that shows on white; a
# category differs from the others by its colour or its mark. 7 and 4 have no common divisor, so 28 pairs are different.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#9a8f00")
MARKS = ("o", "s", "^", "D")
MOST_NAMES = len(COLOURS) * len(MARKS)
UNKNOWN = "#b9c0c7"
FACE = "#fcfdfe"  # stays light where the page is dark: the colours are made for it
RATING = "viridis"
SIDE, GAP, LEFT, HEAD, TITLE, LINE = 2.3, 0.16, 0.34, 0.34, 0.26, 0.142  # inches


def picture(each, name):
    """The figure of a `tsne.Projection`."""
    panels = each.columns or ["utterance"]
    views = each.views
    keys = {column: _categories(each, column) for column in panels if column not in ("arousal", "valence", "utterance")}
    foot = max([0.5, *(0.16 + LINE * (-(-(len(names) + 2) // _columns(names))) for names in keys.values())])
    width = max(WIDTH, LEFT + len(panels) * (SIDE + GAP))
    height = HEAD + TITLE + len(views) * (SIDE + GAP) + foot
    with style():
        figure = blank(width, height)
        _head(figure, each, width, height)
        limits = _limits(each.table)
        for row, (view, shown) in enumerate(views):
            bottom = height - HEAD - TITLE - (row + 1) * SIDE - row * GAP
            for place, column in enumerate(panels):
                left = LEFT + place * (SIDE + GAP)
                axes = figure.add_axes((left / width, bottom / height, SIDE / width, SIDE / height))
                axes.set(xticks=[], yticks=[], facecolor=FACE, **limits)
                axes.spines[["top", "right"]].set_visible(True)
                axes.set_rasterization_zorder(1.2)  # the dots, not the labels of the axes
                if place == 0:
                    axes.set_ylabel(f"{view}, n = {format_count(int(shown.sum()))}", fontsize=9)
                if row == 0:
                    axes.set_title(column, loc="left", fontsize=10, weight="bold", pad=4)
                drawn = _ratings(axes, each, column, shown) if column in ("arousal", "valence") else None
                if column in keys:
                    _classes(axes, each, column, shown, keys[column])
                if column == "utterance":
                    _dots(axes, each.table[shown], np.full(int(shown.sum()), MUTED))
                if row == len(views) - 1:
                    if drawn is not None:
                        box = (left + 0.1, bottom - 0.2, SIDE - 0.2, 0.09)
                        _bar(figure, drawn, tuple(v / (width, height)[i % 2] for i, v in enumerate(box)), each, column)
                    elif column in keys:
                        _legend(axes, keys[column], each, column)
        text = f"t-SNE map of {len(each.table)} utterances, coloured by {', '.join(panels)}."
        return Picture(figure, text, name, dots=200)


def _head(figure, each, width, height):
    room = int((width - 0.3) * 72 / 6.6) - sum(len(stamp) + 1 for stamp in each.stamps)
    title = f"{clean(each.name)} · {clean(each.layer)} · n = {format_count(len(each.table))}"
    figure.text(0.06 / width, 1 - 0.2 / height, short(title, room), weight="bold", size=10.5)
    right = 1 - GAP / width
    for stamp in reversed(each.stamps):
        colour = WARN if stamp == "SYNTHETIC" else VIOLET
        figure.text(right, 1 - 0.2 / height, stamp, ha="right", weight="bold", size=8, color=colour)
        right -= 0.095 * len(stamp) / width


def _limits(table):
    """A square around all dots, the same in every panel."""
    low, high = (table[["x", "y"]].agg(side).to_numpy() for side in ("min", "max"))
    middle, half = (low + high) / 2, 0.53 * float((high - low).max()) or 1.0
    return {name: (middle[i] - half, middle[i] + half) for i, name in enumerate(("xlim", "ylim"))}


def _categories(each, column):
    """The categories of a column in order; of more than MOST_NAMES the most frequent."""
    from ser_jax.corpora.schema import EMOTIONS

    counts = each.table[column][each.known(column)].value_counts()
    if len(counts) > MOST_NAMES:
        counts = counts.sort_index(kind="stable").sort_values(ascending=False, kind="stable").head(MOST_NAMES)
    order = {emotion: place for place, emotion in enumerate(EMOTIONS)} if column == "emotion" else {}
    return sorted(counts.index, key=lambda name: (order.get(name, len(EMOTIONS)), natural(name)))


def _size(count):
    """Area of a dot in square points: many dots are small."""
    return float(np.clip(9000 / count, 4.0, 22.0))


def _dots(axes, table, colours, marks=None, **options):
    """Dots in mixed order, so that no category lies on top of the others.

    Args:
      colours: one per row, or numbers with `cmap` among `options`.
      marks: one per row; None = circles.

    Returns:
      what was drawn, as a colour bar takes it.
    """
    from matplotlib.markers import MarkerStyle

    order = np.random.default_rng(SEED).permutation(len(table))
    drawn = axes.scatter(table["x"].to_numpy()[order], table["y"].to_numpy()[order], c=list(colours[order]),
                         s=_size(max(1, len(table))), alpha=0.8, linewidths=0, zorder=1, **options)  # fmt: skip
    if marks is not None:
        styles = {mark: MarkerStyle(mark) for mark in MARKS}
        paths = {mark: style.get_path().transformed(style.get_transform()) for mark, style in styles.items()}
        drawn.set_paths([paths[mark] for mark in marks[order]])
    return drawn


def _unknown(axes, table):
    axes.scatter(
        table["x"], table["y"], c=UNKNOWN, s=0.7 * _size(max(1, len(table))), linewidths=0, alpha=0.6, zorder=0
    )


def _look(names):
    """{category: (colour, mark)}; neighbours in the list differ in both."""
    return {name: (COLOURS[i % len(COLOURS)], MARKS[i % len(MARKS)]) for i, name in enumerate(names)}


def _classes(axes, each, column, shown, names):
    look, values = _look(names), each.table[column].to_numpy(object)
    named = shown & np.isin(values, names)
    _unknown(axes, each.table[shown & ~named])
    looks = [look[value] for value in values[named]]
    if looks:
        _dots(axes, each.table[named], *(np.array(part, object) for part in zip(*looks)))


def _ratings(axes, each, column, shown):
    known = each.known(column)
    _unknown(axes, each.table[shown & ~known])
    table, values = each.table[shown & known], each.table[column][known]
    low, high = float(values.min()), float(values.max())
    low, high = (low, high) if low < high else (low - 0.5, high + 0.5)
    return _dots(axes, table, table[column].to_numpy(), cmap=RATING, vmin=low, vmax=high)


def _bar(figure, drawn, box, each, column):
    axes = figure.add_axes(box)
    bar = figure.colorbar(drawn, cax=axes, orientation="horizontal")
    bar.outline.set_visible(False)
    bar.solids.set(alpha=1)
    axes.tick_params(length=2, labelsize=8)
    axes.locator_params(nbins=5)
    missing = int((~each.known(column)).sum())
    if missing:
        axes.set_xlabel(f"grey: {format_count(missing)} without a rating", fontsize=8, labelpad=2)


def _columns(names):
    longest = max((len(clean(name)) for name in names), default=0)
    return 1 if len(names) <= 4 else 3 if longest <= 4 and len(names) > 12 else 2


def _both_ends(text, length):
    """A name that is too long without its middle: speakers often differ in their last characters."""
    return text if len(text) <= length else f"{text[: length // 2]}…{text[len(text) - (length - 1 - length // 2) :]}"


def _legend(axes, names, each, column):
    from matplotlib.lines import Line2D

    columns = _columns(names)
    counts = each.table[column].value_counts()
    room = {1: 30, 2: 10, 3: 9}[columns]
    entries = [Line2D([], [], ls="", color=colour, marker=mark, ms=5, mew=0,
                      label=f"{_both_ends(clean(name), room)}{f' ({counts[name]})' if columns < 3 else ''}")
               for name, (colour, mark) in _look(names).items()]  # fmt: skip
    known = each.known(column)
    others = int(known.sum()) - int(counts[names].sum())
    for count, what in ((others, f"{format_count(int((counts.index != '').sum()) - len(names))} others"),
                        (int((~known).sum()), f"no {column}")):  # fmt: skip
        if count:
            entries.append(
                Line2D([], [], ls="", color=UNKNOWN, marker="o", ms=4, mew=0, label=f"{what} ({format_count(count)})")
            )
    axes.legend(handles=entries, loc="upper left", bbox_to_anchor=(-0.02, -0.02), ncols=columns, frameon=False,
                fontsize=8,
                handletextpad=0.1, handlelength=1.4, columnspacing=0.8, labelspacing=0.25, borderpad=0)  # fmt: skip
