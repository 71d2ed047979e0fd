"""The filters of a net's first two-dimensional convolution, as small images: time to the right, mel bands upwards."""

import dataclasses
import math
from pathlib import Path

import numpy as np

from ser_jax.errors import UserError
from ser_jax.report.drawing import MUTED, WARN, WIDTH, Picture, blank, clean, short, style

ENDING = ("layer_1", "conv", "kernel")
MOST = 256  # filters of a figure
GAP, HEAD, FOOT = 0.06, 0.5, 0.1  # inches


@dataclasses.dataclass(frozen=True)
class Filters:
    """The filters of one checkpoint.

    Attributes:
      name, workdir, step, hash: of the checkpoint.
      kernel: float32[N, time, mel], those of the largest energy (sum of squares) first.
      order: int[N], the number of each in the net.
      count: of the filters of the net.
      synthetic: whether the checkpoint was trained on synthetic speech.
    """

    name: str
    workdir: str
    step: int
    hash: str
    kernel: np.ndarray
    order: np.ndarray
    count: int
    synthetic: bool


def read(workdir):
    """The Filters of the best checkpoint of a workdir.

    Raises:
      UserError: no such checkpoint, or its first layer is no convolution over time and mel of one channel.
    """
    from ser_jax import transfer
    from ser_jax.checkpoint import Trained

    trained = Trained(workdir)
    leaves = transfer.flat(trained.params)
    path = next((path for path in leaves if tuple(path.split("/"))[-3:] == ENDING), None)
    if path is None or leaves[path].ndim != 4 or leaves[path].shape[2] != 1:
        raise UserError(f"--filters {workdir}: its model has no first convolution over time and mel bands "
                        f"({'/'.join(ENDING)} of one input channel)")
    kernel = np.moveaxis(np.asarray(leaves[path], np.float32)[:, :, 0], -1, 0)
    order = np.argsort(-np.square(kernel, dtype=np.float64).sum((1, 2)), kind="stable")
    name = Path(workdir).resolve().name
    return Filters(name, str(workdir), trained.step, trained.hash, kernel[order[:MOST]], order[:MOST], len(order), trained.synthetic)


def picture(each, name):
    """The figure of Filters; every filter on its own scale, symmetric about 0."""
    count, time, mel = each.kernel.shape
    columns = max(8, math.ceil(math.sqrt(count * 1.6)))
    rows = math.ceil(count / columns)
    wide = (WIDTH - GAP) / columns - GAP
    high = wide * mel / time
    height = HEAD + rows * (high + GAP) + FOOT
    with style():
        figure = blank(WIDTH, height)
        figure.text(GAP / WIDTH, 1 - 0.2 / height, short(f"{clean(each.name)}, step {each.step}", 46), weight="bold", size=10)
        if each.synthetic:
            figure.text(1 - GAP / WIDTH, 1 - 0.2 / height, "SYNTHETIC", ha="right", weight="bold", size=7.5, color=WARN)
        figure.text(GAP / WIDTH, 1 - 0.4 / height, f"{time} frames to the right × {mel} mel bands upwards", size=8, color=MUTED)
        for place, values in enumerate(each.kernel):
            row, column = divmod(place, columns)
            left, bottom = GAP + column * (wide + GAP), height - HEAD - row * (high + GAP) - high
            axes = figure.add_axes((left / WIDTH, bottom / height, wide / WIDTH, high / height))
            most = float(np.abs(values).max()) or 1.0
            axes.imshow(values.T, origin="lower", aspect="auto", cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
        text = f"The {count} filters of the first convolution of {clean(each.name)}, of falling energy; red is positive, blue negative."
        return Picture(figure, text, name)
