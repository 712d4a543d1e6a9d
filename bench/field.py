"""Steps of the FitzHugh-Nagumo field on one thread, beside NumPy's roll and torch's convolution.

    python -m bench.field

Every contestant must first follow float64 NumPy; then all are timed in turns, in float32, with the memory's bandwidth
measured in the same run. The single-pass limit is what that bandwidth allows to a kernel that reads and writes both
species once a step (16 bytes a cell, not counting that a write may first read).
"""

import argparse
import sys
import time
from typing import Any

import numpy as np

import eqkernel
from eqkernel.backends import unavailable
from eqkernel.cpu import field as kernels
from eqkernel.fields import FitzHughNagumo

from .timing import machine, pinned, ratio, triad

SIZES = (1024, 4096)
ROLL, CONV = "numpy roll", "torch conv2d, circular pad"
BYTES = 16
STEPS = 64  # a call of ours: passes over memory, the longest of either backend, that end where they began


class Eqkernel:
    def __init__(self, field: FitzHughNagumo, most: int = kernels.STEPS) -> None:
        self.field, self.most = field, most

    def __call__(self, steps: int = STEPS) -> None:
        before, kernels.STEPS = kernels.STEPS, self.most
        try:
            self.field.step(steps)
        finally:
            kernels.STEPS = before

    def state(self) -> np.ndarray:
        return np.stack([self.field.u, self.field.v])


class NumpyRoll:
    """As it is commonly written."""

    def __init__(self, field: FitzHughNagumo, dtype: str = "float32") -> None:
        self.u, self.v, self.c = field.u.astype(dtype), field.v.astype(dtype), field.constants

    def __call__(self, steps: int = 1) -> None:
        def lap(a: np.ndarray) -> np.ndarray:
            return np.roll(a, 1, 0) + np.roll(a, -1, 0) + np.roll(a, 1, 1) + np.roll(a, -1, 1) - 4 * a

        c = self.c
        for _ in range(steps):
            u, v = self.u, self.v
            self.u = u + c.dt * (c.Du * lap(u) + u - u * u * u - v)
            self.v = v + c.dt * (c.Dv * lap(v) + c.eps * (u - c.alpha * v - c.beta))

    def state(self) -> np.ndarray:
        return np.stack([self.u, self.v])


class TorchConv:
    def __init__(self, field: FitzHughNagumo) -> None:
        import torch

        self.s = torch.from_numpy(np.stack([field.u, field.v]))[None].clone()
        cross = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])
        self.kernel, self.c = torch.stack([cross, cross])[:, None], field.constants

    def __call__(self, steps: int = 1) -> None:
        import torch
        from torch.nn import functional

        c = self.c
        with torch.no_grad():
            for _ in range(steps):
                padded = functional.pad(self.s, (1, 1, 1, 1), mode="circular")
                lap_u, lap_v = functional.conv2d(padded, self.kernel, groups=2)[0]
                u, v = self.s[0]
                du = c.Du * lap_u + u - u * u * u - v
                dv = c.Dv * lap_v + c.eps * (u - c.alpha * v - c.beta)
                self.s = torch.stack([u + c.dt * du, v + c.dt * dv])[None]

    def state(self) -> np.ndarray:
        return self.s[0].numpy()


def contestants(size: int) -> dict[str, Any]:
    """Each with a field of its own, all alike."""

    def field(backend: str = "cpu") -> FitzHughNagumo:
        return FitzHughNagumo((size, size), beta=0.05, noise=0.3, seed=1, backend=backend)

    found: dict[str, Any] = {
        "eqkernel": Eqkernel(field()),
        "eqkernel, a step a pass": Eqkernel(field(), 1),
        ROLL: NumpyRoll(field()),
    }
    if not unavailable("c"):
        found["eqkernel c"] = Eqkernel(field("c"))
    try:
        found[CONV] = TorchConv(field())
    except ImportError:
        print("torch is not installed: its row is missing", file=sys.stderr)
    return found


def verify(steps: int = 20) -> None:
    """Every contestant against NumPy in float64, each step of which float32 may round by a few units."""
    entries = contestants(200)
    exact = NumpyRoll(FitzHughNagumo((200, 200), beta=0.05, noise=0.3, seed=1))
    exact.u, exact.v = exact.u.astype(float), exact.v.astype(float)
    exact(steps)
    for name, entry in entries.items():
        entry(steps)
        error = abs(entry.state() - exact.state()).max()
        if not error < 8 * steps * 2.0**-24:
            raise AssertionError(f"{name} is off by {error:.1e} after {steps} steps")


def measure(size: int, rounds: int) -> dict[str, np.ndarray]:
    """name -> seconds a step, one figure a round; every round runs all, beginning with another.

    Seconds of this thread's processor time: all contestants use this one thread, and other programs do not count.
    """
    entries = contestants(size)
    counts = {name: STEPS if isinstance(entry, Eqkernel) else 1 for name, entry in entries.items()}
    names, times = list(entries), {name: np.empty(rounds) for name in entries}
    for name in names:
        entries[name](counts[name])  # compiles, takes memory
    for r in range(rounds):
        for name in names[r % len(names) :] + names[: r % len(names)]:
            start = time.thread_time()
            entries[name](counts[name])
            times[name][r] = (time.thread_time() - start) / counts[name]
    return times


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="cells along a side (1024 4096)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds over all contestants (7)")
    options = parser.parse_args()
    with pinned(1):
        try:
            import torch

            torch.set_num_threads(1)
        except ImportError:
            pass
        eqkernel.set_threads(1)
        verify()
        print({key: value for key, value in machine().items() if key in ("cpu", "versions", "load", "date")})
        for size in options.sizes:
            # Bandwidth before and after: the machine may not be ours alone.
            before = triad()
            times = measure(size, options.rounds)
            bandwidth = max(before, triad())
            limit = bandwidth / BYTES
            print(f"{size} x {size}, float32, 1 thread; DRAM {bandwidth:.1f} GB/s: single-pass limit {limit:.2f} Gpt/s")
            for name, seconds in times.items():
                rate = 1e-9 * size**2 / np.median(seconds)
                row = f"  {name:28s} {rate:7.3f} Gpt/s {BYTES * rate:7.2f} GB/s as one pass {rate / limit:4.2f} of it"
                for rival in (ROLL, CONV):
                    if rival in times and name != rival:
                        low, middle, high = ratio(times, name, rival)
                        row += f"  {middle:6.1f}x [{low:.1f}, {high:.1f}] {rival.split(',')[0]}"
                print(row)


if __name__ == "__main__":
    main()
