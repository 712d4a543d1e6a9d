"""The picture of a training of maps: filters, how the network settles, and what a nudge changes in each layer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .figures import Run, mosaic, plot_accuracy, plot_loss, plot_residuals
from .network import Network
from .phases import free_phase, nudged_phase
from .weightfile import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class MapStory(Run):
    """What the picture tells."""

    filters: NDArray  # (k, height, width): of the first layer
    images: NDArray  # (m, height, width), samples not learned from
    labels: Sequence[str]  # what they show
    maps: dict[str, NDArray]  # of each layer: (m, height, width)


def difference_maps(net: Network, x: NDArray, y: ArrayLike, beta: float) -> dict[str, NDArray]:
    """For each layer that a nudge moves: (s+ - s-) / (2 beta), its norm over the channels, as maps (B, height, width).

    A layer of n neurons is a row of n; a softmax readout shows its error t - p.
    """
    nudged = nudged_phase(net, free_phase(net, x), y, beta)
    maps = {}
    for layer in range(1, len(net.layers)):
        difference, shape = nudged.difference[layer], net.shapes[layer]
        if len(shape) == 3:
            maps[f"layer {layer}"] = np.linalg.norm(difference.reshape(-1, *shape), axis=-1)
        else:
            maps[f"layer {layer}"] = difference[:, None]
    return maps


def draw_maps(story: MapStory, path: str | os.PathLike[str]) -> None:
    """Writes the picture as a PNG, whole or not at all; needs no display. EqkernelError if it cannot."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 9), dpi=110, layout="constrained")
    figure.suptitle(story.title, fontsize=14, fontweight="bold")
    grid = figure.add_gridspec(2, 2, height_ratios=(1, 1.45), width_ratios=(1, 1.7))
    above, left, right = (figure.add_subfigure(place) for place in (grid[0, :], grid[1, 0], grid[1, 1]))
    for axes, plot in zip(above.subplots(1, 3), (plot_loss, plot_accuracy, plot_residuals), strict=True):
        plot(axes, story)
    _filters(left.subplots(), story)
    right.suptitle("What a nudge towards the right answer changes, |s+ − s−| / 2β", fontsize=12)
    rows = right.subplots(1 + len(story.maps), len(story.images), squeeze=False)
    _row(rows[0], story.images, "input", "gray_r")
    for axes, label in zip(rows[0], story.labels, strict=True):
        axes.set_title(label, fontsize=10)
    for row, (name, maps) in zip(rows[1:], story.maps.items(), strict=True):
        _row(row, maps, name, "magma" if maps.shape[1] > 1 else "RdBu_r")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _filters(axes: Axes, story: MapStory) -> None:
    """Each in its own scale."""
    scaled = story.filters / np.maximum(abs(story.filters).max(axis=(1, 2), keepdims=True), 1e-30)
    picture, _ = mosaic(scaled)
    axes.imshow(picture, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    axes.set_title("Filters of the first layer: red excites, blue inhibits")
    axes.set_axis_off()


def _row(grid: Sequence[Axes], images: NDArray, name: str, colours: str) -> None:
    """Images side by side, all in one scale."""
    top = max(float(abs(images).max()), 1e-30)
    low = -top if colours == "RdBu_r" else 0.0
    for axes, image in zip(grid, images, strict=True):
        axes.imshow(image, cmap=colours, vmin=low, vmax=top, interpolation="nearest", aspect="auto")
        axes.set_xticks([])
        axes.set_yticks([])
    grid[0].set_ylabel(name)
