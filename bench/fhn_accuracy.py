"""Test accuracy of Kendall's FitzHugh-Nagumo network, 784-512x5-10 of 1,457,674 parameters, on MNIST.

    python -m bench.fhn_accuracy                          three seeds of the single-sweep schedule
    python -m bench.fhn_accuracy --kendall --seeds 1      the published setting, 55 free and 14 nudged steps

Cross-entropy readout, Adam whose rate falls along a cosine to 0, one thread. All settings were chosen on the last
10,000 training images; --validation repeats that, else all 60,000 train and the test set is looked at once.
"""

import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

import eqkernel
from eqkernel import Adam, cosine, models
from eqkernel.data import load_mnist
from eqkernel.training import fit

from .timing import write_json

SIZES = (784, 512, 512, 512, 512, 512, 10)
HELD = 10_000
FHN, FIT = ("schedule", "gain", "input_gain", "output_gain"), ("epochs", "batch", "beta")
SETTINGS: dict[str, dict[str, Any]] = {
    "single-sweep": {"schedule": "single-sweep", "epochs": 10, "batch": 128, "beta": 0.5, "lr": 1e-3},
    "55 + 14": {
        "schedule": models.KENDALL, "gain": 0.25, "input_gain": 7.5, "output_gain": 3.75,
        "epochs": 2, "batch": 64, "beta": 0.05, "lr": 5e-4,
    },
}  # fmt: skip


def run(name: str, seed: int, epochs: int | None, validation: bool, folder: str | None) -> dict[str, Any]:
    """One training from scratch; accuracies in per cent, and the CPU seconds of training."""
    setting = SETTINGS[name] | ({"epochs": epochs} if epochs else {})
    x, y, x_held, y_held = load_mnist(folder)
    if validation:
        x, y, x_held, y_held = x[:-HELD], y[:-HELD], x[-HELD:], y[-HELD:]
    net = models.fhn(*SIZES, seed=seed, **{k: v for k, v in setting.items() if k in FHN})
    steps = setting["epochs"] * -(-len(x) // setting["batch"])
    before, start = models.coupling(net), time.process_time()
    history = fit(
        net, x, y, seed=seed, optimiser=Adam(setting["lr"], schedule=cosine(steps)),
        **{k: v for k, v in setting.items() if k in FIT},
    )  # fmt: skip
    seconds = time.process_time() - start
    right = float(np.mean(eqkernel.predict(net, x_held) == y_held))
    return {
        "setting": name, "seed": seed, "epochs": setting["epochs"], "held out": "validation" if validation else "test",
        "parameters": sum(p.size for p in net.parameters), "accuracy": 100 * right,
        "training accuracy": 100 * (history[-1].accuracy or 0), "cpu seconds": seconds,
        "coupling before": before, "coupling after": models.coupling(net),
        "unsettled batches": history[-1].unsettled,
    }  # fmt: skip


@click.command(help=(__doc__ or "").splitlines()[0])
@click.option("--kendall", is_flag=True, help="The published setting: gamma 1, 55 free and 14 nudged steps.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--epochs", type=click.IntRange(1), help="Instead of the setting's own.")
@click.option("--validation", is_flag=True, help="Train on 50,000 images, judge on the last 10,000.")
@click.option("--data", "folder", help="Folder of MNIST; else $EQKERNEL_DATA.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--json", "path", default="build/fhn_accuracy.json", show_default=True)
def main(
    kendall: bool, seeds: int, epochs: int | None, validation: bool, folder: str | None, threads: int, path: str
) -> None:
    eqkernel.set_threads(threads)
    rows = []
    for seed in range(seeds):
        rows.append(run("55 + 14" if kendall else "single-sweep", seed, epochs, validation, folder))
        click.echo(f"seed {seed}: {rows[-1]['accuracy']:.2f} % in {rows[-1]['cpu seconds']:.0f} s", err=True)
    accuracies = [row["accuracy"] for row in rows]
    found = f"{np.mean(accuracies):.2f} +- {np.std(accuracies):.2f}"
    title = f"{found} % {rows[0]['held out']} accuracy, mean of {seeds} seed(s)"
    columns = [name for name in rows[0] if name != "held out"]
    table = Table(*columns, title=title)
    for row in rows:
        cells = (row[name] for name in columns)
        table.add_row(*(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells))
    Console(width=160).print(table)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"threads": threads, "rows": rows})


if __name__ == "__main__":
    main()
