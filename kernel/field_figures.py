"""Pictures of fields, marches and responses; every file is written whole or not at all, and none needs a display."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .errors import EqkernelError
from .figures import BLUE, GREEN, GREY, ORANGE, RED
from .march import Chain, growth, predicted_wall
from .response import Response, asymmetry
from .weightfile import check_writable, replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

FORMATS = (".png", ".gif", ".npz")
SHOWN = 0.9  # |u| at the ends of the colours: where patterns of the default constants end


def check_format(path: str | os.PathLike[str], formats: Sequence[str] = FORMATS) -> str:
    """The suffix of `path`; EqkernelError unless it is one of `formats` and the file can be written."""
    path = Path(path)
    if path.suffix.lower() not in formats:
        raise EqkernelError(f"cannot write {path}: its name must end in {' or '.join(formats)}")
    if not path.parent.is_dir():
        raise EqkernelError(f"cannot write {path}: there is no folder {path.parent}")
    check_writable(path)
    return path.suffix.lower()


def image_of(u: NDArray, colors: str = "magma") -> Image:
    """The activator u (H, W), a pixel a cell, from -SHOWN dark to SHOWN bright."""
    import matplotlib
    from PIL import Image

    levels = np.clip((np.asarray(u, float) / SHOWN + 1) / 2 * 255 + 0.5, 0, 255).astype(np.uint8)
    picture = Image.fromarray(levels)  # as grey levels, which the palette then turns into colours
    palette = (matplotlib.colormaps[colors](np.arange(256))[:, :3] * 255 + 0.5).astype(np.uint8)
    picture.putpalette(palette.tobytes())
    return picture


def save_frames(frames: Sequence[Image], path: str | os.PathLike[str], milliseconds: int = 60) -> None:
    """Writes pictures as an endless GIF, or the last of them as a PNG, by the suffix of `path`."""
    kind = check_format(path, (".png", ".gif"))
    with replacing(path) as temporary:
        if kind == ".png":
            frames[-1].save(temporary, format="PNG")
        else:
            frames[0].save(
                temporary, format="GIF", save_all=True, append_images=frames[1:], loop=0,
                duration=[milliseconds] * (len(frames) - 1) + [2000], optimize=False,
            )  # fmt: skip


def save_arrays(path: str | os.PathLike[str], **arrays: object) -> None:
    """Writes named arrays as an NPZ."""
    check_format(path, (".npz",))
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def draw_march(
    path: str | os.PathLike[str],
    chain: Chain,
    kappa: float,
    settled: NDArray,
    marches: Mapping[str, tuple[str | int, NDArray]],
) -> None:
    """The settled profile with the marched dots, and below the marches' errors beside the growth Lambda^layer.

    marches: name -> (arithmetic, states of layers 0, 1, ...); `settled` has more digits than any of them.
    """
    figure = _figure((11, 7.5))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.1))
    layers = np.arange(len(settled))
    shades = (ORANGE, GREEN, RED, "#7b4fa3", "#b5892c", "#3a7d8c", "#a34f7b")
    above.plot(layers, settled.astype(float), color=BLUE, linewidth=2, label="settled (Newton, Thomas)")
    floor = 1e-3
    for k, (name, (arithmetic, states)) in enumerate(marches.items()):
        color = shades[k % len(shades)]
        shown = np.array([float(value) for value in states])
        errors = [float(abs(_decimal(a) - _decimal(b))) for a, b in zip(states, settled, strict=True)]
        lost = next((l for l, error in enumerate(errors) if not error < 1), len(errors))
        drawn = slice(0, min(lost + 2, len(errors)))  # a march that is lost wanders without meaning
        at = predicted_wall(chain, settled, arithmetic)
        size = 3.5 + 1.2 * (len(marches) - k)
        above.plot(layers[drawn], shown[drawn], "o", color=color, markersize=size, alpha=0.8, label=name)
        values = [max(error, 1e-60) for error in errors[drawn]]
        below.semilogy(layers[drawn], values, ".-", color=color, linewidth=0.8, label=name)
        for axes in (above, below):
            if at is not None:
                axes.axvline(at, color=color, linestyle="--", linewidth=1)
        floor = min(floor, errors[2] or floor)
    rate = float(growth(kappa))
    below.semilogy(layers, floor * rate**layers, color=GREY, linewidth=4, alpha=0.3, label=f"{rate:.3f}^layer")
    above.set_ylim(min(0, settled.astype(float).min()) - 0.3, settled.astype(float).max() + 0.7)
    above.set_title(
        f"Layers as time, kappa = {kappa:g}: one digit buys {1 / np.log10(rate):.2f} layers; "
        "dashed, the predicted walls", fontweight="bold",
    )  # fmt: skip
    above.set_ylabel("state")
    below.set_ylim(floor / 100, 10)
    below.set_xlim(0, len(settled) - 1)
    below.set_ylabel("error of the march")
    below.set_xlabel("layer")
    above.legend(fontsize=8, frameon=False, loc="upper left", ncols=6)
    below.legend(fontsize=8, frameon=False, loc="lower right")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    _save(figure, path)


def draw_response(path: str | os.PathLike[str], response: Response) -> None:
    """The raw Jacobian and the effective response side by side, each in its own signed square-root scale."""
    figure = _figure((12, 6.2))
    left, right = figure.subplots(1, 2)
    raw, effective = response.raw, response.effective
    for axes, matrix, title in (
        (left, raw, "raw Jacobian J: activator, inhibitor"),
        (right, effective, "effective response M\u207b\u00b9 = (A + B\u207b\u00b9)\u207b\u00b9"),
    ):
        shown = np.sign(matrix) * np.sqrt(abs(matrix))
        axes.imshow(shown, cmap="RdBu_r", vmin=-abs(shown).max(), vmax=abs(shown).max(), interpolation="nearest")
        axes.set_title(f"{title}\nasymmetry {asymmetry(matrix):.2g}")
        axes.set_xlabel("current into")
        axes.set_ylabel("answer of")
    middle = len(response.u) - 0.5
    left.axhline(middle, color=GREY, linewidth=0.8)
    left.axvline(middle, color=GREY, linewidth=0.8)
    figure.suptitle("What a settled field answers to a small current", fontsize=14, fontweight="bold")
    _save(figure, path)


def _decimal(value: object) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(float(value))  # type: ignore[arg-type]


def _figure(size: tuple[float, float]) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    check_format(path, (".png",))
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
