"""Accuracy of integer equilibrium propagation beside floating point: same net and budget, tuned on held-out data.

    python -m bench.integer_accuracy digits     64-64-10, 10 seeds: float, 8-bit and ternary; batches of 8 and of 1
    python -m bench.integer_accuracy mnist      784-256-10, 3 seeds: float and 8-bit weights
    python -m bench.integer_accuracy forms      the gradient's cosine in either form, by beta, gamma and bits of a state

Every setting of a variant's grid trains on a part of the training set and is judged on the rest (digits: 20 %, two
seeds; MNIST: the last 10,000 images, one seed, 4 epochs). The best then trains on the whole training set; only these
runs see the test set. Learning steps halve after a half and after three quarters of the epochs.
"""

from __future__ import annotations

import argparse
import itertools
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

import eqkernel as eq
from eqkernel.data import batches, load_digits, load_mnist, validation_split
from eqkernel.integer import Compiled, Config, initial, integer_images, integer_targets
from eqkernel.integer.compiled import flat

from .integer_gradient import forms
from .timing import machine, write_json

SHORT = {"form": "difference", "gamma": 5, "leak": 0, "free_steps": 3, "nudged_steps": 3}
TERNARY = {**SHORT, "gamma": 2, "threshold": 8, "shift1": 3, "shift2": 2}


@dataclass(frozen=True)
class Variant:
    """A network and the settings to choose among: a Config's fields or, in floating point, the neuron of the output."""

    name: str
    config: dict[str, Any] | str
    rates: list[tuple]
    batch: int = 8
    epochs: int = 40
    tuning_epochs: int = 40


def shifts(low: int, high: int) -> list[tuple]:
    """Rates of the two layers: the second learns half as fast."""
    return [(rate, rate + 1) for rate in range(low, high + 1)]


SMALL = {"inputs": 65, "hidden": 64, "outputs": 10}
DIGITS = [
    Variant("float64, hard sigmoid outputs", "hard-sigmoid", [(lr,) for lr in (0.08, 0.16, 0.32, 0.64, 1.28)]),
    Variant("float64, linear outputs", "linear", [(lr,) for lr in (0.04, 0.08, 0.16, 0.32, 0.64)]),
    Variant("int8", {**SMALL, **SHORT}, shifts(9, 12)),
    Variant("int8, plus-minus, 20 + 8 + 8 steps", {**SMALL, "form": "plus-minus"}, shifts(9, 12)),
    Variant("int8, nearest rounding", {**SMALL, **SHORT, "stochastic": 0}, shifts(9, 12)),
    Variant("int8, 8-bit states", {**SMALL, **SHORT, "fraction": 0}, shifts(2, 5)),
    Variant("int8, one sample a step", {**SMALL, **SHORT}, shifts(9, 12), batch=1),
    Variant("ternary", {**SMALL, **TERNARY}, shifts(10, 13)),
    Variant("ternary, one sample a step", {**SMALL, **TERNARY}, shifts(10, 13), batch=1),
]
LARGE = {"inputs": 785, "hidden": 256, "outputs": 10}
MNIST = [
    Variant("float32, hard sigmoid outputs", "hard-sigmoid", [(lr,) for lr in (0.08, 0.16, 0.32, 0.64)], 32, 12, 4),
    Variant("float32, linear outputs", "linear", [(lr,) for lr in (0.04, 0.08, 0.16, 0.32)], 32, 12, 4),
    Variant("int8", {**LARGE, **SHORT, "shift1": 7}, shifts(10, 13), 32, 12, 4),
]


def train_integer(variant: Variant, rates: tuple, seed: int, x, y, x_test, y_test) -> tuple[float, dict]:
    config = Config(**variant.config)
    net, masters, step = Compiled(config), flat(initial(config, seed)), 0
    images, targets = integer_images(x), integer_targets(y, config.outputs)
    diverged = 0
    for epoch in range(variant.epochs):
        slower = (2 * epoch >= variant.epochs) + (4 * epoch >= 3 * variant.epochs)
        now = tuple(rate + slower for rate in rates)
        for xb, tb in batches(images, targets, variant.batch, seed=1000 * seed + epoch):
            diverged += net.train_step(masters, xb, tb, now, step) == "diverged"
            step += 1
    counts = {**vars(net.report), "diverged_steps": diverged, "steps": step}
    return 100 * float(np.mean(net.predict(masters, integer_images(x_test)) == y_test)), counts


def train_float(variant: Variant, rates: tuple, seed: int, x, y, x_test, y_test) -> tuple[float, dict]:
    """The same net and dynamics, and a bias of the outputs: squared error, gamma 2^-5, 3 + 3 steps."""
    hidden, dtype = (64, "float64") if x.shape[1] == 64 else (256, "float32")
    schedule = eq.SCHEDULES["few-step"].but(gamma=2.0**-5, nudged_steps=3, tolerance=None)
    options: dict[str, Any] = {"output": variant.config, "cost": "squared-error", "schedule": schedule, "dtype": dtype}
    net = eq.Network.dense(x.shape[1], hidden, 10, seed=seed, **options)
    for epoch in range(variant.epochs):
        slower = (2 * epoch >= variant.epochs) + (4 * epoch >= 3 * variant.epochs)
        for xb, yb in batches(x, y, variant.batch, seed=1000 * seed + epoch):
            try:
                eq.train_step(net, xb, yb, beta=0.5, lr=rates[0] / 2**slower)
            except eq.DivergenceError:
                return 0.0, {"diverged_steps": 1}
    return 100 * float(np.mean(eq.predict(net, x_test) == y_test)), {}


def run(job: tuple) -> tuple[float, dict]:
    """One training: (variant, rates, seed, data)."""
    variant, rates, seed, data = job
    eq.set_threads(1)
    return (train_float if isinstance(variant.config, str) else train_integer)(variant, rates, seed, *data)


def report(name: str, variants: list[Variant], held: list[tuple], whole: tuple, seeds: int, workers: int) -> list[dict]:
    """Choose on the held-out splits, then test; prints a line a variant."""
    rows: list[dict] = []
    with ProcessPoolExecutor(workers) as pool:
        for variant in variants:
            trials = list(itertools.product(variant.rates, enumerate(held)))
            trial = replace(variant, epochs=variant.tuning_epochs)
            scores = pool.map(run, [(trial, rates, 100 + k, data) for rates, (k, data) in trials])
            mean = dict.fromkeys(variant.rates, 0.0)
            for (rates, _), (accuracy, _) in zip(trials, scores, strict=True):
                mean[rates] += accuracy / len(held)
            best = max(mean, key=lambda rates: mean[rates])
            final = list(pool.map(run, [(variant, best, seed, whole) for seed in range(seeds)]))
            each = [accuracy for accuracy, _ in final]
            chosen = {"rates": best, "batch": variant.batch, "epochs": variant.epochs, "validation": mean[best]}
            counts = [counts for _, counts in final]
            rows.append({"data": name, "variant": variant.name, **chosen, "test": each, "counts": counts})
            print(line(rows), flush=True)
    return rows


def line(rows: list[dict]) -> str:
    """Mean and spread of the last row, and its margin to the better float with a 95 % interval over paired seeds."""
    row, test = rows[-1], np.array(rows[-1]["test"])
    lost = np.array(max((r["test"] for r in rows[:2]), key=sum)) - test
    half = stats.t.ppf(0.975, len(lost) - 1) * lost.std(ddof=1) / np.sqrt(len(lost))
    spread, margin = f"{test.mean():.2f} ± {test.std(ddof=1):.2f}", f"{lost.mean():+.2f} ± {half:.2f}"
    return f"| {row['variant']} | {row['rates']} | {row['validation']:.2f} | {spread} | {test.min():.2f} | {margin} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("digits", "mnist", "forms"))
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", help="folder of MNIST")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.what == "forms":
        rows = forms()
    else:
        print("| variant | rates | validation | test, % | worst | points lost to float |\n|:--|:--|--:|--:|--:|--:|")
        if options.what == "digits":
            x, y, *test = load_digits()
            held = [validation_split(x, y, 0.2, seed) for seed in range(2)]
            rows = report("digits", DIGITS, held, (x, y, *test), options.seeds or 10, options.workers)
        else:
            x, y, *test = load_mnist(options.data)
            held = [(x[:50000], y[:50000], x[50000:], y[50000:])]
            rows = report("mnist", MNIST, held, (x, y, *test), options.seeds or 3, options.workers)
    path = options.json or Path(f"build/integer-{options.what}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, json.loads(json.dumps({"machine": machine(), "rows": rows})))


if __name__ == "__main__":
    main()
