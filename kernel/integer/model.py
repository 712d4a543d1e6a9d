"""Integer equilibrium propagation, NumPy: the STEPS of eqk_int.h for a batch at a time. Every value is an int64.

Arrays are (B, n); masters and weights are (w1 (NH, NX), w2 (NO, NH)). Matrix products run in float64, which is exact:
no sum reaches 2^53.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import EqkernelError, as_array, is_whole
from .arithmetic import Integers, asr, clamp, learn, relax, round_shift, rounding, scale, secant, send, weight
from .config import Config

BATCH_MAX, RATE_MAX = 255, 24
OK, DIVERGED = "ok", "diverged"


class Pair(NamedTuple):
    """Something of the hidden and of the output neurons, or of the two layers of weights."""

    first: Integers
    second: Integers


class Ends(NamedTuple):
    """The two ends of every synapse: g1 = a x, g2 = p q + r s."""

    a: Integers
    p: Integers
    q: Integers
    r: Integers
    s: Integers


@dataclass
class Report:
    """Counts to watch: states are clamped, so a run that diverges shows clipped weights and stuck samples, no NaN."""

    samples: int = 0
    unsettled: int = 0  # samples that ended the free phase with a neuron over 2^fraction from its drive's rate
    stuck: int = 0  # samples with an error of over half the range to which no weight's trace owes anything
    clipped: int = 0  # weights that R9 had to clamp


def product(a: Integers, b: Integers) -> Integers:
    """The exact integer matrix product."""
    return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64)


def quantise(masters: Pair, config: Config) -> Pair:
    return Pair(*(weight(m.astype(np.int64), config) for m in masters))


def settle(
    w: Pair, drive: Integers, nudge: Integers | int, steps: int, state: Pair, config: Config
) -> tuple[Pair, Pair]:
    """(state, drives of the last step) after `steps` steps."""
    h, o = state
    for _ in range(steps):
        h_sent, o_sent = send(h, config), send(o, config)
        u_h = drive + scale(product(o_sent, w.second), config.shift2 + config.gamma, config)
        u_o = scale(product(h_sent, w.second.T), config.shift2, config) + nudge
        h = relax(h, clamp(u_h, 0, config.top), config)
        o = relax(o, clamp(u_o, 0, config.top), config)
    return Pair(h, o), Pair(u_h, u_o)


def respond(w: Pair, u: Pair, error: Integers, config: Config) -> Pair:
    """The response c = ds/dbeta about the drives u."""
    c_h, c_o = np.zeros_like(u.first), np.zeros_like(u.second)
    for _ in range(config.nudged_steps):
        h_sent, o_sent = send(c_h, config), send(c_o, config)
        v_h = scale(product(o_sent, w.second), config.shift2, config)
        v_o = scale(product(h_sent, w.second.T), config.shift2 + config.gamma, config) + error
        c_h = relax(c_h, secant(u.first, v_h, config), config)
        c_o = relax(c_o, secant(u.second, v_o, config), config)
    return Pair(c_h, c_o)


def free_phase(w: Pair, x: Integers, config: Config) -> tuple[Pair, Pair, Integers]:
    """(free state, drives of its last step, input drive)."""
    drive = scale(product(x, w.first.T), config.shift1, config)
    zero = Pair(np.zeros_like(drive), np.zeros((len(x), config.outputs), np.int64))
    return *settle(w, drive, 0, config.free_steps, zero, config), drive


def nudged_phase(w: Pair, free: Pair, last: Pair, drive: Integers, error: Integers, config: Config) -> Ends:
    if config.form == "difference":
        c = respond(w, last, error, config)
        return Ends(c.first, c.second, send(free.first, config), send(free.second, config), asr(c.first, config.gamma))
    nudge = round_shift(error, config.beta)
    plus, _ = settle(w, drive, nudge, config.nudged_steps, free, config)
    minus, _ = settle(w, drive, -nudge, config.nudged_steps, free, config)
    sent = send(plus.first, config), send(minus.first, config)
    return Ends(plus.first - minus.first, plus.second, sent[0], -minus.second, sent[1])


def sample(w: Pair, x: Integers, t: Integers, config: Config, report: Report) -> tuple[Pair, Ends]:
    """Both phases of every sample; counts into `report`."""
    free, last, drive = free_phase(w, x, config)
    error = (t << config.fraction) - free.second
    ends = nudged_phase(w, free, last, drive, error, config)
    moving = [
        (abs(clamp(u, 0, config.top) - s) > 1 << config.fraction).any(axis=1) for u, s in zip(last, free, strict=True)
    ]
    wrong = (abs(error) > config.top >> 1).any(axis=1)
    second = ends.p[:, :, None] * ends.q[:, None] + ends.r[:, :, None] * ends.s[:, None]
    felt = (ends.a != 0).any(axis=1) & (x != 0).any(axis=1) | (second != 0).any(axis=(1, 2))
    report.samples += len(x)
    report.unsettled += int((moving[0] | moving[1]).sum())
    report.stuck += int((wrong & ~felt).sum())
    return free, ends


def traces(ends: Ends, x: Integers) -> Pair:
    return Pair(product(ends.a.T, x), product(ends.p.T, ends.q) + product(ends.r.T, ends.s))


def update(masters: Pair, g: Pair, rates: tuple[int, int], batch: int, config: Config) -> int:
    """Change the masters in place; returns how many were clipped."""
    words = config.inputs, config.outputs
    base = batch * sum(words)
    r = Pair(
        rounding(base, words[0], config.hidden, rates[0], config).T,
        rounding(base + words[0], words[1], config.hidden, rates[1], config),
    )
    clipped = 0
    for m, trace, rate, low in zip(masters, g, rates, r, strict=True):
        m[...], count = learn(m.astype(np.int64), trace, rate, low)
        clipped += count
    return clipped


def train_step(
    config: Config,
    masters: Pair,
    x: ArrayLike,
    t: ArrayLike,
    rates: tuple[int, int],
    batch: int,
    report: Report | None = None,
) -> str:
    """One step of learning, masters (int16) changed in place: "ok", or "diverged" as eqk_train would return.

    x (B, inputs), t (B, outputs) int8, 1 <= B <= 255; rates are the shifts of R9, 0..24, a larger one learns more
    slowly; `batch`, modulo 2^32, numbers the step for the noise. `report` is counted into.
    """
    x, t = integers(x, "x", config.inputs), integers(t, "t", config.outputs)
    if len(x) != len(t) or not 1 <= len(x) <= BATCH_MAX:
        raise EqkernelError(f"x has {len(x)} rows and t {len(t)}: they must be as many, from 1 to {BATCH_MAX}")
    if len(rates) != 2 or not all(is_whole(rate, 0) and rate <= RATE_MAX for rate in rates):
        raise EqkernelError(f"rates must be two whole numbers in 0..{RATE_MAX}, not {rates!r}")
    step = Report()
    _, ends = sample(quantise(masters, config), x, t, config, step)
    step.clipped = update(masters, traces(ends, x), rates, batch % 2**32, config)
    if report is not None:
        for field in vars(step):
            setattr(report, field, getattr(report, field) + getattr(step, field))
    many = (config.inputs + config.outputs) * config.hidden >> 4
    return DIVERGED if 2 * step.stuck > len(x) or step.clipped > many else OK


def predict(config: Config, masters: Pair, x: ArrayLike) -> NDArray[np.int64]:
    """Labels (B,) of x (B, inputs): the first output whose free state is largest."""
    free, _, _ = free_phase(quantise(masters, config), integers(x, "x", config.inputs), config)
    return free.second.argmax(axis=1)


def initial(config: Config, seed: int) -> Pair:
    """Random masters: uniform, with a standard deviation of the weights of 1/sqrt(3 n) for n presynaptic neurons.

    Ternary masters spread over twice the threshold to either side, so that half the weights begin at zero.
    """
    rng = np.random.default_rng(seed)
    sizes, layers = (config.inputs, config.hidden, config.outputs), []
    for pre, post, shift in zip(sizes, sizes[1:], (config.shift1, config.shift2), strict=False):
        span = 512 * config.threshold if config.ternary else 256 * 2**shift / np.sqrt(pre)
        layers.append(np.rint(rng.uniform(-span, span, (post, pre))).clip(-32767, 32767).astype(np.int16))
    return Pair(*layers)


def integers(values: ArrayLike, name: str, columns: int) -> Integers:
    """`values` as (B, columns) int64; EqkernelError unless they are int8."""
    array = as_array(name, values)
    if array.dtype != np.int8 or array.ndim != 2 or array.shape[1] != columns:
        raise EqkernelError(f"{name} must be int8 of shape (B, {columns}), not {array.dtype} of shape {array.shape}")
    return array.astype(np.int64)
