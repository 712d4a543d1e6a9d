"""The picture of a training run: how it learned, how it settles, what it looks for, where it errs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .training import Epoch
from .weightfile import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE, GREEN, RED, GREY = "#1f5fa8", "#d9822b", "#2a8f68", "#c0392b", "#7b8188"
FLOOR = 1e-8  # below the rounding of float32; a residual of exactly 0 is drawn here


@dataclass(frozen=True)
class Run:
    """How a training went. `histories` holds a run for each seed; everything else is of the first."""

    title: str
    histories: Sequence[Sequence[Epoch]]
    held_out: str  # what the samples not learned from are called
    residuals: dict[str, tuple[list[float], list[float]]]  # "before", "after" training: free, nudged by step
    steps: tuple[int, int]  # free and nudged, as trained


@dataclass(frozen=True)
class Story(Run):
    """What the picture tells."""

    features: NDArray  # (k, height, width): change of first weights since their start x spread of the pixel
    images: NDArray  # (m, height, width), samples not learned from
    labels: Sequence[str]  # what they show
    guesses: Sequence[str]  # what the network says they show
    errors: str  # how often it errs, in words


def draw(story: Story, path: str | os.PathLike[str]) -> None:
    """Writes the picture as a PNG, whole or not at all; needs no display. EqkernelError if it cannot."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 9), dpi=110, layout="constrained")
    figure.suptitle(story.title, fontsize=14, fontweight="bold")
    grid = figure.add_gridspec(2, 6, height_ratios=(1, 1.45))
    plot_loss(figure.add_subplot(grid[0, :2]), story)
    plot_accuracy(figure.add_subplot(grid[0, 2:4]), story)
    plot_residuals(figure.add_subplot(grid[0, 4:]), story)
    _features(figure.add_subplot(grid[1, :3]), story)
    _examples(figure.add_subplot(grid[1, 3:]), story)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def plot_loss(axes: Axes, story: Run) -> None:
    for history in story.histories:
        numbers = [epoch.number for epoch in history]
        axes.plot(numbers, [epoch.loss for epoch in history], color=BLUE, alpha=0.8)
    plain(axes, "Training loss", "epoch", log=True)


def plot_accuracy(axes: Axes, story: Run) -> None:
    for i, history in enumerate(story.histories):
        numbers = [epoch.number for epoch in history]
        for values, color, name in (
            ([epoch.accuracy for epoch in history], BLUE, "training"),
            ([epoch.held_out or 0.0 for epoch in history], ORANGE, story.held_out),
        ):
            axes.plot(numbers, 100 * np.array(values), color=color, alpha=0.8, label=None if i else name)
    worst = min(epoch.held_out or 0.0 for history in story.histories for epoch in history)
    axes.set_ylim(max(0.0, min(90.0, 100 * worst - 1)), 100.4)
    axes.legend(loc="lower right", frameon=False)
    plain(axes, "Accuracy, %", "epoch")


def plot_residuals(axes: Axes, story: Run) -> None:
    for name, style in (("before", ":"), ("after", "-")):
        free, nudged = story.residuals[name]
        for phase, values, color in (("free", free, BLUE), ("nudged", nudged, GREEN)):
            steps = range(1, len(values) + 1)
            label = f"{phase} phase, {name} training"
            axes.plot(steps, np.maximum(values, FLOOR), style, color=color, marker=".", label=label)
    for end, color in zip(story.steps, (BLUE, GREEN), strict=True):
        axes.axvline(end, color=color, linewidth=7, alpha=0.15)
    axes.legend(fontsize=8, frameon=False)
    axes.set_ylim(FLOOR / 2, 30)
    plain(axes, "Settling: largest change in a step", "step (bands: where training stops)", log=True)


def _features(axes: Axes, story: Story) -> None:
    """Each feature in its own scale."""
    scaled = story.features / np.maximum(abs(story.features).max(axis=(1, 2), keepdims=True), 1e-30)
    picture, _ = mosaic(scaled)
    axes.imshow(picture, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    axes.set_title("What the first layer learned: red excites, blue inhibits")
    axes.set_axis_off()


def _examples(axes: Axes, story: Story) -> None:
    height, width = story.images.shape[1:]
    picture, corners = mosaic(story.images, gap=max(2, height // 3))
    axes.imshow(picture, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    for (row, column), label, guess in zip(corners, story.labels, story.guesses, strict=True):
        right = label == guess
        words = label if right else f"{label}, read {guess}"
        axes.text(
            column + width / 2,
            row + height,
            words,
            ha="center",
            va="top",
            fontsize=9 if len(words) < 12 else 6,
            color=GREY if right else RED,
        )
    axes.set_title(story.errors)
    axes.set_axis_off()


def mosaic(images: NDArray, gap: int = 1) -> tuple[NDArray, list[tuple[int, int]]]:
    """The images (k, height, width) in a block, NaN between them, and the corner (row, column) of each."""
    count, height, width = images.shape
    columns = max(1, round(np.sqrt(1.25 * count)))
    rows = -(-count // columns)
    block = np.full((rows * (height + gap), columns * (width + gap)), np.nan)
    corners = [(i // columns * (height + gap), i % columns * (width + gap)) for i in range(count)]
    for (row, column), image in zip(corners, images, strict=True):
        block[row : row + height, column : column + width] = image
    return block, corners


def plain(axes: Axes, title: str, xlabel: str, log: bool = False) -> None:
    axes.set_title(title)
    axes.set_xlabel(xlabel)
    if log:
        axes.set_yscale("log", nonpositive="mask")
    axes.locator_params(axis="x", integer=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
