"""How exact the integer gradient is: cosine with the gradient of the same weights' equilibrium, in float64."""

from __future__ import annotations

import itertools

import numpy as np

from eqkernel.data import load_digits
from eqkernel.integer import Compiled, Config, initial, integer_images, integer_targets
from eqkernel.integer.compiled import flat, unflat
from eqkernel.integer.model import Report, quantise, sample, traces


def exact(config: Config, w1, w2, x, t) -> tuple[np.ndarray, np.ndarray]:
    """Both layers' gradients at the equilibrium for beta -> 0: weights in units of 1, x and t in [0, 1]."""
    gamma = 2.0**-config.gamma
    h, o = np.zeros((len(x), config.hidden)), np.zeros((len(x), config.outputs))
    for _ in range(400):
        u_h, u_o = x @ w1.T + gamma * o @ w2, h @ w2.T
        h, o = (h + np.clip(u_h, 0, 1)) / 2, (o + np.clip(u_o, 0, 1)) / 2
    gates = (u_h > 0) & (u_h < 1), (u_o > 0) & (u_o < 1)
    c_h, c_o = np.zeros_like(h), np.zeros_like(o)
    for _ in range(400):
        v_h, v_o = gates[0] * (c_o @ w2), gates[1] * (gamma * c_h @ w2.T + t - o)
        c_h, c_o = (c_h + v_h) / 2, (c_o + v_o) / 2
    return c_h.T @ x, c_o.T @ h + gamma * o.T @ c_h


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    norm = np.sqrt(float(np.vdot(a, a)) * float(np.vdot(b, b)))
    return float(np.vdot(a, b)) / norm if norm else 0.0


def forms() -> list[dict]:
    """Cosines of both layers after one epoch on digits, over a batch of 64; prints a table."""
    x, y, *_ = load_digits()
    images, targets = integer_images(x), integer_targets(y, 10)
    rows = []
    print("| gamma | steps | bits of a state | beta | plus-minus: w1, w2 | difference: w1, w2 |")
    print("|--:|--:|--:|--:|--:|--:|")
    schedules = (0, 1, 30, 20), (5, 0, 3, 3)
    for (gamma, leak, free, nudged), fraction, beta in itertools.product(schedules, (7, 3, 0), (1, 3, 5, 8)):
        base = Config(gamma=gamma, leak=leak, free_steps=free, nudged_steps=nudged, fraction=fraction, beta=beta)
        start = base.but(beta=1, fraction=7, form="difference")
        masters = flat(initial(start, 0))
        net = Compiled(start)
        for step in range(180):
            some = slice(8 * step % 1440, 8 * step % 1440 + 8)
            net.train_step(masters, images[some], targets[some], (10, 11), step)
        weights = quantise(unflat(masters, base), base)
        real = [w / 2.0**base.shift1 for w in weights]
        some = slice(0, 64)
        expected = exact(base, *real, images[some] / 127, targets[some] / 127)
        row: dict = {"gamma": gamma, "steps": (free, nudged), "fraction": fraction, "beta": beta}
        for form in ("plus-minus", "difference"):
            config = base.but(form=form)
            x_int, t_int = images[some].astype(np.int64), targets[some].astype(np.int64)
            _, ends = sample(weights, x_int, t_int, config, Report())
            row[form] = [cosine(g, e) for g, e in zip(traces(ends, x_int), expected, strict=True)]
        rows.append(row)
        cells = " | ".join(", ".join(f"{c:.3f}" for c in row[form]) for form in ("plus-minus", "difference"))
        print(f"| 2^-{gamma} | {free} + {nudged} | {8 + fraction} | 2^-{beta} | {cells} |", flush=True)
    return rows
