"""Convolutional rows of the benchmark: settling and training the network of 34,106 weights beside its rivals.

    settle   gamma 1, squared error, live nudge: 32 + 8 synchronous steps, or the fewest even-odd steps that leave
             residuals as small (the input's drive is hoisted by all but autograd)
    step     gamma .1, binary cross-entropy, weights after 100 steps on enlarged digits: converged as 32 + 8, and the
             4 + 3 half-sweeps of few-step training, beside the same in torch and the feed-forward twin
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

import eqkernel
from eqkernel import Bias, Conv, Dense, Layer, Network, Schedule

from .contestants import FLOOR, OVER, Entry, fewest_steps, skipped
from .measure import Row, VerificationError, timed
from .page import CONV as NET
from .problem import cosines, digits
from .rivals.torch_conv import (
    TorchConvAutogradEP,
    TorchConvBackprop,
    TorchConvSettle,
    TorchConvStep,
    exact_gradient,
)

SETTLE_REFERENCE, STEP_REFERENCE = "torch no_grad, NCHW", "torch backprop twin"
READOUT, INPUT = 31_360, 400 * 196  # multiply-adds of the upper and of the lower connection
PASS = 2304 * 196 + READOUT  # of both upper connections


@dataclass(frozen=True)
class ConvProblem:
    """Weights [(16, 5, 5, 1), (16, 3, 3, 16), (10, 3136)], biases, x (B, 784) and labels (B,)."""

    weights: list[np.ndarray]
    biases: list[np.ndarray]
    x: np.ndarray
    labels: np.ndarray
    gamma: float
    beta: float

    @property
    def batch(self) -> int:
        return len(self.x)

    @cached_property
    def target(self) -> np.ndarray:
        return np.eye(10, dtype=self.x.dtype)[self.labels]

    def to(self, dtype: str) -> "ConvProblem":
        weights, biases = ([a.astype(dtype) for a in arrays] for arrays in (self.weights, self.biases))
        return replace(self, weights=weights, biases=biases, x=self.x.astype(dtype))


def drawn(batch: int, gains: tuple[float, ...], bias: float, gamma: float, beta: float) -> ConvProblem:
    """Uniform weights of standard deviation gain / sqrt(fan-in), on enlarged digits of mean 0 and deviation 1."""
    rng = np.random.default_rng(1)
    x, labels = digits(batch)
    shapes = (16, 5, 5, 1), (16, 3, 3, 16), (10, 3136)
    weights = []
    for shape, gain in zip(shapes, gains, strict=True):
        limit = gain * (3 / np.prod(shape[1:])) ** 0.5
        weights.append(rng.uniform(-limit, limit, shape).astype("float32"))
    biases = [np.full(16, bias, "float32"), np.full(16, bias, "float32"), np.zeros(10, "float32")]
    return ConvProblem(weights, biases, ((x - x.mean()) / x.std()).astype("float32"), labels, gamma, beta)


def network(p: ConvProblem, schedule: Schedule, cost: str, backend: str = "cpu") -> Network:
    """The eqkernel network of a problem, holding a copy of its weights."""
    maps = [Layer((14, 14, 16), "sigmoid") for _ in range(2)]
    wires = [Conv(0, 1, 5, 2, 2), Bias(1), Conv(1, 2, 3, 1, 1), Bias(2), Dense(2, 3), Bias(3)]
    net = Network([Layer((28, 28, 1)), *maps, Layer(10, "sigmoid")], wires, cost, schedule, backend=backend)
    for parameter, value in zip(net.parameters, interleaved(p), strict=True):
        parameter[...] = value
    return net


def interleaved(p: ConvProblem) -> list[np.ndarray]:
    return [a for pair in zip(p.weights, p.biases, strict=True) for a in pair]


# -- settle --------------------------------------------------------------------------------------------------------


class EqConvSettle:
    def __init__(self, p: ConvProblem, schedule: Schedule, backend: str = "cpu"):
        self.p, self.net = p, network(p, schedule, "squared-error", backend)

    def run(self) -> None:
        self.free, self.nudged = eqkernel.both_phases(self.net, self.p.x, self.p.labels, self.p.beta, reuse=True)

    def states(self) -> list[list[np.ndarray]]:
        pairs = list(zip(self.nudged.mean[1:], self.nudged.difference[1:], strict=True))
        return [self.free.state[1:], *([m + sign * self.p.beta * d for m, d in pairs] for sign in (1, -1))]


def residuals(p: ConvProblem, states: list[list[np.ndarray]], frozen: bool) -> tuple[float, float]:
    """max |rho(drive) - s| in float64, by the reference backend: of the free state and of both nudged ones."""
    plan = Schedule("probe", p.gamma, 1, 1, "synchronous", "plus-minus", tolerance=None)
    engine = network(p, plan, "squared-error").engine.network  # its layers and connections
    net = Network(engine.layers, engine.connections, "squared-error", plan, "float64", "reference")
    for parameter, value in zip(net.parameters, interleaved(p.to("float64")), strict=True):
        parameter[...] = value
    found = []
    for state, sign in zip(states, (0, 1, -1), strict=True):
        channel = eqkernel.channel.Channel(net, p.batch)
        for place, value in zip(channel.state, [p.x, *state], strict=True):
            place[...] = value
        output = (states[0] if frozen else state)[-1]
        nudge = sign * p.beta * (p.target - output.astype(float))
        largest = 0.0
        for layer in range(1, 4):
            net.engine.refresh_up(channel, layer)
            net.engine.refresh_down(channel, layer, p.gamma)
            rate = np.empty_like(channel.state[layer])
            net.engine.neurons.rate(rate, net.engine.drive(channel, layer, nudge), "sigmoid")
            largest = max(largest, float(abs(rate - channel.state[layer]).max()))
        found.append(largest)
    return found[0], max(found[1:])


def contrast(p: ConvProblem, states: list[list[np.ndarray]]) -> list[np.ndarray]:
    """The gradient that the nudged states give, by the reference backend in float64."""
    net = network(p, Schedule("probe", p.gamma, 1, 1), "squared-error")
    wide = Network(net.layers, net.connections, "squared-error", net.schedule, "float64", "reference")
    plus, minus = ([a.astype(float) for a in s] for s in states[1:])
    x = p.x.astype(float)
    mean = [x, *((a + b) / 2 for a, b in zip(plus, minus, strict=True))]
    difference = [0 * x, *((a - b) / (2 * p.beta) for a, b in zip(plus, minus, strict=True))]
    return wide.engine.gradient(mean, difference, wide.schedule)


def even_odd_steps(
    p: ConvProblem, goal: tuple[float, float], sizes: tuple[float, ...] = (1.0,)
) -> tuple[float, int, int]:
    """The fewest even-odd steps, and their size, whose residuals are no larger than the goal."""

    def reached(size: float, free: int, nudged: int) -> tuple[float, float]:
        rival = TorchConvSettle(p, "even-odd", free, nudged, channels_last=True, step=size)
        rival.run()
        return residuals(p, rival.states(), False)

    return fewest_steps(reached, (max(1.02 * goal[0], FLOOR), max(1.02 * goal[1], FLOOR)), sizes)


def settle_entries(p: ConvProblem, T: int = 32, K: int = 8) -> dict[str, Entry]:
    reference = TorchConvSettle(p, "synchronous", T, K, channels_last=False)
    reference.run()
    goal = residuals(p, reference.states(), False)
    (_, t, k), (size, t_over, k_over) = even_odd_steps(p, goal), even_odd_steps(p, goal, OVER)
    plan = Schedule("conv", 1.0, T, K, "synchronous", "plus-minus", "live", None)
    even_odd = plan.but(order="even-odd", free_steps=t, nudged_steps=k)
    over_relaxed = even_odd.but(free_steps=t_over, nudged_steps=k_over, step=size)
    over = f"even-odd, step {size:g}"
    contestants = {
        SETTLE_REFERENCE: (reference, "synchronous"),
        "torch no_grad, channels last": (TorchConvSettle(p, "synchronous", T, K, True), "synchronous"),
        "torch no_grad, even-odd": (TorchConvSettle(p, "even-odd", t, k, True), "even-odd"),
        "torch no_grad, over-relaxed": (TorchConvSettle(p, "even-odd", t_over, k_over, True, size), over),
        "torch autograd of Phi": (TorchConvAutogradEP(p, T, K), "synchronous"),
        "eqkernel, synchronous": (EqConvSettle(p, plan), "synchronous"),
        "eqkernel, even-odd": (EqConvSettle(p, even_odd), "even-odd"),
        "eqkernel c, synchronous": (EqConvSettle(p, plan, "c"), "synchronous"),
        "eqkernel c, even-odd": (EqConvSettle(p, even_odd, "c"), "even-odd"),
        "eqkernel c, difference": (
            EqConvSettle(p, even_odd.but(form="difference", nudge="frozen"), "c"), "even-odd, frozen nudge",
        ),
        "eqkernel, mean and difference": (
            EqConvSettle(p, even_odd.but(form="mean-difference", nudge="frozen")), "even-odd, frozen nudge",
        ),
        "eqkernel, difference": (
            EqConvSettle(p, even_odd.but(form="difference", nudge="frozen")), "even-odd, frozen nudge",
        ),
        "eqkernel, over-relaxed": (EqConvSettle(p, over_relaxed), over),
        "eqkernel, over-relaxed difference": (
            EqConvSettle(p, over_relaxed.but(form="difference", nudge="frozen")), f"{over}, frozen nudge",
        ),
        "eqkernel c, over-relaxed": (EqConvSettle(p, over_relaxed, "c"), over),
    }  # fmt: skip
    entries = {}
    for name, (contestant, order) in contestants.items():
        free, nudged = (T, K) if order == "synchronous" else (t_over, k_over) if over in order else (t, k)
        passes = free + (1 if name.endswith("difference") and "mean" not in name else 2) * nudged
        flops = 2.0 * p.batch * (INPUT * (passes if "autograd" in name else 1) + 2 * PASS * passes)
        if name.startswith("eqkernel"):
            flops -= 2.0 * p.batch * skipped([PASS - READOUT, READOUT], order, free, nudged, name)
        entries[name] = Entry(contestant.run, contestant, order, f"{free}+{nudged}", flops, "frozen" in order)
    return entries


def check_settle(p: ConvProblem, entries: dict[str, Entry]) -> dict[str, Row]:
    exact, seen = exact_gradient(p, "squared-error"), {}
    for name, entry in entries.items():
        entry.run()
        states = entry.contestant.states()
        whole, worst = cosines(contrast(p, states), exact)
        row = {"residual": list(residuals(p, states, entry.frozen)), "cosine": whole, "worst cosine": worst}
        seen[name] = row
        goal = seen[SETTLE_REFERENCE]["residual"]
        within = all(r <= max(1.05 * g, FLOOR) for r, g in zip(row["residual"], goal, strict=True))
        if not (within and whole > 0.999):
            raise VerificationError(f"{NET}, {name}: {row}; the reference has {goal}")
    return seen


# -- step ----------------------------------------------------------------------------------------------------------

FEW = Schedule("4 + 3", 0.1, 4, 3, "sweep", "difference", tolerance=None)
CONVERGED = Schedule("16 + 4", 0.1, 16, 4, "even-odd", "difference", tolerance=None)


class EqConvStep:
    def __init__(self, p: ConvProblem, schedule: Schedule, backend: str = "cpu"):
        self.p, self.net = p, network(p, schedule, "binary-cross-entropy", backend)
        self.optimiser = eqkernel.Muon(1e-6)

    def run(self) -> None:
        p = self.p
        eqkernel.train_step(self.net, p.x, p.labels, beta=p.beta, optimiser=self.optimiser)

    def gradient(self) -> list[np.ndarray]:
        return eqkernel.ep_gradient(self.net, self.p.x, self.p.labels, self.p.beta)


def trained(batch: int) -> ConvProblem:
    """Weights after 100 steps of the 4 + 3 schedule on enlarged digits."""
    p = drawn(1536, (2.0, 4.0, 4.0), -1.0, gamma=0.1, beta=0.2)
    net, optimiser = network(p, FEW, "binary-cross-entropy"), eqkernel.Muon(0.05)
    for step in range(100):
        part = slice(step % 24 * 64, step % 24 * 64 + 64)
        eqkernel.train_step(net, p.x[part], p.labels[part], beta=p.beta, optimiser=optimiser)
    weights, biases = ([a.copy() for a in net.parameters[i::2]] for i in (0, 1))
    return replace(p, weights=weights, biases=biases, x=p.x[:batch].copy(), labels=p.labels[:batch])


def step_entries(p: ConvProblem) -> dict[str, Entry]:
    def flops(free: float, nudged: float, channels: int = 1) -> float:
        """Half-sweeps of one pass each, then the contrast: W_1 once, the others twice."""
        return 2.0 * p.batch * (2 * INPUT + PASS * (free + channels * nudged + 2))

    contestants = {
        STEP_REFERENCE: (TorchConvBackprop(p, 1e-6), "backprop", "", 2.0 * p.batch * (2 * INPUT + 3 * PASS)),
        "torch no_grad, half-sweeps, Muon": (TorchConvStep(p, 4, 3, 1e-6), "half-sweeps", "4+3", flops(4, 3, 2)),
        "eqkernel, half-sweeps, Muon": (EqConvStep(p, FEW), "half-sweeps", "4+3", flops(4, 3)),
        "eqkernel c, half-sweeps, Muon": (EqConvStep(p, FEW, "c"), "half-sweeps", "4+3", flops(4, 3)),
        "eqkernel c, converged, Muon": (EqConvStep(p, CONVERGED, "c"), "even-odd", "16+4", flops(32, 8)),
        "eqkernel, converged, Muon": (EqConvStep(p, CONVERGED), "even-odd", "16+4", flops(32, 8)),
    }
    return {n: Entry(c.run, c, schedule, steps, count) for n, (c, schedule, steps, count) in contestants.items()}


def check_step(p: ConvProblem, entries: dict[str, Entry]) -> dict[str, Row]:
    seen = {}
    for name, entry in entries.items():
        entry.run()
        own = replace(p, gamma=0.0) if name == STEP_REFERENCE else p
        whole, worst = cosines(entry.contestant.gradient(), exact_gradient(own, "binary-cross-entropy"))
        seen[name] = {"residual": None, "cosine": whole, "worst cosine": worst}
        if not whole > 0.98:
            raise VerificationError(f"{NET}, {name}: cosine {whole:.6f}, worst array {worst:.6f}")
    return seen


def rows(threads: int, rounds: int, seconds: float) -> Iterator[Row]:
    """Settle at B = 32 and whole steps at B = 64."""
    p = drawn(32, (2.0, 2.0, 2.0), 0.0, gamma=1.0, beta=0.02)
    entries = settle_entries(p)
    seen: Any = check_settle(p, entries)
    yield from timed(NET, 32, "settle", entries, seen, SETTLE_REFERENCE, threads, rounds, seconds)
    p = trained(64)
    entries = step_entries(p)
    seen = check_step(p, entries)
    yield from timed(NET, 64, "whole step, conv", entries, seen, STEP_REFERENCE, threads, rounds, seconds)
