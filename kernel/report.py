"""What the command line shows of training and testing: a progress bar, tables, the story of the picture."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import mean, stdev

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from .figures import Story
from .learning import predict
from .network import Network
from .outcomes import Outcome, UnsettledWarning
from .training import Epoch

History = list[Epoch]
Curves = tuple[list[float], list[float]]


@contextmanager
def progress_of(runs: int, epochs: int, batches: int) -> Iterator[Callable[[int], Callable[[Epoch], None]]]:
    """A progress bar for every run; yields what makes the callback of run 0, 1, ... for `training.fit`.

    Nothing warns beneath it: `results` tells of unsettled phases, and a DivergenceError of what overflows.
    """
    columns = TextColumn("{task.description}"), BarColumn(10), TextColumn("{task.fields[now]}")
    with Progress(*columns, console=Console(stderr=True)) as progress, warnings.catch_warnings():
        for kind in (UnsettledWarning, RuntimeWarning):
            warnings.simplefilter("ignore", kind)

        def callback(run: int) -> Callable[[Epoch], None]:
            name = f"{run + 1}/{runs} " if runs > 1 else ""
            bar = progress.add_task(f"{name}compiling", total=epochs * batches, now="")

            def show(epoch: Epoch) -> None:
                progress.update(
                    bar,
                    completed=(epoch.number - 1) * batches + epoch.batches,
                    description=f"{name}epoch {epoch.number}/{epochs}",
                    now=f"loss {epoch.loss:.3f}, accuracy {100 * epoch.accuracy:.1f} %, "
                    f"{_steps(epoch)} steps, {epoch.samples_per_second:,.0f}/s",
                )

            return show

        yield callback


@contextmanager
def telling(seeds: Sequence[int], held_out: str) -> Iterator[list[History]]:
    """Yields a list for the histories; at the end prints those it holds, whatever has happened to runs after them."""
    histories: list[History] = []
    try:
        yield histories
    finally:
        if histories:
            console = Console()
            console.print(results(seeds[: len(histories)], histories, held_out))
            console.print(summary(histories, held_out), style="bold", highlight=False)


def results(seeds: Sequence[int], histories: Sequence[History], held_out: str) -> Table:
    """A row for each seed, after its last epoch; unsettled batches are counted over all epochs."""
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False)
    for column in ("seed", "loss", "training", held_out, "steps", "residual", "unsettled", "samples/s"):
        table.add_column(column, justify="right", no_wrap=True)
    for seed, history in zip(seeds, histories, strict=True):
        last, unsettled = history[-1], sum(epoch.unsettled for epoch in history)
        table.add_row(
            str(seed),
            f"{last.loss:.4f}",
            f"{100 * last.accuracy:.2f} %",
            f"{100 * (last.held_out or 0):.2f} %",
            _steps(last),
            f"{last.residual:.1e}",
            f"{unsettled}/{sum(epoch.batches for epoch in history)}",
            f"{mean(epoch.samples_per_second for epoch in history):,.0f}",
        )
    if any(epoch.unsettled for history in histories for epoch in history):
        table.caption = f"unsettled batches: {Outcome.OUT_OF_STEPS.value}"
    return table


def summary(histories: Sequence[History], held_out: str) -> str:
    """Accuracy on the held-out samples after the last epoch: mean and standard deviation over the seeds."""
    values = [100 * (history[-1].held_out or 0) for history in histories]
    if len(values) == 1:
        return f"{values[0]:.2f} % {held_out} accuracy"
    return f"{mean(values):.2f} ± {stdev(values):.2f} % {held_out} accuracy, {len(values)} seeds"


def confusion(guesses: NDArray, y: NDArray, names: Sequence[str]) -> Table:
    """How often each class (a row) was taken for each (a column)."""
    right = int((guesses == y).sum())
    table = Table(title=f"{100 * right / len(y):.2f} % of {len(y):,} test images are read rightly")
    table.add_column("is \\ read as")
    counts = np.zeros((len(names), len(names)), int)
    np.add.at(counts, (y, guesses), 1)
    for name in names:
        table.add_column(name, justify="right")
    for k, row in enumerate(counts):
        cells = (f"[green]{n}" if k == j else f"[red]{n}" if n else "·" for j, n in enumerate(row))
        table.add_row(names[k], *cells)
    return table


def story(
    title: str,
    net: Network,
    learned: NDArray,
    histories: Sequence[History],
    held_out: str,
    x: NDArray,
    y: NDArray,
    names: Sequence[str],
    residuals: dict[str, Curves],
) -> Story:
    """The picture's content: the largest rows of `learned`, and the surest errors on the held-out (x, y)."""
    side = round(x.shape[1] ** 0.5)
    strongest = np.argsort(-np.linalg.norm(learned, axis=1), kind="stable")[:48]
    output = predict(net, x, output=True)
    guesses = output.argmax(axis=1)
    wrong = guesses != y
    shown = np.lexsort((-output.max(axis=1), ~wrong))[:30]  # errors first, the most confident foremost
    return Story(
        title=title,
        histories=histories,
        held_out=held_out,
        residuals=residuals,
        steps=(net.schedule.free_steps, net.schedule.nudged_steps),
        features=learned[strongest].reshape(-1, side, side),
        images=x[shown].reshape(-1, side, side),
        labels=[names[k] for k in y[shown]],
        guesses=[names[k] for k in guesses[shown]],
        errors=f"{wrong.sum():,} of {len(y):,} {held_out} images misread, the surest first",
    )


def _steps(epoch: Epoch) -> str:
    return f"{epoch.free_steps:.3g}+{epoch.nudged_steps:.3g}"
