"""Fair timing on a machine that is never quite quiet: every round runs every contestant once, in an order of its own,
so that nobody always follows the same, and what is reported is the median over rounds of the ratios inside one round.
"""

import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

Call = Callable[[], object]
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


@contextmanager
def pinned(threads: int) -> Iterator[dict[str, str]]:
    """Confines this process, and the children it starts, to `threads` cores; yields the environment for a
    child.

    Where the system has no affinity call the environment alone limits the threads.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if cores:
        os.sched_setaffinity(0, cores[-threads:])
    try:
        yield {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    finally:
        if cores:
            os.sched_setaffinity(0, cores)


def interleave(contestants: dict[str, Call], rounds: int = 15, seconds: float = 0.02) -> dict[str, np.ndarray]:
    """Seconds per call, one figure a round, for every contestant; a turn lasts `seconds` or one call."""
    names = list(contestants)
    repeats = {}
    for name, call in contestants.items():
        call()  # compiles, fills caches
        repeats[name] = max(1, round(seconds / max(_turn(call, 1), _turn(call, 2) / 2, 1e-9)))
    times: dict[str, list[float]] = {name: [] for name in names}
    orders = np.random.default_rng(0)
    for _ in range(rounds):
        for name in orders.permutation(names).tolist():
            time.sleep(0.005)  # the last contestant's idle threads stop spinning
            if repeats[name] > 1:
                contestants[name]()  # its data come back into the caches
            times[name].append(_turn(contestants[name], repeats[name]) / repeats[name])
    return {name: np.array(t) for name, t in times.items()}


def _turn(call: Call, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return time.perf_counter() - start


def ratio(times: dict[str, np.ndarray], name: str, reference: str) -> tuple[float, float, float]:
    """How many times faster than `reference`: lower quartile, median, upper quartile of the ratios inside a
    round.
    """
    low, middle, high = np.percentile(times[reference] / times[name], [25, 50, 75])
    return float(low), float(middle), float(high)


def _best(call: Call, seconds: float = 0.25) -> float:
    """Shortest seconds per call seen in about `seconds`."""
    call()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        best = min(best, _turn(call, 1))
    return best


def sgemm_roof() -> dict[str, float]:
    """GFLOP/s of the fastest float32 matrix product, by library: the best of a large cube and the benchmark's
    own shapes. The roof is the maximum over the libraries that are installed.
    """
    roof: dict[str, float] = {}
    for m, k, n in ((1024, 1024, 1024), (256, 784, 512), (128, 512, 512)):
        rng = np.random.default_rng(0)
        a, b = rng.random((m, k), "float32"), rng.random((k, n), "float32")
        for name, call in _products(a, b).items():
            roof[name] = max(roof.get(name, 0.0), 2e-9 * m * k * n / _best(call))
    return roof


def _products(a: np.ndarray, b: np.ndarray) -> dict[str, Call]:
    out = np.empty((len(a), b.shape[1]), a.dtype)
    calls: dict[str, Call] = {"numpy": lambda: np.matmul(a, b, out=out)}
    try:
        import torch

        ta, tb, tout = (torch.from_numpy(z) for z in (a, b, out))
        calls["torch"] = lambda: torch.mm(ta, tb, out=tout)
    except ImportError:
        pass
    try:
        import jax

        ja, jb, product = jax.numpy.asarray(a), jax.numpy.asarray(b), jax.jit(jax.numpy.matmul)
        calls["jax"] = lambda: product(ja, jb).block_until_ready()
    except ImportError:
        pass
    return calls


def triad(elements: int = 1 << 25) -> float:
    """DRAM bandwidth in GB/s of a = b + s c over arrays far larger than any cache, 12 bytes an element."""
    import torch

    b, c, a = torch.ones(elements), torch.ones(elements), torch.empty(elements)
    return 12e-9 * elements / _best(lambda: torch.add(b, c, alpha=0.5, out=a), 1.0)


def machine() -> dict[str, Any]:
    """What a reader needs in order to judge the figures."""
    from threadpoolctl import threadpool_info

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = dict(line.split(":", 1) for line in info.split("\n\n")[0].splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = fields.get("flags", "").split()
    blas = [f"{b['internal_api']} {b['version']} ({b.get('architecture', '?')})" for b in threadpool_info()
            if b["user_api"] == "blas"]  # fmt: skip
    return {
        "cpu": fields.get("model name") or platform.processor() or platform.machine(),
        "family, model": f"{fields.get('cpu family', '?')}, {fields.get('model', '?')}",
        "cores": os.cpu_count(),
        "vector units": [f for f in ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16") if f in flags],
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "versions": {n: installed(n) for n in ("eqkernel", "numpy", "numba", "torch", "jax")},
        "numpy's BLAS": sorted(set(blas)),
        "load": [round(v, 2) for v in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "date": time.strftime("%Y-%m-%d"),
    }


def write_text(path: str | Path, text: str) -> None:
    """Writes a file whole or not at all."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent or ".", prefix=path.name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_json(path: str | Path, data: object) -> None:
    write_text(path, json.dumps(data, indent=1) + "\n")
