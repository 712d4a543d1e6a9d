"""Verify first, time second: every group of contestants becomes rows of plain data."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

import eqkernel

from .contestants import (
    SETTLE_REFERENCE,
    STEP_REFERENCE,
    STEPS,
    UPDATE_REFERENCE,
    Entry,
    settle_entries,
    step_entries,
    update_entries,
)
from .ours import Copies, EqSettle, EqStep, use_threads
from .problem import (
    Arrays,
    Problem,
    adam_change,
    contrast,
    cosines,
    implicit_gradient,
    residual,
    settling,
    training,
)
from .timing import interleave, ratio

Row = dict[str, Any]
SETTLED = [((784, 512, 10), False), ((784, 512, 512, 10), False), ((784, 256, 10), True)]
ROUNDING = 1e-6  # float32 adds so much to a residual, at most: 5e-7 to 7e-7 are left where steps no longer change it
TRAINED = [(784, 512, 10), (784, 512, 512, 10), (784, 256, 256, 256, 256, 10)]


class VerificationError(AssertionError):
    """A contestant does not solve the problem; nothing of its group is timed."""


def check_settle(p: Problem, entries: dict[str, Entry]) -> dict[str, Row]:
    """Runs every contestant once; its residuals must not exceed the reference's, its cosine not fall below
    .999.
    """
    exact = implicit_gradient(p.to("float64"))
    seen: dict[str, Row] = {}
    for name, entry in entries.items():
        entry.run()
        states = entry.contestant.states()
        free, nudged = residual(p, states, entry.frozen)
        whole, worst = cosines(contrast(p, states), exact)
        seen[name] = {"residual": [free, nudged], "cosine": whole, "worst cosine": worst}
    for name, row in seen.items():
        free, nudged = row["residual"]
        goals = (max(1.05 * r + ROUNDING, entries[name].floor) for r in seen[SETTLE_REFERENCE]["residual"])
        free_goal, nudged_goal = goals
        if not (free <= free_goal and nudged <= nudged_goal and row["cosine"] > 0.999):
            goal = seen[SETTLE_REFERENCE]
            raise VerificationError(f"{p.name}, B={p.batch}, {name}: {row}; the reference has {goal}")
    return seen


def check_update(entries: dict[str, Entry], arrays: dict[str, Any]) -> dict[str, Row]:
    """Three Adam steps beside float64, each on other traces: the change must agree to a part in a hundred."""
    W, x = (arrays[k].astype("float64") for k in ("W", "x"))
    traces = [tuple(np.roll(arrays[k], shift, 0) for k in ("plus", "minus")) for shift in (0, 1, 2)]
    m, v, change = np.zeros_like(W), np.zeros_like(W), np.zeros_like(W)
    for step, (plus, minus) in enumerate(traces, 1):
        gradient = (minus.astype("float64") - plus).T @ x / (2 * arrays["beta"] * len(x))
        change += adam_change(gradient, m, v, step, lr=1e-3)
    seen = {}
    for name, entry in entries.items():
        for trace in traces:
            entry.contestant.load(*trace)
            entry.run()
        found = entry.contestant.parameters()[0] - W
        error = float(np.linalg.norm(found - change) / np.linalg.norm(change))
        whole, worst = cosines([found], [change])
        if not error < 1e-2:
            raise VerificationError(f"update, {name}: the weights' change is off by {error:.1e}")
        seen[name] = {"residual": None, "cosine": whole, "worst cosine": worst}
    return seen


def step_gradient(contestant: Any, optimiser: str) -> Arrays:
    """The gradient behind one step at lr 1: the change of plain SGD, or of Adam with eps 1, g / (|g| + 1),
    undone.
    """
    before = [a.copy() for a in contestant.parameters()]
    contestant.run()
    change = [a - b for a, b in zip(before, contestant.parameters(), strict=True)]
    return change if optimiser == "sgd" else [u / (1 - abs(u)) for u in change]


def zeros_of(p: Problem, settled: EqSettle) -> list[float]:
    """Shares of zeros, which products may skip: of the input, and of the hidden layers' means and differences."""
    hidden = [np.hstack(a[1 : p.top + 1]) for a in (settled.nudged.mean, settled.nudged.difference)]
    return [float((a == 0).mean()) for a in (p.x, *hidden)]


def check_step(p: Problem, optimiser: str, entries: dict[str, Entry]) -> dict[str, Row]:
    """Cosine of every contestant's gradient with the float64 implicit one at the same weights and its own
    feedback gain: above .999 together, above .99 in every array.
    """
    seen = {}
    for name, entry in entries.items():
        if name in STEPS:
            own, fresh = p, STEPS[name](p, optimiser, lr=1.0, eps=1.0)
        else:
            schedule = eqkernel.SCHEDULES[entry.schedule]
            own = replace(p, gamma=schedule.gamma)
            backend = entry.contestant.net.backend
            fresh = EqStep(own, schedule, optimiser, lr=1.0, eps=1.0, backend=backend)
        whole, worst = cosines(step_gradient(fresh, optimiser), implicit_gradient(own.to("float64")))
        row: Row = {"residual": None, "cosine": whole, "worst cosine": worst}
        seen[name] = row
        if name not in STEPS:
            settled = EqSettle(own, schedule, backend=backend)
            settled.run()
            row["residual"] = residual(own, settled.states(), frozen=True)
            row["zeros"] = zeros_of(own, settled)
        if not (whole > 0.999 and worst > 0.99):
            found = f"cosine {whole:.6f}, worst array {worst:.6f}"
            raise VerificationError(f"{p.name}, {name}, {optimiser}: {found}")
    return seen


@cache
def copies(count: int) -> dict[str, Copies]:
    """One large settle with one thread, and `count` of them at once."""
    p, schedule = settling(784, 512, 512, 10, batch=64), eqkernel.SCHEDULES["converged"].but(tolerance=None)
    return {"copy": Copies(p, schedule, 1), "copies": Copies(p, schedule, count)}


def timed(
    net: str, batch: int, phase: str, entries: dict[str, Entry], seen: dict[str, Row], reference: str,
    threads: int, rounds: int, seconds: float,
) -> Iterator[Row]:  # fmt: skip
    """Times one group and yields its rows, the reference's ratio being 1."""
    use_threads(threads)  # of contestants who set none themselves
    calls = {name: entry.run for name, entry in entries.items()}
    if threads > 1:
        calls |= {name: c.run for name, c in copies(threads).items()}
    times = interleave(calls, rounds, seconds)
    cores = [threads * r for r in ratio(times, "copies", "copy")] if threads > 1 else None
    for name, entry in entries.items():
        median = float(np.median(times[name]))
        yield {
            "net": net, "batch": batch, "phase": phase, "threads": threads, "contestant": name,
            "schedule": entry.schedule, "steps": entry.steps, **seen[name],
            "samples/s": batch / median, "ratio": ratio(times, name, reference), "reference": reference,
            "GFLOP/s": entry.flops / median * 1e-9, "seconds": times[name].tolist(), "cores": cores,
        }  # fmt: skip


def inputs(threads: int) -> tuple[bool, ...]:
    """Whether the input has zeros, which eqkernel's products skip: one thread is also timed without any."""
    return (True, False) if threads == 1 else (True,)


def settle_rows(threads: int, batches: Iterable[int], rounds: int, seconds: float) -> Iterator[Row]:
    nets = [(*net, zeros) for zeros in inputs(threads) for net in (SETTLED if zeros else SETTLED[:1])]
    for sizes, recurrent, zeros in nets:
        for batch in batches:
            p = settling(*sizes, batch=batch, recurrent=recurrent, zeros=zeros)
            entries = settle_entries(p, threads)
            seen = check_settle(p, entries)
            yield from timed(p.name, batch, "settle", entries, seen, SETTLE_REFERENCE, threads, rounds, seconds)


def update_rows(threads: int, rounds: int, seconds: float) -> Iterator[Row]:
    for zeros in inputs(threads):
        entries, arrays = update_entries(zeros)
        seen = check_update(entries, arrays)
        net = "512 x 784" if zeros else "512 x 784, no zeros"
        yield from timed(net, 64, "hebbian + adam", entries, seen, UPDATE_REFERENCE, threads, rounds, seconds)


def step_rows(threads: int, rounds: int, seconds: float) -> Iterator[Row]:
    for zeros in inputs(threads):
        for sizes in TRAINED:
            p = training(*sizes, batch=64, zeros=zeros)
            for optimiser in ("sgd", "adam"):
                entries = step_entries(p, optimiser, threads)
                seen = check_step(p, optimiser, entries)
                phase = f"whole step, {optimiser}"
                yield from timed(p.name, 64, phase, entries, seen, STEP_REFERENCE, threads, rounds, seconds)
