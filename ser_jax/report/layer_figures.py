"""The figures of a layer study: heat maps of the cells, and curves over the layers."""

import numpy as np

from ser_jax.report import tables
from ser_jax.report.drawing import (
    ACCENT,
    INK,
    MUTED,
    PAPER,
    TEAL,
    VIOLET,
    WARN,
    WIDTH,
    Picture,
    blank,
    clean,
    short,
    stack,
    style,
)
from ser_jax.report.layer_study import BEYOND, OUTSIDE, UNDEFINED
from ser_jax.results import IN_PERCENT

POSITIVE, NEGATIVE, NOISE = "#b2182b", "#2166ac", "#5c6670"
WEAKEST, NOISE_STRENGTH = 0.3, 0.45  # colour of an outside cell with r = 0; share of grey of an inside one at the scale's end
MAP_WIDTH, MAP_HEIGHT = 896, 270  # pixels at 200 dpi, about
LINES = ((ACCENT, "o", "-"), (WARN, "s", "--"), (VIOLET, "^", ":"), (TEAL, "D", "-."))


def scale_of(maps):
    """|r| at which the colours are full: what 99.5 % of the cells do not exceed, rounded up to a tenth."""
    sizes = np.concatenate([np.abs(each.r[each.state != UNDEFINED]) for each in maps])
    return float(np.ceil(10 * np.quantile(sizes, 0.995)) / 10) or 0.1 if len(sizes) else 1.0


def paint(each, scale, width, height):
    """A Map as pixels uint8[L·height, W·width, 3].

    Outside the band: red or blue, with a white dot where beyond the limit of all cells. Inside: grey. Undefined: hatched.
    """
    strength = np.minimum(np.abs(np.nan_to_num(each.r)) / scale, 1)[..., None]
    colour = np.where(each.r[..., None] < 0, _rgb(NEGATIVE), _rgb(POSITIVE))
    outside = (each.state >= OUTSIDE)[..., None]
    mix = np.where(outside, WEAKEST + (1 - WEAKEST) * strength, NOISE_STRENGTH * strength)
    pixels = _rgb(PAPER) + mix * (np.where(outside, colour, _rgb(NOISE)) - _rgb(PAPER))
    pixels = pixels.repeat(height, 0).repeat(width, 1)
    y, x = np.indices(pixels.shape[:2])
    dot = (abs(y % height - (height - 1) / 2) < 1.5) & (abs(x % width - (width - 1) / 2) < 1.5)
    state = each.state.repeat(height, 0).repeat(width, 1)
    pixels[(state == BEYOND) & dot] = _rgb(PAPER)
    pixels[(state == UNDEFINED) & ((x + y) % 6 < 1)] = _rgb(MUTED)
    return pixels.round().astype(np.uint8)


def maps_picture(study, view, scale, name):
    """The maps of one speaker or of the mean, one under the other (valence above arousal)."""
    maps = [(target, study.maps[target][view]) for target in study.targets]
    width = max(1, round(MAP_WIDTH / study.width))
    height = min(60, max(8, round(MAP_HEIGHT / len(study.layers))))
    high, wide = height * len(study.layers) / 200, width * study.width / 200
    left, above, below, head, foot = 0.72, 0.24, 0.24, 0.32, 0.8
    total = head + len(maps) * (above + high + below) + foot
    with style():
        figure = blank(max(WIDTH, left + wide + 0.2), total)
        size, bottom = figure.get_figwidth(), total - head
        title = clean(study.views[view]) if view == 0 else f"speaker {clean(study.views[view])}"
        figure.text(0.12 / size, 1 - 0.22 / total, short(f"{title} · {clean(study.name)}", 58), weight="bold")
        if study.synthetic:
            figure.text(1 - 0.12 / size, 1 - 0.22 / total, "SYNTHETIC", ha="right", color=WARN, weight="bold")
        for target, each in maps:
            bottom -= above + high
            axes = figure.add_axes((left / size, bottom / total, wide / size, high / total))
            bottom -= below
            axes.imshow(paint(each, scale, width, height), interpolation="none", aspect="auto",
                        extent=(-0.5, study.width - 0.5, len(study.layers) - 0.5, -0.5))  # fmt: skip
            _layer_ticks(axes, study.layers)
            axes.set_xticks(range(0, study.width, max(1, study.width // 8)))
            axes.tick_params(length=2)
            axes.spines[["top", "right"]].set_visible(True)
            axes.text(0, 1.04, target, transform=axes.transAxes, weight="bold", size=9.5)
            found = f"{each.outside} of {each.defined} outside; chance {each.expected:.0f}, in 95 % ≤ {each.expected_high}"
            found = found if each.defined else "undefined"
            axes.text(1, 1.04, found, transform=axes.transAxes, ha="right", size=8.5, color=MUTED)
        axes.set_xlabel("feature", labelpad=1, fontsize=8.5)
        _legend(figure.add_axes((left / size, 0.04 / total, wide / size, 0.58 / total)), scale)
        text = f"Correlations of {study.width} features of {len(study.layers)} layers with {' and '.join(study.targets)}, {title}."
        return Picture(figure, text, name)


def _legend(axes, scale):
    axes.set(xlim=(0, 100), ylim=(0, 10))
    axes.axis("off")
    shares = np.linspace(-1, 1, 41)
    for row, (strength, positive, negative, what) in enumerate(
        [(lambda r: WEAKEST + (1 - WEAKEST) * r, POSITIVE, NEGATIVE, "outside the chance band"),
         (lambda r: NOISE_STRENGTH * r, NOISE, NOISE, "inside: noise")]
    ):  # fmt: skip
        colours = [_rgb(PAPER) + strength(abs(r)) * (_rgb(positive if r > 0 else negative) - _rgb(PAPER)) for r in shares]
        axes.imshow(np.array([colours]) / 255, extent=(0, 26, 6.4 - 3 * row, 8.4 - 3 * row), aspect="auto")
        axes.text(27.5, 7.4 - 3 * row, what, va="center", size=8)
    axes.set(xlim=(0, 100), ylim=(0, 10))
    for place, text in ((0, f"−{scale:.1f}"), (13, "r = 0"), (26, f"{scale:.1f}")):
        axes.text(place, 1.6, text, ha="center", va="center", size=8, color=MUTED)
    swatch = np.full((18, 14, 3), _rgb(POSITIVE))
    swatch[8:11, 6:9] = _rgb(PAPER)
    y, x = np.indices((18, 14))
    hatched = np.where(((x + y) % 6 < 1)[..., None], _rgb(MUTED), _rgb(PAPER))
    for row, (pixels, what) in enumerate([(swatch, "beyond the limit of all cells"), (hatched, "undefined")]):
        axes.imshow(pixels / 255, extent=(60, 62.5, 6.2 - 3 * row, 8.8 - 3 * row), aspect="auto", interpolation="none")
        axes.text(64, 7.4 - 3 * row, what, va="center", size=8)
    axes.set(xlim=(0, 100), ylim=(0, 10))


def layers_picture(study, name):
    """Mean |r| of each layer with the band of chance: within speakers, and of the mean map."""
    panels = [("mean |r| within a speaker, mean over speakers", study.within), ("mean |r| of the mean map", study.shared)]
    with style():
        figure, boxes = stack([1.5] * len(panels), above=0.4, below=0.75, left=0.6, right=0.15)
        for (title, curves), box in zip(panels, boxes):
            axes = figure.add_axes(box)
            _frame(axes, title, study.layers)
            for (target, curve), (colour, marker, dash) in zip(curves.items(), LINES):
                places = np.arange(len(study.layers))
                axes.fill_between(places, curve.low, curve.high, color=colour, alpha=0.22, lw=0)
                axes.plot(places, curve.value, dash, color=colour, marker=marker, ms=4, lw=1.6, label=clean(target))
            axes.fill_between([], [], color=MUTED, alpha=0.3, lw=0, label="95 % of random orders")
            axes.set_ylim(0, 1.08 * axes.dataLim.ymax)
            _name_lines(axes)
        _stamp(figure, study.synthetic)
        text = f"Mean size of the correlation in each of {len(study.layers)} layers, with 95 % of the random orders."
        return Picture(figure, text, name)


def scores_picture(scores, name):
    """Scores of single layers, one panel per metric, one line per target."""
    with style():
        figure, boxes = stack([1.6] * len(scores.panels), above=0.42, below=0.75, left=0.6, right=0.15)
        for (metric, bars, targets), box in zip(scores.panels, boxes):
            axes = figure.add_axes(box)
            _frame(axes, f"{clean(metric)}{tables.unit(metric)}, {bars}", scores.layers)
            if metric in IN_PERCENT:
                axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.6g}")
            shifts = np.linspace(-0.12, 0.12, len(targets)) if len(targets) > 1 else [0.0]
            for number, ((target, points), shift) in enumerate(zip(targets.items(), shifts)):
                colour, marker, dash = LINES[number % len(LINES)]
                x = np.array([scores.layers.index(point.layer) for point in points]) + shift
                axes.plot(x, [point.value for point in points], dash, color=colour, marker=marker, ms=4, lw=1.6,
                          label=short(clean(target), 24))  # fmt: skip
                ends = [(at, point.low, point.high) for at, point in zip(x, points) if None not in (point.low, point.high)]
                if ends:
                    axes.vlines(*zip(*ends), color=colour, lw=1, alpha=0.7)
                chance = {point.row["chance"] for point in points} if metric == points[0].row["metric"] else set()
                if len(chance) == 1 and None not in chance:
                    axes.axhline(chance.pop(), color=colour, lw=0.9, ls=(0, (1, 2)))
            _name_lines(axes)
        _stamp(figure, scores.synthetic)
        metrics = ", ".join(clean(metric) for metric, *_ in scores.panels)
        return Picture(figure, f"{metrics} of each of {len(scores.layers)} layers alone.", name)


def _frame(axes, title, layers):
    axes.set_title(title, loc="left", fontsize=10, weight="bold", pad=14)
    axes.set_xticks(range(len(layers)), [short(clean(layer), 14) for layer in layers], rotation=90, fontsize=8)
    axes.set_xlim(-0.5, len(layers) - 0.5)
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def _layer_ticks(axes, layers):
    step = -(-len(layers) // 30)
    names = [short(clean(layer), 10) for layer in layers[::step]]
    axes.set_yticks(range(0, len(layers), step), names, fontsize=6.5 if len(layers) > 8 else 9)


def _name_lines(axes):
    axes.legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=4, frameon=False, fontsize=8.5, handlelength=2.6,
                borderpad=0, borderaxespad=0.2, labelcolor=INK)  # fmt: skip


def _stamp(figure, synthetic):
    if synthetic:
        figure.text(0.995, 0.005, "SYNTHETIC", ha="right", va="bottom", color=WARN, weight="bold", fontsize=8)


def _rgb(colour):
    return np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)], np.float64)
