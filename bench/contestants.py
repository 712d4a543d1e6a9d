"""Who takes part: eqkernel in its schedules, and the rivals, for each of the three things that are timed.

settle   free phase from rest and both nudged phases, +beta and -beta, of a squared-error network
update   Hebbian contrast of one matrix and Adam
step     a whole training step: eqkernel's few-step and single-sweep beside feed-forward backpropagation
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

import eqkernel
from eqkernel.backends import unavailable

from .ours import EqSettle, EqStep, EqUpdate, can_split
from .problem import Problem, residual, settling
from .rivals.backprop_hand import HandBackprop, SparseBackprop
from .rivals.backprop_jax import JaxBackprop
from .rivals.backprop_torch import TorchBackprop
from .rivals.jax_settle import JaxSettle
from .rivals.jax_update import JaxUpdate
from .rivals.numpy_settle import NumpyHoisted, NumpyNaive, half_steps
from .rivals.torch_autograd_ep import TorchAutogradEP
from .rivals.torch_settle import TorchRecurrent, TorchSettle
from .rivals.torch_update import TorchUpdate

OURS = {"eqkernel": "cpu"} if unavailable("c") else {"eqkernel": "cpu", "eqkernel c": "c"}
SETTLE_REFERENCE = "torch no_grad, hoisted"
UPDATE_REFERENCE = "torch mm + fused Adam"
STEP_REFERENCE = "torch autograd backprop"
FLOOR = 5e-6  # float32 residuals below this are rounding
SPLIT_FLOOR = 3 * 2.0**-16  # of factors split in two bfloat16: what a product of size 1 errs by


@dataclass
class Entry:
    """A contestant that is ready to run, and what a row of the table says of it; flops for one call."""

    run: Callable[[], None]
    contestant: Any
    schedule: str
    steps: str
    flops: float
    frozen: bool = False  # the nudge is taken at the free state
    floor: float = FLOOR


# Operations: 2 for each multiply-add of the matrix products that the named algorithm needs; no others count.


def settle_flops(p: Problem, free: int, nudged: int, hoisted: bool = True) -> float:
    drive = p.sizes[0] * p.sizes[1]
    loop = 2 * sum(w.size for w in p.weights[1:]) + sum(a.size for a in p.lateral if a is not None)
    passes = free + 2 * nudged
    return 2.0 * p.batch * (drive * (1 if hoisted else passes) + loop * passes)


def at_rest(products: list[int], order: str, steps: int, difference: bool) -> int:
    """Multiply-adds of products with layers that have not moved yet, which eqkernel skips.

    products[i] is one way between layers i + 1 and i + 2. From rest the first step moves every layer, by the input and
    the biases; a difference moves only once the news of the nudge, at the top, has come to it.
    """
    top, moved, skipped = len(products) + 1, set[int](), 0
    groups = [list(range(top))] if order == "synchronous" else [[l] for l in half_steps(top - 1, difference)]
    for _ in range(steps):
        for group in groups:
            before = set(moved)
            for l in group:  # from 0: the first hidden one
                below, above = l - 1 in before, l + 1 in before
                skipped += products[l - 1] if difference and l > 0 and not below else 0
                skipped += products[l] if l < top - 1 and not above else 0
                if not difference or l == top - 1 or below or above:
                    moved.add(l)
    return skipped


def skipped(products: list[int], schedule: str, free: int, nudged: int, name: str) -> int:
    """`at_rest` over both phases of eqkernel's contestant `name`; c skips what both nudged states still share."""
    order = "synchronous" if schedule == "synchronous" else "even-odd"
    skips = "difference" in name or name.startswith("eqkernel c")
    in_nudged = at_rest(products, order, nudged, True) if skips else 0
    return at_rest(products, order, free, False) + in_nudged


def step_flops(p: Problem, schedule: eqkernel.Schedule) -> float:
    """Half-sweeps of a cross-entropy net, and its update."""
    drive, *hidden, readout = (w.size for w in p.weights)
    inner, channels = sum(hidden), 1 if schedule.form == "difference" else 2
    settle = drive + schedule.free_steps * inner + readout + readout + channels * schedule.nudged_steps * inner
    return 2.0 * p.batch * (settle + drive + (1 if schedule.feed_forward else 2) * inner + readout)


def backprop_flops(p: Problem) -> float:
    drive, *rest = (w.size for w in p.weights)
    return 2.0 * p.batch * (2 * drive + 3 * sum(rest))


OVER = (1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.35, 1.4)  # sizes of an over-relaxed step that are tried
Reached = Callable[[float, int, int], tuple[float, float]]  # residuals after even-odd steps: of size, free, nudged


def fewest_steps(reached: Reached, goal: tuple[float, float], sizes: tuple[float, ...]) -> tuple[float, int, int]:
    """The size of even-odd steps, and their numbers (free, nudged), that reach the goal's residuals with least work."""
    best = (1.0, 64, 64)
    for size in sizes:
        work = best[1] + 2 * best[2]
        free = next((t for t in range(1, work) if reached(size, t, 1)[0] <= goal[0]), work)
        nudged = next((k for k in range(1, (work - free) // 2 + 1) if reached(size, free, k)[1] <= goal[1]), work)
        if free + 2 * nudged < work:
            best = size, free, nudged
    return best


def even_odd_steps(p: Problem, sizes: tuple[float, ...] = (1.0,)) -> tuple[float, int, int]:
    """The fewest even-odd steps whose residuals are no larger than those of 30 + 10 synchronous steps.

    Judged in float64 on up to 64 of the samples, so that every even-odd row does no less than the synchronous
    ones.
    """
    p = replace(p, x=p.x[:64], labels=p.labels[:64]).to("float64")

    def reached(order: str, size: float, free: int, nudged: int) -> tuple[float, float]:
        rival = NumpyHoisted(p, order, free, nudged, size)
        rival.run()
        return residual(p, rival.states())

    return fewest_steps(partial(reached, "even-odd"), reached("synchronous", 1.0, 30, 10), sizes)


def settle_entries(p: Problem, threads: int = 1) -> dict[str, Entry]:
    """Contestants of the settle of `p`, all with gamma 1 and the live nudge unless the schedule says
    otherwise.
    """
    T, K = 30, 10
    recurrent = any(a is not None for a in p.lateral)
    (_, t, k), (size, t_over, k_over) = even_odd_steps(p), even_odd_steps(p, OVER)
    entries: dict[str, Entry] = {}

    def add(name: str, contestant: Any, schedule: str, free: int, nudged: int, **more: Any) -> None:
        flops = settle_flops(p, free, nudged, more.pop("hoisted", True))
        if name.startswith("eqkernel"):
            products = [w.size for w in p.weights[1:]]
            flops -= 2.0 * p.batch * skipped(products, schedule, free, nudged, name)
        entries[name] = Entry(contestant.run, contestant, schedule, f"{free}+{nudged}", flops, **more)

    add("numpy, naive", NumpyNaive(p), "synchronous", T, K, hoisted=False)
    add("numpy, hoisted", NumpyHoisted(p), "synchronous", T, K)
    add(SETTLE_REFERENCE, TorchRecurrent(p) if recurrent else TorchSettle(p), "synchronous", T, K)
    over = f"even-odd, step {size:g}", t_over, k_over
    if not recurrent:
        add("torch no_grad, even-odd", TorchSettle(p, "even-odd", t, k), "even-odd", t, k)
        add("torch no_grad, over-relaxed", TorchSettle(p, "even-odd", t_over, k_over, size), *over)
    add("torch autograd of Phi", TorchAutogradEP(p), "synchronous", T, K, hoisted=False)
    add("jax jit, hoisted", JaxSettle(p), "synchronous", T, K)
    add("jax jit, even-odd", JaxSettle(p, "even-odd", t, k), "even-odd", t, k)
    add("jax jit, over-relaxed", JaxSettle(p, "even-odd", t_over, k_over, size), *over)

    converged = eqkernel.SCHEDULES["converged"]
    literature = converged.but(form="plus-minus", nudge="live", tolerance=None)
    synchronous = literature.but(order="synchronous", free_steps=T, nudged_steps=K)
    even_odd = literature.but(order="even-odd", free_steps=t, nudged_steps=k)
    several = threads if threads > 1 else None  # each sets its own where they differ
    add("eqkernel, synchronous", EqSettle(p, synchronous, several), "synchronous", T, K)
    over_relaxed = even_odd.but(free_steps=t_over, nudged_steps=k_over, step=size)
    for name, backend in OURS.items():
        add(f"{name}, even-odd", EqSettle(p, even_odd, several, backend), "even-odd", t, k)
        add(f"{name}, over-relaxed", EqSettle(p, over_relaxed, several, backend), *over)
        if several:
            add(f"{name}, even-odd, one thread", EqSettle(p, even_odd, 1, backend), "even-odd", t, k)
    if not unavailable("c") and can_split():
        split = EqSettle(p, even_odd, several, "c", "bf16x3")
        add("eqkernel c, bf16x3", split, "even-odd", t, k, floor=SPLIT_FLOOR)
    difference = even_odd.but(form="mean-difference", nudge="frozen")
    add("eqkernel, mean and difference", EqSettle(p, difference, several), "even-odd, frozen nudge", t, k, frozen=True)
    return entries


def update_entries(zeros: bool = True, batch: int = 64) -> tuple[dict[str, Entry], dict[str, Any]]:
    """The update of a 512 x 784 matrix, and the arrays it starts from; the input with its zeros or without."""
    p = settling(784, 512, batch=batch, zeros=zeros)
    rng = np.random.default_rng(3)
    p = replace(p, labels=rng.integers(0, 512, batch))
    ours = EqUpdate(p)
    plus, minus = ours.nudged_states()
    arrays: dict[str, Any] = {"W": p.weights[0], "x": p.x, "plus": plus, "minus": minus, "beta": p.beta}
    flops = 2.0 * batch * p.weights[0].size
    contestants: dict[str, tuple[Any, int]] = {
        UPDATE_REFERENCE: (TorchUpdate(**arrays), 1),
        "torch mm of both traces + fused Adam": (TorchUpdate(**arrays, contrast="traces"), 2),
        "jax jit": (JaxUpdate(**arrays), 1),
        "eqkernel": (ours, 1),
    }
    if not unavailable("c"):
        contestants["eqkernel c"] = (EqUpdate(p, backend="c"), 1)
    entries = {n: Entry(c.run, c, "", "", flops * depth) for n, (c, depth) in contestants.items()}
    return entries, arrays


STEPS: dict[str, Callable[..., Any]] = {
    STEP_REFERENCE: TorchBackprop,
    "torch hand-written backprop": HandBackprop,
    "torch hand-written backprop, sparse input": SparseBackprop,
    "jax jit backprop": JaxBackprop,
}


def step_entries(p: Problem, optimiser: str, threads: int = 1) -> dict[str, Entry]:
    """Contestants of a whole training step; the weights barely move (lr 1e-6), so the work stays the same."""
    entries: dict[str, Entry] = {}
    for name, rival in STEPS.items():
        if rival is SparseBackprop and (p.x != 0).all():
            continue
        entries[name] = Entry((c := rival(p, optimiser, lr=1e-6)).run, c, "backprop", "", backprop_flops(p))
    for name in ("few-step", "single-sweep"):
        schedule = eqkernel.SCHEDULES[name]
        flops = step_flops(p, schedule)
        ours = replace(p, gamma=schedule.gamma)
        steps = f"{schedule.free_steps}+{schedule.nudged_steps}"
        for label, backend in OURS.items():
            for count in dict.fromkeys((threads, 1)):
                c = EqStep(ours, schedule, optimiser, lr=1e-6, threads=count if threads > 1 else None, backend=backend)
                alone = ", one thread" if count < threads else ""
                entries[f"{label}, {name}{alone}"] = Entry(c.run, c, name, steps, flops)
    return entries
