"""Peak memory against the number of settle steps: each figure is the peak resident set of a process of its
own.

    python -m bench.memory
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from .problem import Problem, settling
from .timing import pinned


def _eqkernel(p: Problem, steps: int) -> Any:
    import eqkernel

    from .ours import EqSettle

    schedule = eqkernel.SCHEDULES["converged"].but(free_steps=steps, nudged_steps=steps, tolerance=None)
    return EqSettle(p, schedule)


def _numpy(p: Problem, steps: int) -> Any:
    from .rivals.numpy_settle import NumpyHoisted

    return NumpyHoisted(p, free_steps=steps, nudged_steps=steps)


def _torch(p: Problem, steps: int) -> Any:
    from .rivals.torch_settle import TorchSettle

    return TorchSettle(p, free_steps=steps, nudged_steps=steps)


def _autograd(p: Problem, steps: int) -> Any:
    from .rivals.torch_autograd_ep import TorchAutogradEP

    return TorchAutogradEP(p, free_steps=steps, nudged_steps=steps)


def _bptt(p: Problem, steps: int) -> Any:
    from .rivals.torch_bptt import TorchBPTT

    return TorchBPTT(p, steps=steps)


CONTESTANTS: dict[str, Callable[[Problem, int], Any]] = {
    "eqkernel": _eqkernel,
    "numpy, hoisted": _numpy,
    "torch no_grad, hoisted": _torch,
    "torch autograd of Phi": _autograd,
    "torch backprop through time": _bptt,
}


def peak() -> float:
    """Peak resident set of this process so far, in MiB."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def probe(name: str, steps: int) -> dict[str, float]:
    """In this process: the peak once two steps have loaded and compiled all, and after `steps` steps."""
    p = settling(784, 512, 10, batch=64)
    CONTESTANTS[name](p, 2).run()
    before = peak()
    CONTESTANTS[name](p, steps).run()
    return {"before": before, "after": peak()}


def measure(steps: tuple[int, int] = (10, 1000)) -> list[dict[str, Any]]:
    """One row a contestant: peaks at few and many steps, and how much of each the steps themselves have
    added.
    """
    rows = []
    for name in CONTESTANTS:
        found = []
        for count in steps:
            with pinned(1) as environment:
                command = [sys.executable, "-m", "bench.memory", "--probe", name, str(count)]
                done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
        few, many = found
        rows.append({
            "contestant": name, "steps": list(steps), "peak MiB": [few["after"], many["after"]],
            "ratio": many["after"] / few["after"],
            "added MiB": [few["after"] - few["before"], many["after"] - many["before"]],
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probe", nargs=2, metavar=("CONTESTANT", "STEPS"), help="one figure, of this process alone")
    options = parser.parse_args()
    if options.probe:
        name, steps = options.probe
        print(json.dumps(probe(name, int(steps))))
    else:
        for row in measure():
            print(row)


if __name__ == "__main__":
    main()
