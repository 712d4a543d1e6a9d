"""`eqkernel doctor`: what eqkernel runs on, which backends it can use, and whether they agree."""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version

import llvmlite.binding as llvm
import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .backends import BACKENDS, load_backend, unavailable
from .cpu.threads import get_threads
from .learning import ep_gradient
from .network import Network
from .phases import free_phase

PACKAGES = ("eqkernel", "numpy", "numba", "llvmlite", "scipy", "scikit-learn", "safetensors", "matplotlib")
OPTIONAL = ("cupy-cuda12x", "cupy-cuda13x", "torch", "jax")
FEATURES = ("sse4.2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512vnni", "amx-tile", "neon", "sve")
VARIABLES = ("EQKERNEL_DATA", "NUMBA_NUM_THREADS", "NUMBA_CACHE_DIR", "NUMBA_DISABLE_JIT", "OMP_NUM_THREADS")

# Sums in another order round differently, here by some 10 units in the last place; a wrong kernel is far off.
AGREEMENT = {"float32": 1e-4, "float64": 1e-12}


def examine(console: Console) -> bool:
    """Prints the findings; whether every available backend agrees with the reference."""
    console.print(_facts())
    console.print(_backends())
    with console.status("checking the backends against each other"):
        table, agree = _check()
    console.print(table)
    console.print("all is well" if agree else "[red]a backend differs from the reference: do not trust it")
    return agree


def _facts() -> Table:
    table = Table(box=SIMPLE, show_header=False)
    table.add_row("python", f"{sys.version.split()[0]} on {platform.platform()}")
    for package in (*PACKAGES, *OPTIONAL):
        if (found := _version(package)) or package in PACKAGES:
            table.add_row(package, found or "[red]missing: reinstall eqkernel")
    present = llvm.get_host_cpu_features()
    table.add_row("CPU", f"{llvm.get_host_cpu_name()}: {' '.join(f for f in FEATURES if present.get(f))}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    table.add_row("threads", f"{get_threads()} used by the kernels, {cores} cores usable")
    for name in VARIABLES:
        if name in os.environ:
            table.add_row(name, os.environ[name])
    return table


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _backends() -> Table:
    table = Table("backend", "is", "state", box=SIMPLE)
    for name, (description, _) in BACKENDS.items():
        reason = unavailable(name)
        table.add_row(name, description, f"[red]{escape(reason)}" if reason else f"available{_detail(name)}")
    return table


def _detail(name: str) -> str:
    """What a backend says of itself, such as which of its variants runs here."""
    return getattr(load_backend(name), "detail", lambda: "")()


def _check() -> tuple[Table, bool]:
    """Settled states and gradients of one small network in every backend, beside the reference's."""
    rng = np.random.default_rng(0)
    x, y = rng.random((32, 64)), rng.integers(0, 10, 32)
    expected = _settled_and_gradient("reference", "float64", x, y)
    table = Table("self-check", "type", "states differ by", "gradients by", "allowed", "seconds", box=SIMPLE)
    agree = True
    for name in BACKENDS:
        if name == "reference" or unavailable(name):
            continue
        for dtype, allowed in AGREEMENT.items():
            start = time.perf_counter()
            found = _settled_and_gradient(name, dtype, x, y)
            seconds = time.perf_counter() - start
            pairs = zip(found, expected, strict=True)
            errors = [float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)) for ours, theirs in pairs]
            agree &= max(errors) <= allowed
            cells = (f"{error:.1e}" for error in errors)
            table.add_row(name, dtype, *cells, f"{allowed:.0e}", f"{seconds:.2f}")
    table.caption = "the first time includes compiling the kernels, which are kept"
    return table, agree


def _settled_and_gradient(backend: str, dtype: str, x: NDArray, y: NDArray) -> tuple[NDArray, NDArray]:
    """All settled states and the whole gradient, flattened, of a 64-48-32-10 network."""
    net = Network.dense(64, 48, 32, 10, neuron="sigmoid", schedule="converged", dtype=dtype, backend=backend)
    states = free_phase(net, x).state[1:]
    gradient = ep_gradient(net, x, y, beta=0.1)
    return np.concatenate([s.ravel() for s in states]), np.concatenate([g.ravel() for g in gradient])
