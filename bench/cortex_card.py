"""The figures of the model card: the shipped weights on all 10,000 test images of MNIST, and their confusion matrix.

    python -m bench.cortex_card --out docs/cortex-conv-confusion.png
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from eqkernel import models, predict
from eqkernel.data import load_mnist


def confusion(guesses: NDArray, y: NDArray) -> NDArray:
    """How often each digit (a row) was taken for each (a column)."""
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (y, guesses), 1)
    return counts


def draw(counts: NDArray, path: Path) -> None:
    """The matrix as a picture: errors in red, what is right only counted."""
    figure = Figure(figsize=(6.4, 6), dpi=100, layout="constrained")
    axes = figure.subplots()
    errors = counts * (1 - np.eye(10, dtype=int))
    axes.imshow(errors, cmap="Reds", vmax=max(12, errors.max()))
    for (is_, read), n in np.ndenumerate(counts):
        if n:
            axes.text(read, is_, str(n), ha="center", va="center", color="0.5" if is_ == read else "black", fontsize=9)
    axes.set(xticks=range(10), yticks=range(10), xlabel="read as", ylabel="is")
    axes.set_title(f"cortex-conv: {errors.sum()} of {counts.sum():,} test images misread")
    figure.savefig(path)


@click.command(help=__doc__)
@click.option("--data", "folder", help="Folder of MNIST.")
@click.option("--out", type=Path, default=Path("build/confusion.png"), show_default=True)
def main(folder: str | None, out: Path) -> None:
    """Test, print, draw."""
    _, _, x, y = load_mnist(folder)
    net = models.cortex_conv(pretrained=True)
    counts = confusion(predict(net, x), y)
    print(f"{net}: {100 * np.trace(counts) / len(y):.2f} % of {len(y):,} test images")
    out.parent.mkdir(parents=True, exist_ok=True)
    draw(counts, out)


if __name__ == "__main__":
    main()
