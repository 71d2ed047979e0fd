"""The figure of reconstructions: per utterance the input, the output and their difference, time by mel band."""

import numpy as np

from ser_jax.audio import audeep
from ser_jax.corpora.schema import SAMPLE_RATE
from ser_jax.report.drawing import MUTED, VIOLET, WARN, WIDTH, Picture, blank, clean, short, style

SPECTRUM, ERROR = "magma", "viridis"
VALUES, ERRORS = (-1, 1), (0, 1)  # one scale for all figures, so that checkpoints can be compared
HIGH, ABOVE, BELOW, LEFT, GAP, RIGHT, HEAD, FOOT = 1.0, 0.27, 0.2, 0.42, 0.1, 0.12, 0.5, 0.6  # inches
PARTS = ("input", "reconstruction", "|difference|")


def picture(each, name):
    """The figure of a `reconstructions.Reconstructions`."""
    wide = (WIDTH - LEFT - RIGHT - 2 * GAP) / 3
    height = HEAD + len(each.shown) * (ABOVE + HIGH + BELOW) + FOOT
    with style():
        figure = blank(WIDTH, height)
        _head(figure, each, height)
        images = {}
        for row, shown in enumerate(each.shown):
            bottom = height - HEAD - row * (ABOVE + HIGH + BELOW) - ABOVE - HIGH
            _line(figure, shown, (bottom + HIGH + 0.08) / height)
            values = (shown.target, shown.output, np.abs(shown.output - shown.target))
            for place, (part, value) in enumerate(zip(PARTS, values)):
                left = LEFT + place * (wide + GAP)
                axes = figure.add_axes((left / WIDTH, bottom / height, wide / WIDTH, HIGH / height))
                images[part] = _spectrogram(axes, value, part)
                if place == 0:
                    axes.set_ylabel("mel band", fontsize=8, labelpad=1)
                else:
                    axes.set_yticklabels([])
                if row == len(each.shown) - 1:
                    axes.set_xlabel("seconds", fontsize=8, labelpad=1)
        for part, span, left in (("input", 2, LEFT), (PARTS[2], 1, LEFT + 2 * (wide + GAP))):
            size = span * wide + (span - 1) * GAP
            axes = figure.add_axes(((left + 0.1) / WIDTH, 0.22 / height, (size - 0.2) / WIDTH, 0.09 / height))
            bar = figure.colorbar(
                images[part], cax=axes, orientation="horizontal", extend="max" if span == 1 else "neither"
            )
            bar.outline.set_visible(False)
            axes.tick_params(length=2, labelsize=8)
            axes.locator_params(nbins=5)
        ids = ", ".join(shown.id for shown in each.shown)
        text = f"Spectrograms of {clean(ids)}: input, reconstruction by {clean(each.name)} and their difference."
        return Picture(figure, text, name)


def _head(figure, each, height):
    title = f"{clean(each.name)}, step {each.step} · {clean(each.corpus)}"
    figure.text(0.06 / WIDTH, 1 - 0.2 / height, short(title, 58 - 11 * len(each.stamps)), weight="bold", size=10)
    right = 1 - 0.08 / WIDTH
    for stamp in reversed(each.stamps):
        colour = WARN if stamp == "SYNTHETIC" else VIOLET
        figure.text(right, 1 - 0.2 / height, stamp, ha="right", weight="bold", size=7.5, color=colour)
        right -= 0.09 * len(stamp) / WIDTH
    wide = (WIDTH - LEFT - RIGHT - 2 * GAP) / 3
    for place, part in enumerate(PARTS):
        left = LEFT + place * (wide + GAP)
        figure.text(left / WIDTH, 1 - 0.46 / height, part, size=9, color=MUTED)


def _line(figure, shown, y):
    """The name of an utterance and its error, above its panels."""
    speaker = f" · speaker {clean(shown.speaker)}" if shown.speaker else ""
    figure.text(LEFT / WIDTH, y, short(f"{clean(shown.id)}{speaker}", 33 if shown.seen else 48), size=9, weight="bold")
    seen = " · seen in pretraining" if shown.seen else ""
    figure.text(1 - RIGHT / WIDTH, y, f"RMSE {shown.rmse:.3f}{seen}", size=9, ha="right")


def _spectrogram(axes, value, part):
    """Frames by bands; a frame is drawn about its middle, over one hop."""
    frames, bands = value.shape
    start = (audeep.WINDOW - audeep.HOP) / 2 / SAMPLE_RATE
    extent = (start, start + frames * audeep.HOP / SAMPLE_RATE, 0.5, bands + 0.5)
    error = part == PARTS[2]
    low, high = ERRORS if error else VALUES
    image = axes.imshow(value.T, origin="lower", aspect="auto", extent=extent, cmap=ERROR if error else SPECTRUM,
                        vmin=low, vmax=high, interpolation="nearest")  # fmt: skip
    axes.set_yticks([1, *(round(bands * share / 4) for share in range(1, 5))])
    axes.tick_params(length=2, labelsize=7.5, pad=1.5)
    axes.locator_params(axis="x", nbins=5)
    return image
