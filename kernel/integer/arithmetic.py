"""The rules R1 to R10 of eqk_int.h, on int64 arrays: names, order and numbers are those of the header."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .config import Config

Integers = NDArray  # int64 while it is computed with; masters are int16


def asr(v: Integers, n: int) -> Integers:
    """R1: floor(v / 2^n)."""
    return v >> n


def clamp(v: Integers, a: int, b: int) -> Integers:
    """R2: v, held between a and b."""
    return np.clip(v, a, b)


def round_shift(v: Integers, n: int) -> Integers:
    """R3: v / 2^n to the nearest integer, half upwards."""
    return asr(v + (1 << (n - 1)), n) if n > 0 else v


def scale(a: Integers, n: int, config: Config) -> Integers:
    """R4: an accumulator of weights of 2^-n and sent values, in units of a state."""
    left = config.fraction - n
    return a << left if left >= 0 else round_shift(a, -left)


def send(s: Integers, config: Config) -> Integers:
    """R5: what other neurons see of a state or response."""
    return round_shift(s, config.fraction)


def weight(m: Integers, config: Config) -> Integers:
    """R6: what a drive sees of a master."""
    q = clamp(round_shift(m, 8), -127, 127)
    if config.ternary:
        return (q > config.threshold).astype(np.int64) - (q < -config.threshold)
    return q


def relax(s: Integers, goal: Integers, config: Config) -> Integers:
    """R7: a step of size 2^-leak from s towards the goal."""
    return s + round_shift(goal - s, config.leak)


def secant(u: Integers, v: Integers, config: Config) -> Integers:
    """R8: [rho(u + beta v) - rho(u - beta v)] / 2 beta for the hard sigmoid rho."""
    top = config.top << config.beta
    u = clamp(u, -config.top, 2 * config.top) << config.beta
    v = clamp(v, -config.top, config.top)
    return asr(clamp(u + v, 0, top) - clamp(u - v, 0, top), 1)


def learn(m: Integers, g: Integers, rate: int, r: Integers) -> tuple[Integers, int]:
    """R9: the master after a trace g, and how many had to be clamped."""
    wish = m + asr(g + r, rate)
    got = clamp(wish, -32767, 32767)
    return got, int((wish != got).sum())


def noise(words: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """R10, before the rotation: shifts and sums modulo 2^32."""
    v = words.copy()
    for _ in range(2):
        v += v << np.uint32(10)
        v ^= v >> np.uint32(6)
        v += v << np.uint32(3)
        v ^= v >> np.uint32(11)
        v += v << np.uint32(15)
    return v ^ (v >> np.uint32(16))


def rounding(first: int, words: int, neurons: int, rate: int, config: Config) -> Integers:
    """r of R9, (words, neurons): rows of noise from counter `first` on, each neuron with its own rotation."""
    if not config.stochastic:
        return np.full((words, neurons), (1 << rate) >> 1, np.int64)
    word = noise((np.arange(words, dtype=np.uint64) + np.uint64(first)).astype(np.uint32))[:, None].astype(np.uint64)
    turn = (np.arange(neurons) % 32).astype(np.uint64)
    turned = (word >> turn | word << (np.uint64(32) - turn)) & np.uint64((1 << rate) - 1)
    return turned.astype(np.int64)
