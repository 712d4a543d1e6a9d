"""`make bench-gpu`: the CUDA backend beside its rivals on this machine's GPU; prints a table and writes JSON.

Every settle stands beside its floor: the flops and bytes that it cannot do without, over what this card was measured to
do in the same run (a large matrix product, a large copy). Contestants are verified first; each round runs each once.
`--dry-run` does all of it on small sizes in the CPU stand-in, to show that the harness runs; its times mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import eqkernel as eq
from eqkernel import cuda
from eqkernel.cuda import device, set_precision
from eqkernel.cuda.field import STEPS as STEPS_A_PASS
from eqkernel.fields import FitzHughNagumo
from eqkernel.interop import to_host, write

from .rivals.gpu_ep import AutogradStep, BackpropStep, EagerStep, Library, graphed

NETS = [((784, 512, 10), 256), ((784, 512, 10), 4096), ((784, *[2048] * 4, 10), 256), ((784, *[2048] * 4, 10), 4096)]
DRY_NETS = [((20, 24, 5), 8), ((20, 24, 24, 5), 8)]
STEPS = 30, 10
LR = 1e-3
SAME = eq.Schedule("30 + 10", 1.0, *STEPS, "synchronous", "plus-minus", "frozen", None)
Row = dict[str, Any]


def problem(sizes: tuple[int, ...], batch: int) -> SimpleNamespace:
    """Random weights of spectral norm 0.5 in the loop, a random batch; float32."""
    rng = np.random.default_rng(1)
    weights = [rng.standard_normal((post, pre)) for pre, post in pairwise(sizes)]
    weights = [(w * 0.5 / (w.shape[0] ** 0.5 + w.shape[1] ** 0.5)).astype("float32") for w in weights]
    labels = rng.integers(0, sizes[-1], batch)
    return SimpleNamespace(
        sizes=sizes, weights=weights, biases=[np.full(n, 0.3, "float32") for n in sizes[1:]],
        x=rng.random((batch, sizes[0]), dtype="float32"), labels=labels,
        target=np.eye(sizes[-1], dtype="float32")[labels], beta=0.1,
    )  # fmt: skip


class Ours:
    """One train_step on device arrays."""

    def __init__(self, p: Any, schedule: eq.Schedule | str, backend: str = "cuda", dtype: str = "float32") -> None:
        schedule = eq.SCHEDULES[schedule].but(tolerance=None) if isinstance(schedule, str) else schedule
        self.net = eq.Network.dense(
            *p.sizes, cost="squared-error", output="linear", schedule=schedule, dtype=dtype, backend=backend
        )
        for layer, (w, b) in enumerate(zip(p.weights, p.biases, strict=True)):
            write(self.net.parameters[2 * layer], w)
            write(self.net.parameters[2 * layer + 1], b)
        self.x, self.y, self.beta = self.net.arrays.asarray(p.x), self.net.arrays.asarray(p.target), p.beta

    def run(self) -> None:
        eq.train_step(self.net, self.x, self.y, beta=self.beta, lr=LR)

    def settle(self) -> None:
        eq.nudged_phase(self.net, eq.free_phase(self.net, self.x, reuse=True), self.y, self.beta, reuse=True)

    def recorded(self) -> Callable[[], None]:
        """The settle of a network in the fused kernels as one CUDA graph: what the device takes, without the host."""
        engine, schedule = self.net.engine, self.net.schedule

        def launches() -> None:
            work, _ = engine.launch_free(self.x, schedule, True)
            engine.launch_nudged(work, self.x, self.y, self.beta, "centered", schedule)

        launches()
        return device.current().record(launches)

    def weights(self) -> list[Any]:
        return [to_host(w) for w in self.net.parameters[::2]]


@contextlib.contextmanager
def precise(name: str) -> Iterator[None]:
    """Products of large networks in this precision for a while."""
    set_precision(name)
    try:
        yield
    finally:
        set_precision("float32")


def under(name: str, call: Callable[[], None]) -> Callable[[], None]:
    """A call with products in that precision."""

    def run() -> None:
        with precise(name):
            call()

    return run


def verify(p: Any, contestants: dict[str, Any], schedule: eq.Schedule) -> dict[str, float]:
    """The cosine of each contestant's first change of weights with the float64 one of the same steps."""
    exact = Ours(p, schedule, "reference", "float64")
    exact.run()
    change = np.concatenate([(w - b).ravel() for w, b in zip(exact.weights(), p.weights, strict=True)])
    found = {}
    for name, contestant in contestants.items():
        contestant.run()
        mine = np.concatenate([(w - b).ravel() for w, b in zip(contestant.weights(), p.weights, strict=True)])
        found[name] = float(mine @ change / (np.linalg.norm(mine) * np.linalg.norm(change)))
        if not found[name] > 0.99:
            raise SystemExit(f"{p.sizes}, {name}: its change of weights has cosine {found[name]:.4f}: nothing is timed")
    return found


def clock(calls: dict[str, Callable[[], Any]], wait: Callable[[], Any], rounds: int) -> dict[str, float]:
    """Seconds a call, the median of rounds; each round runs every contestant for some 20 ms, one after the other."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    repeats = {}
    for name, call in calls.items():
        for _ in range(3 if rounds > 1 else 2):  # compiles, records its graph
            call()
        wait()
        start = time.perf_counter()
        call()
        wait()
        repeats[name] = max(1, int(0.02 / (time.perf_counter() - start))) if rounds > 1 else 1
    for _ in range(rounds):
        for name, call in calls.items():
            wait()
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            wait()
            times[name].append((time.perf_counter() - start) / repeats[name])
    return {name: float(np.median(t)) for name, t in times.items()}


def floor(p: Any, roof: dict[str, float], free: int, nudged: int, rate: str = "float32 flops") -> float:
    """Seconds of 30 + 10 settle steps at the roof: products over the roof's flops, or weights once a step if longer."""
    B, inner = len(p.x), sum(w.size for w in p.weights[1:])
    flops = 2 * B * p.weights[0].size + 4 * B * inner * (free + 2 * nudged)
    return max(flops / roof[rate], 4 * (inner + p.weights[0].size) / roof["bytes"])


def roofs(arrays: Any, torch: Any, wait: Callable[[], Any], dry: bool) -> dict[str, float]:
    """Measured flops a second of a large float32 product, with torch of TF32 and BF16 ones, and bytes of a copy."""
    n, elements = (64, 1 << 16) if dry else (8192, 1 << 28)
    random = np.random.default_rng(0).standard_normal((n, n), np.float32)  # zeros would switch few of a card's gates
    a = arrays.asarray(random)
    calls: dict[str, Callable[[], Any]] = {"float32 flops": lambda: a @ a}
    if torch and not dry:
        for name, dtype in (("tf32 flops", torch.float32), ("bf16 flops", torch.bfloat16)):
            b = torch.as_tensor(random).to("cuda", dtype)
            calls[name] = lambda b=b: b @ b
        torch.backends.cuda.matmul.allow_tf32 = True
    source, copy = arrays.asarray(np.resize(random, elements)), arrays.zeros(elements, np.float32)
    calls["bytes"] = lambda: copy.__setitem__(Ellipsis, source)
    seconds = clock(calls, wait, 1 if dry else 5)
    if torch and not dry:
        torch.backends.cuda.matmul.allow_tf32 = False
    return {name: (8 * elements if name == "bytes" else 2 * n**3) / s for name, s in seconds.items()}


def dense(arrays: Any, torch: Any, wait: Callable[[], Any], roof: dict[str, float], dry: bool) -> list[Row]:
    """Rows of the dense nets."""
    rows: list[Row] = []
    steps = (4, 2) if dry else STEPS
    for sizes, batch in DRY_NETS if dry else NETS:
        p = problem(sizes, batch)
        host = Library("numpy", np) if dry else Library("cupy", arrays)
        schedule = SAME.but(free_steps=steps[0], nudged_steps=steps[1])
        entries: dict[str, Any] = {
            "eqkernel, the same steps": Ours(p, schedule),
            f"{host.name} eager": EagerStep(p, host, "synchronous", *steps, LR),
        }
        if torch:
            there = Library("torch", torch, "cpu" if dry else "cuda")
            entries["torch no_grad eager"] = EagerStep(p, there, "synchronous", *steps, LR)
            entries["torch autograd EP"] = AutogradStep(p, there, "synchronous", *steps, LR)
        cosines = verify(p, entries, schedule)
        calls = {name: entry.run for name, entry in entries.items()}
        for name in ("converged", "few-step", "single-sweep"):
            calls[f"eqkernel, {name}"] = Ours(p, name).run
        ours = Ours(p, eq.SCHEDULES["converged"].but(tolerance=None))
        calls["eqkernel settle, converged"] = ours.settle
        if type(ours.net.engine).__name__ == "Layerwise":
            for name in ("tf32", "bf16"):
                calls[f"eqkernel settle, converged, {name}"] = under(name, Ours(p, "converged").settle)
        else:
            calls["eqkernel settle, converged, recorded"] = ours.recorded()
        if torch:
            calls["torch backprop"] = BackpropStep(p, there, LR).run
            if not dry:
                with torch.no_grad():
                    for order in ("synchronous", "even-odd"):
                        step = EagerStep(p, there, order, *steps, LR)
                        calls[f"torch no_grad CUDA graph, {order}"] = graphed(torch, step.run)
                calls["torch backprop, CUDA graph"] = graphed(torch, BackpropStep(p, there, LR).run)
        seconds = clock(calls, wait, 1 if dry else 15)
        graphs = [s for name, s in seconds.items() if name.startswith("torch no_grad CUDA graph")]
        for name, s in seconds.items():
            kind = next((k for k in ("tf32", "bf16") if name.endswith(k)), "float32")
            least = floor(p, roof, *steps, f"{kind} flops") if f"{kind} flops" in roof else None
            rows.append({
                "net": "-".join(map(str, sizes)), "batch": batch, "contestant": name, "seconds": s,
                "settle floor": least, "times its floor": s / least if least and "settle" in name else None,
                "cosine": cosines.get(name),
                "graphs in its time": min(graphs) / s if graphs and name.startswith("eqkernel, ") else None,
            })  # fmt: skip
    return rows


def convolution(wait: Callable[[], Any], dry: bool) -> list[Row]:
    """Rows of the cortex-like convolutional net: 28 x 28, 16 and 32 channels, 5 x 5 kernels, stride 2."""
    side, maps, batch = (12, (4, 4), 2) if dry else (28, (12, 4), 256)
    wide = (4, 1) if dry else maps
    layers = [eq.Layer((side, side, 1)), *(eq.Layer((n, n, c)) for n, c in zip(wide, (16, 32), strict=True))]
    layers += [eq.Layer(10, "softmax")]
    wires = [eq.Conv(0, 1, 5, 2), eq.Bias(1), eq.Conv(1, 2, 4 if dry else 5, 2), eq.Bias(2), eq.Dense(2, 3), eq.Bias(3)]
    net = eq.Network(layers, wires, schedule=eq.SCHEDULES["few-step"].but(tolerance=None), backend="cuda")
    rng = np.random.default_rng(0)
    x = net.arrays.asarray(rng.random((batch, side * side), dtype="float32"))
    y = net.arrays.asarray(np.eye(10, dtype="float32")[rng.integers(0, 10, batch)])
    seconds = clock({"eqkernel, few-step": lambda: eq.train_step(net, x, y, lr=LR)}, wait, 1 if dry else 15)
    return [{"net": "conv 16-32", "batch": batch, "contestant": name, "seconds": s} for name, s in seconds.items()]


def field(arrays: Any, wait: Callable[[], Any], roof: dict[str, float], dry: bool) -> list[Row]:
    """Rows of the FitzHugh-Nagumo field; the floor of a step, or a pass, is one copy of both species.

    A pass is to take at most 1.25 times that, and a step, of which a pass takes several, less than it.
    """
    n, steps = (40, 4) if dry else (4096, 32)
    ours = FitzHughNagumo((n, n), backend="cuda")
    c, state = ours.constants, arrays.asarray(ours._state)
    spare = arrays.empty(state.shape, np.float32)
    advance = ours._kernels.advance

    def rolled() -> None:
        u, v = state[0], state[1]
        for _ in range(steps):
            laps = [sum(np.roll(s, d, a) for d in (1, -1) for a in (0, 1)) - 4 * s for s in (u, v)]
            u, v = (
                u + c.dt * (c.Du * laps[0] + u - u * u * u - v),
                v + c.dt_v * (c.Dv * laps[1] + c.eps * (u - c.alpha * v - c.beta)),
            )

    name = "numpy functions, eager" if dry else "cupy eager"
    calls = {"eqkernel": lambda: advance(state, spare, steps, c, "periodic"), name: rolled}
    seconds = clock(calls, wait, 1 if dry else 10)
    least = 16 * n * n / roof["bytes"]
    passes = -(-steps // STEPS_A_PASS)
    timed = [(f"{who}, a step", s / steps) for who, s in seconds.items()]
    timed.append((f"eqkernel, a pass of {STEPS_A_PASS} steps", seconds["eqkernel"] / passes))
    common = {"net": f"field {n} x {n}", "settle floor": least}
    return [{**common, "contestant": who, "seconds": s, "times its floor": s / least} for who, s in timed]


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench-gpu.json"), help="where the JSON goes")
    parser.add_argument("--dry-run", action="store_true", help="small sizes in the CPU stand-in")
    options = parser.parse_args(arguments)
    dry = options.dry_run
    try:
        import torch
    except ImportError:
        torch = None
    with contextlib.ExitStack() as stack:
        if dry:
            sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
            from shim.stand_in import StandIn

            stack.enter_context(device.using(StandIn()))
            cuda.LARGEST = 400  # so that the second net goes the way of large ones
        elif why := device.missing():
            print(f"no GPU to measure: {why}", file=sys.stderr)
            return 2
        arrays = device.current().arrays
        card = "CPU stand-in" if dry else arrays.cuda.runtime.getDeviceProperties(0)["name"].decode()
        wait = (lambda: None) if dry else lambda: arrays.cuda.Device().synchronize()
        roof = roofs(arrays, torch, wait, dry)
        rows = [*dense(arrays, torch, wait, roof, dry), *convolution(wait, dry), *field(arrays, wait, roof, dry)]
    found = {"card": card, "eqkernel": eq.__version__, "torch": getattr(torch, "__version__", None), "roofs": roof}
    temporary = options.out.with_suffix(".part")
    temporary.write_text(json.dumps({**found, "rows": rows}, indent=1))
    temporary.replace(options.out)
    print(f"{card}: " + ", ".join(f"{name} {value:.3g}/s" for name, value in roof.items()))
    for row in rows:
        ratio = f"{row['times its floor']:8.2f} x floor" if row.get("times its floor") else ""
        if row.get("graphs in its time"):  # to be at least 3 at 784-512-10, B = 256
            ratio = f"{row['graphs in its time']:8.2f} x as fast as torch's graph"
        print(f"{row['net']:30}{row.get('batch', ''):>6}  {row['contestant']:40}{row['seconds'] * 1e6:12.1f} us{ratio}")
    print(f"written to {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
