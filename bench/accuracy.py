"""MNIST accuracy of equilibrium propagation beside backpropagation of the same net: same start, batches and budget.

    python -m bench.accuracy                     60,000 images, 3 seeds, the test set looked at once
    python -m bench.accuracy --validation        50,000 images, judged on the other 10,000, where settings were chosen

The twin is the feed-forward net (hard sigmoid, softmax readout, cross-entropy) that the few-step schedule tends to for
gamma -> 0, trained with torch's autograd and Adam.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import eqkernel as eq
from eqkernel.data import batches, load_mnist

from .timing import machine, write_json

# Chosen on the validation split among lr (.5 to 5) e-3, batch 32 to 256, beta .02 to 1, weight decay 0 to .3.
SETTINGS = {
    (784, 512, 10): {"lr": 1e-3, "epochs": 15, "beta": 0.2, "batch": 32, "weight_decay": 0.1},
    (784, 512, 512, 10): {"lr": 1e-3, "epochs": 10, "beta": 0.2, "batch": 64, "weight_decay": 0.0},
}


def equilibrium_propagation(sizes, seed, x, y, settings):
    """(seconds of processor time, predict) after training a network with the default schedule."""
    net = eq.Network.dense(*sizes, seed=seed)
    net.warned = True
    steps = settings["epochs"] * -(-len(x) // settings["batch"])
    adam = eq.Adam(settings["lr"], weight_decay=settings["weight_decay"], schedule=eq.cosine(steps))
    unsettled = 0
    start = time.process_time()
    for epoch in range(settings["epochs"]):
        for xb, yb in batches(x, y, settings["batch"], seed=1000 * seed + epoch):
            step = eq.train_step(net, xb, yb, beta=settings["beta"], optimiser=adam)
            unsettled += step.outcome is eq.Outcome.OUT_OF_STEPS
    seconds = time.process_time() - start
    return seconds, lambda images: eq.predict(net, images), unsettled / steps


def backpropagation(sizes, seed, x, y, settings):
    """The same for the twin."""
    net = eq.Network.dense(*sizes, seed=seed)
    weights = [torch.tensor(p, requires_grad=True) for p in net.parameters]
    steps = settings["epochs"] * -(-len(x) // settings["batch"])
    groups = [{"params": weights[0::2], "weight_decay": settings["weight_decay"]},
              {"params": weights[1::2], "weight_decay": 0.0}]  # fmt: skip
    adam = torch.optim.AdamW(groups, lr=settings["lr"], fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, eq.cosine(steps))

    def output(images):
        state = torch.as_tensor(images)
        for weight, bias in zip(weights[0::2], weights[1::2], strict=True):
            drive = torch.addmm(bias, state, weight.T)
            state = drive.clamp(0, 1)
        return drive

    start = time.process_time()
    for epoch in range(settings["epochs"]):
        for xb, yb in batches(x, y, settings["batch"], seed=1000 * seed + epoch):
            adam.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(output(xb), torch.as_tensor(yb, dtype=torch.long)).backward()
            adam.step()
            schedule.step()
    seconds = time.process_time() - start

    @torch.no_grad()
    def predict(images):
        return output(images).argmax(1).numpy()

    return seconds, predict, 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--validation", action="store_true", help="hold out the last 10,000 training images")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", help="folder of MNIST")
    parser.add_argument("--json", type=Path, default=Path("build/accuracy.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    eq.set_threads(1)
    x, y, x_test, y_test = load_mnist(options.data)
    if options.validation:
        x, y, x_test, y_test = x[:50000], y[:50000], x[50000:], y[50000:]
    rows = []
    for sizes, settings in SETTINGS.items():
        for method in (equilibrium_propagation, backpropagation):
            for seed in range(options.seeds):
                seconds, predict, unsettled = method(sizes, seed, x, y, settings)
                accuracy = 100 * float(np.mean(predict(x_test) == y_test))
                rows.append({"net": "-".join(map(str, sizes)), "method": method.__name__.replace("_", " "),
                             "seed": seed, "accuracy": accuracy, "cpu_seconds": seconds, "unsettled": unsettled,
                             **settings})  # fmt: skip
                print(json.dumps(rows[-1]), flush=True)
    table = Table("net", "method", "accuracy, %", "each seed", "processor seconds", "unsettled batches")
    for sizes in SETTINGS:
        for method in dict.fromkeys(row["method"] for row in rows):
            mine = [r for r in rows if r["net"] == "-".join(map(str, sizes)) and r["method"] == method]
            each = [row["accuracy"] for row in mine]
            table.add_row(mine[0]["net"], method, f"{statistics.mean(each):.2f}", " ".join(f"{a:.2f}" for a in each),
                          f"{statistics.mean(r['cpu_seconds'] for r in mine):.0f}",
                          f"{statistics.mean(r['unsettled'] for r in mine):.1%}")  # fmt: skip
    Console().print(table)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.json, {"machine": machine(), "validation": options.validation, "rows": rows})


if __name__ == "__main__":
    main()
