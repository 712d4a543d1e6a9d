"""How few half-sweeps keep the gradient: cosines of float32 steps with the float64 implicit gradient at the free fixed
point of the same weights and gamma, over numbers of half-sweeps and feedback gains (difference form).

    python -m bench.exactness                the digits, and MNIST where it is found; some five minutes of one core

Networks of 1, 2 and 4 hidden layers, hard sigmoid and tanh, cross-entropy and squared error, are probed at their first
weights, after one epoch and after --epochs of the default schedule with Adam. A cell is the least cosine of all
of these: over all parameters together / of the worst single array.
"""

import argparse
from collections import defaultdict
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

import eqkernel as eq
from eqkernel.data import batches, load_digits, load_mnist

from .ours import parameters
from .problem import Problem, cosines, implicit_gradient
from .timing import machine, write_json

HIDDEN = [(512,), (512, 512), (256, 256, 256, 256)]
STEPS = [(free, nudged) for free in (1, 2, 3) for nudged in (1, 2, 3)]
GAMMAS = (0.01, 0.005, 0.003, 0.001)
PROBED = 256  # samples that the network has not seen


def problem_of(net, x, y, gamma):
    """The network as the problem whose implicit gradient is wanted, in float64."""
    L = len(net.sizes) - 1
    pairs = parameters(net, Problem(net.sizes, [], [], [], x, y))
    neuron, cost = net.layers[1].neuron, "cross-entropy" if net.has_readout else "squared-error"
    return Problem(net.sizes, pairs[0::2], pairs[1::2], [None] * L, x, y, neuron, cost, gamma).to("float64")


def probe(net, x, y, beta):
    """{(free, nudged, gamma): (overall cosine, worst array's)} at the network's present weights."""
    found = {}
    for gamma in GAMMAS:
        exact = implicit_gradient(problem_of(net, x, y, gamma))
        for free, nudged in STEPS:
            schedule = net.schedule.but(gamma=gamma, free_steps=free, nudged_steps=nudged, tolerance=None)
            found[free, nudged, gamma] = cosines(eq.ep_gradient(net, x, y, beta, schedule=schedule), exact)
    return found


def probes(data, hidden, neuron, cost, epochs, beta):
    """(epochs trained, probe) of one network as it learns."""
    x, y, held_x, held_y = data
    output = "linear" if cost == "squared-error" else None
    net = eq.Network.dense(x.shape[1], *hidden, 10, neuron=neuron, output=output, cost=cost, seed=0)
    net.warned = True
    adam = eq.Adam(1e-3)
    for epoch in range(epochs + 1):
        if epoch in (0, 1, epochs):
            yield epoch, probe(net, held_x[:PROBED], held_y[:PROBED], beta)
        for xb, yb in batches(x, y, 64, seed=epoch):
            eq.train_step(net, xb, yb, beta=0.1, optimiser=adam)


def table(rows, beta):
    """The least cosines of each depth."""
    least = defaultdict(lambda: (1.0, 1.0))
    for row in rows:
        for setting, found in row["cosines"].items():
            key = len(row["hidden"]), *setting
            least[key] = tuple(map(min, least[key], found))
    grid = Table("hidden", "free + nudged", *(f"gamma {g:g}" for g in GAMMAS), title=f"beta {beta:g}: overall / worst")
    for hidden, (free, nudged) in product(HIDDEN, STEPS):
        found = (least[len(hidden), free, nudged, gamma] for gamma in GAMMAS)
        grid.add_row(str(len(hidden)), f"{free} + {nudged}", *(f"{whole:.5f} / {worst:.4f}" for whole, worst in found))
    return grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5, help="late in training")
    parser.add_argument("--beta", type=float, default=0.02)
    parser.add_argument("--data", help="folder of MNIST")
    parser.add_argument("--json", type=Path, default=Path("build/exactness.json"))
    options = parser.parse_args()
    eq.set_threads(1)
    sets = {"digits": load_digits()}
    try:
        x, y, *held = load_mnist(options.data)
        sets["mnist"] = x[:19_200], y[:19_200], *held
    except eq.EqkernelError as missing:
        print(f"without MNIST: {missing}")
    rows = []
    cases = list(product(sets, HIDDEN, ("hard-sigmoid", "tanh"), ("cross-entropy", "squared-error")))
    for name, hidden, neuron, cost in track(cases, "networks"):
        for epoch, found in probes(sets[name], hidden, neuron, cost, options.epochs, options.beta):
            rows.append({"data": name, "hidden": hidden, "neuron": neuron, "cost": cost, "epoch": epoch,
                         "cosines": found})  # fmt: skip
    Console(width=140).print(table(rows, options.beta))
    plain = [{**row, "cosines": [[*setting, *found] for setting, found in row["cosines"].items()]} for row in rows]
    options.json.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.json, {"machine": machine(), "beta": options.beta, "rows": plain})


if __name__ == "__main__":
    main()
