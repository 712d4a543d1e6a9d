"""The physics panels on the command line: eqkernel field, march, response."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from .cli_options import BACKEND, LARGEST, THREADS
from .cpu.threads import set_threads
from .errors import EqkernelError
from .field_figures import check_format, draw_march, draw_response, image_of, save_arrays, save_frames
from .fields import PRESETS, SCHEMES, FitzHughNagumo
from .march import CubicChain, hamiltonian_march, layers_per_digit, predicted_wall, stationary_newton, wall
from .reference.diffusion import BEYOND
from .response import asymmetry, linearise, reciprocity, stationary

FILE = click.Path(path_type=Path, dir_okay=False)
MOST = 2000  # layers of a march, and digits of its arithmetic: more take minutes
SEED = click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the noise.")


def constants(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that set a field's constants."""
    for name in ("dx", "beta", "alpha", "eps", "Dv", "Du"):
        command = click.option(f"--{name}", name, type=float, help="Instead of the preset's.")(command)
    return click.option(
        "--preset", type=click.Choice(list(PRESETS)), default="labyrinth", show_default=True, help="Constants to use."
    )(command)


@click.command()
@click.option("--size", default="512", show_default=True, metavar="N|HxW", help="Cells.")
@click.option("--steps", type=click.IntRange(0), default=20000, show_default=True)
@click.option("--poke", "pokes", multiple=True, metavar="X,Y,RADIUS,VALUE", help="Set u in a disc before the run.")
@constants
@click.option("--dt", type=float, help="Step of time.  [default: 0.9 of the stability limit]")
@click.option("--boundary", type=click.Choice(list(BEYOND)), default="periodic", show_default=True)
@click.option("--scheme", type=click.Choice(list(SCHEMES)), default="explicit", show_default=True)
@click.option("--noise", type=float, default=0.01, show_default=True, help="Of the start; 0 leaves only the pokes.")
@click.option("--frames", type=click.IntRange(2), help="Of a GIF.  [default: 60]")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
@BACKEND
@THREADS
@SEED
@click.option("--out", type=FILE, default="turing.png", show_default=True, help=".png, .gif or .npz.")
def field(
    size: str, steps: int, pokes: tuple[str, ...], preset: str, frames: int | None, threads: int | None, out: Path,
    **options: Any,
) -> None:  # fmt: skip
    """Let a FitzHugh-Nagumo field settle into a Turing pattern, and save it.

    A PNG holds the last picture, a GIF how it came about, an NPZ both species and the constants.
    """
    kind = check_format(out)
    if frames is not None and kind != ".gif":
        raise EqkernelError(f"--frames is for a GIF: name --out so, as {out.stem}.gif, or leave it out")
    frames = frames or 60
    if threads:
        set_threads(threads)
    options = PRESETS[preset] | {name: value for name, value in options.items() if value is not None}
    grid = FitzHughNagumo(_sheet(size), **options)
    for poke in pokes:
        grid.poke(*_numbers(poke, 4, "--poke"))
    pictures = [image_of(grid.u)] if kind == ".gif" else []
    count = frames - 1 if kind == ".gif" else 100
    began = time.perf_counter()
    with _progress() as progress:
        bar = progress.add_task("compiling", total=steps, now="")
        for k in range(count):
            grid.step(steps * (k + 1) // count - steps * k // count)
            done = steps * (k + 1) // count
            rate = 1e-6 * done * grid.u.size / (time.perf_counter() - began)
            now = f"t = {grid.time:.1f}, {rate:,.0f} Mcells/s"
            progress.update(bar, completed=done, description=f"step {done}/{steps}", now=now)
            if kind == ".gif":
                pictures.append(image_of(grid.u))
    if kind == ".npz":
        numbers = grid.constants._asdict() | {"dx": grid.dx, "time": grid.time}
        save_arrays(out, u=grid.u, v=grid.v, **numbers | {"Du": grid.Du, "Dv": grid.Dv})
    else:
        save_frames(pictures or [image_of(grid.u)], out)
    click.echo(
        f"{grid.u.size:,} cells, {steps} steps of {grid.dt:.4g}: t = {grid.time:.1f}, residual {grid.residual:.1e}, "
        f"energy {grid.energy:.6g}; saved {out}"
    )


@click.command()
@click.option("--kappa", type=float, default=0.803, show_default=True, help="-f'(u)/D at rest; energy minima have > 0.")
@click.option(
    "--digits", default="float16,float32,10,float64,24", show_default=True, metavar="N[,N...]",
    help="Decimal digits of each march, or NumPy's float types.",
)  # fmt: skip
@click.option("--layers", type=click.IntRange(4), help="Default: past the last wall.")
@click.option("--ends", default="0.6,0.7", show_default=True, metavar="FIRST,LAST", help="States of the end layers.")
@click.option("--out", type=FILE, default="march.png", show_default=True)
def march(kappa: float, digits: str, layers: int | None, ends: str, out: Path) -> None:
    """Compute a chain's layers one from the other, in several precisions, until each meets its wall.

    The settled states, from the same equations with both ends given, know no wall.
    """
    check_format(out, (".png",))
    chain, per_digit = CubicChain.of(kappa), layers_per_digit(kappa)
    precisions = [_precision(part) for part in digits.split(",")]
    names = [f"{p} digits" if isinstance(p, int) else p for p in precisions]
    most = max(_decimals(p) for p in precisions)
    first, last = _numbers(ends, 2, "--ends")
    needed = layers or per_digit * (most + 3) + 8
    arithmetic = most + 20 + needed / per_digit if per_digit else np.inf
    if not max(needed, arithmetic) <= MOST:
        raise EqkernelError(
            f"{needed:,.0f} layers in {arithmetic:,.0f} digits take too long, at most {MOST:,} of each: choose fewer "
            "--layers or --digits, or a kappa nearer 1"
        )
    layers = int(needed)
    settled = stationary_newton(chain, first, last, layers, arithmetic=int(arithmetic))
    marches = {}
    for name, precision in zip(names, precisions, strict=True):
        states = hamiltonian_march(chain, settled[0], settled[1], layers, precision)
        marches[name] = (precision, states)
        met, expected = wall(states, settled), predicted_wall(chain, settled, precision)
        said = "no wall" if met is None else f"wall at layer {met}"
        click.echo(f"{name:>10}: {said}, predicted {'none' if expected is None else expected}")
    solved = stationary_newton(chain, first, last, layers)
    error = max(abs(float(a) - float(b)) for a, b in zip(solved, settled, strict=True))
    click.echo(f"{'Newton':>10}: float64, {layers} layers, error {error:.1e}: no wall")
    draw_march(out, chain, kappa, settled, marches)
    click.echo(f"kappa {kappa:g}: {per_digit:.3f} layers per digit; saved {out}")


@click.command()
@click.option("--size", default="40", show_default=True, metavar="N|HxW", help="Cells: a line or a sheet.")
@constants
@click.option("--boundary", type=click.Choice(list(BEYOND)), default="neumann", show_default=True)
@click.option("--cells", metavar="I,J", help="Two cells to push in turn.  [default: at 1/8 and 3/4]")
@SEED
@click.option("--out", type=FILE, default="response.png", show_default=True)
def response(size: str, preset: str, cells: str | None, out: Path, **options: Any) -> None:
    """Settle a field, push it, and draw how it answers: a lopsided Jacobian, a symmetric response."""
    check_format(out, (".png",))
    options = PRESETS[preset] | {name: value for name, value in options.items() if value is not None}
    shape = _sheet(size) if "x" in size else (_whole(size, "--size"),)
    grid = FitzHughNagumo(shape, dtype="float64", noise=0.1, **options)
    i, j = _pair(cells, grid.u.size)
    linearise(grid)  # refuses what is too large, before the work
    with _progress() as progress:
        bar = progress.add_task("settling", total=40, now="")
        for k in range(40):
            grid.step(5000)
            residual = grid.residual
            progress.update(bar, completed=k + 1, now=f"residual {residual:.1e}")
            if residual < 1e-9:
                break
    grid.u = stationary(grid)
    found = linearise(grid)
    draw_response(out, found)
    there, back = reciprocity(grid, i, j)
    raw, effective = asymmetry(found.raw), asymmetry(found.effective)
    click.echo(f"asymmetry: raw Jacobian {raw:.3f}, effective response {effective:.1e}")
    click.echo(f"pushed by hand: cell {i} answers cell {j} with {there:.10f}, {j} answers {i} with {back:.10f}")
    click.echo(f"saved {out}")


COMMANDS = [field, march, response]


def _progress() -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(20), TextColumn("{task.fields[now]}"), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True))


def _sheet(size: str) -> tuple[int, int]:
    sides = size.lower().split("x")
    if len(sides) > 2 or not all(sides):
        raise EqkernelError(f"--size {size!r}: give the cells of a side, like 512, or rows x columns, like 256x512")
    return _whole(sides[0], "--size"), _whole(sides[-1], "--size")


def _whole(text: str, option: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise EqkernelError(f"{option} {text!r} is not a whole number") from None
    if number > LARGEST:
        raise EqkernelError(f"{option} {text!r}: choose at most {LARGEST:,}")
    return number


def _pair(text: str | None, n: int) -> tuple[int, int]:
    """Two cells of a field of n."""
    if text is None:
        return n // 8, 3 * n // 4
    pair = [_whole(part, "--cells") for part in text.split(",")]
    if len(pair) != 2 or not all(0 <= cell < n for cell in pair):
        raise EqkernelError(f"--cells {text!r}: give two of the field's cells, 0 to {n - 1}, like 3,{n - 1}")
    return pair[0], pair[1]


def _numbers(text: str, count: int, option: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise EqkernelError(f"{option} {text!r}: give {count} finite numbers with commas between them")
    return numbers


def _precision(text: str) -> str | int:
    text = text.strip()
    with suppress(ValueError):
        return int(text)
    if text in ("float16", "float32", "float64", "longdouble"):
        return text
    raise EqkernelError(f"--digits {text!r}: give whole numbers of digits, float16, float32, float64 or longdouble")


def _decimals(precision: str | int) -> int:
    return precision if isinstance(precision, int) else int(-np.log10(np.finfo(precision).eps)) + 1
