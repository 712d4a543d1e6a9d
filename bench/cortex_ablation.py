"""What the parts of cortex-conv are worth: one change at a time, equal budget, three seeds, beside a backprop twin.

    python -m bench.cortex_ablation                  10,000 MNIST images, two epochs, judged on 10,000 held-out ones
    python -m bench.cortex_ablation --only gamma     the rows whose name holds "gamma"

The held-out images are the last 10,000 of the training set; the test set is not read. The twin is the feed-forward net
of the same start, batches and optimiser, its gradients from torch's autograd. A difference counts if it exceeds the
spread over the seeds.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

import eqkernel as eq
from eqkernel import models
from eqkernel.data import batches, load_mnist
from eqkernel.training import accuracy, fit

from .timing import machine, write_json

BASE: dict[str, Any] = {"optimiser": lambda **o: eq.Muon(0.05, weight_decay=0.02, **o)}
ADAGO = {"optimiser": lambda **o: eq.AdaGO(1.5, weight_decay=0.02, **o)}
MOMENTUM = {"optimiser": lambda **o: eq.Momentum(0.05, **o)}
ALL = {"adaptation": 0.3, "adjustment": eq.Adjustment(), "reward": "surprise"}
ROWS: dict[str, dict[str, Any]] = {
    "base: Muon, no adaptation, adjustment or reward": {},
    "backpropagation twin": {"twin": True},
    "adaptation current, g = 0.3": {"adaptation": 0.3},
    "adjusted adaptation": {"adjustment": eq.Adjustment()},
    "reward": {"reward": "surprise"},
    "AdaGO for Muon": ADAGO,
    "all four": ALL | ADAGO,
    "all four but adaptation": ALL | ADAGO | {"adaptation": 0.0},
    "all four but adjustment": ALL | ADAGO | {"adjustment": None},
    "all four but reward": ALL | ADAGO | {"reward": None},
    "all four but AdaGO (momentum)": ALL | MOMENTUM,
    "none of the four (momentum)": MOMENTUM,
    "Adam": {"optimiser": lambda **o: eq.Adam(5e-3, **o)},
    "gamma 0.01": {"gamma": 0.01},
    "gamma 0.1": {"gamma": 0.1},
    "gamma 0.3": {"gamma": 0.3},
    "gamma 1": {"gamma": 1.0},
    "steps 1 + 1": {"free_steps": 1, "nudged_steps": 1},
    "steps 5 + 4": {"free_steps": 5, "nudged_steps": 4},
    "steps 9 + 8": {"free_steps": 9, "nudged_steps": 8},
}
BATCH, BETA, IMAGES = 64, 0.2, 10_000


def run(change: dict[str, Any], seed: int, epochs: int, folder: str | None) -> dict[str, float]:
    """One training: accuracy on the held-out images in per cent, the last batch's residual, processor seconds."""
    x, y, _, _ = load_mnist(folder)
    held = x[-10_000:], y[-10_000:]
    x, y = x[:IMAGES], y[:IMAGES]
    setting = BASE | change
    plan = {name: setting[name] for name in ("gamma", "free_steps", "nudged_steps") if name in setting}
    net = models.cortex_conv(
        seed=seed, adaptation=setting.get("adaptation", 0.0), schedule=models.CORTEX.but(tolerance=None, **plan)
    )
    optimiser = setting["optimiser"](schedule=eq.cosine(epochs * -(-len(x) // BATCH), 50))
    start = time.process_time()
    if setting.get("twin"):
        backpropagation(net, optimiser, x, y, seed, epochs)
        residual = 0.0
    else:
        history = fit(
            net, x, y, epochs=epochs, batch=BATCH, optimiser=optimiser, beta=BETA, seed=seed,
            reward=setting.get("reward"), adjustment=setting.get("adjustment"),
        )  # fmt: skip
        residual = history[-1].residual
    seconds = time.process_time() - start
    if setting.get("twin"):  # its network has no feedback at all
        net.schedule = net.schedule.but(gamma=1e-12, free_steps=1)
    return {"accuracy": 100 * accuracy(net, *held), "residual": residual, "seconds": seconds}


def backpropagation(net: eq.Network, optimiser: Any, x: Any, y: Any, seed: int, epochs: int) -> None:
    """Trains the weights of `net` as those of a feed-forward net, by torch's autograd and the same optimiser."""
    import torch
    from torch.nn.functional import conv2d, cross_entropy

    torch.set_num_threads(1)
    for epoch in range(1, epochs + 1):
        for xb, yb in batches(x, y, BATCH, seed * 1_000_003 + epoch):
            w = [torch.tensor(p, requires_grad=True) for p in net.parameters]
            s = torch.from_numpy(xb).reshape(-1, 1, 28, 28)
            s = torch.sigmoid(conv2d(s, w[0].permute(0, 3, 1, 2), w[1], stride=2, padding=2))
            s = torch.sigmoid(conv2d(s, w[2].permute(0, 3, 1, 2), w[3], padding=1))
            logits = torch.addmm(w[5], s.permute(0, 2, 3, 1).reshape(len(xb), -1), w[4].T)
            loss = cross_entropy(logits, torch.from_numpy(yb))
            optimiser.apply(net, [g.numpy() for g in torch.autograd.grad(loss, w)])
            optimiser.steps += 1


@click.command(help=__doc__)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=2, show_default=True)
@click.option("--only", default="", help="Rows whose name holds this.")
@click.option("--data", "folder", help="Folder of MNIST.")
@click.option("--json", "path", type=Path, default=Path("build/cortex_ablation.json"), show_default=True)
def main(seeds: int, epochs: int, only: str, folder: str | None, path: Path) -> None:
    """The table."""
    eq.set_threads(1)
    rows = []
    table = Table("change", "held-out, %", "each seed", "residual", "processor s")
    for name, change in ROWS.items():
        if only not in name:
            continue
        runs = [run(change, seed, epochs, folder) for seed in range(seeds)]
        each = [r["accuracy"] for r in runs]
        mean = statistics.mean(each)
        spread = f" ± {statistics.stdev(each):.2f}" if len(each) > 1 else ""
        residual, seconds = (float(np.mean([r[key] for r in runs])) for key in ("residual", "seconds"))
        cells = name, f"{mean:.2f}{spread}", " ".join(f"{a:.2f}" for a in each), f"{residual:.2g}", f"{seconds:.1f}"
        table.add_row(*cells)
        rows.append({"change": name, "accuracy": each, "residual": residual, "seconds": seconds})
        print(" | ".join(cells), flush=True)
    Console().print(table)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"machine": machine(), "images": IMAGES, "epochs": epochs, "rows": rows})


if __name__ == "__main__":
    main()
