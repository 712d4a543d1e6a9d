"""CUDA kernels on a CPU: `build` compiles their text with g++, `stand_in` runs it with CuPy's names and rules.

    shim.h         CUDA C in plain C++, included before a kernel's text
    runtime.cpp    threads as fibers, barriers, warp exchanges
    checker.cpp    races, bounds, uninitialised shared memory; sectors and bank conflicts
    nvrtc.py       the real compiler, without a GPU: registers, spills, occupancy

With EQKERNEL_GPU=1 the tests that use `running` run on the GPU of this machine instead (make test-gpu).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from eqkernel.cuda import device

from . import build

ON_GPU = os.environ.get("EQKERNEL_GPU") == "1"
REASON = device.missing() if ON_GPU else build.missing()
needed = pytest.mark.skipif(REASON is not None, reason=str(REASON))
# The checker and what it counts exist only on the CPU.
shim_only = pytest.mark.skipif(
    ON_GPU or REASON is not None, reason="checked by the shim alone" if ON_GPU else str(REASON)
)


@contextmanager
def running(mode: str = "fast", seed: int = 1, **options: Any) -> Iterator[None]:
    """A context in which CUDA kernels run: in the stand-in, threads in the order of `seed`, or on the GPU.

    The GPU too passes for one of few multiprocessors: tests are small, and would only reach the smallest tiles.
    """
    from .stand_in import StandIn

    if not ON_GPU:
        with device.using(StandIn(mode, seed, **options)):
            yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device.current(), "processors", StandIn.processors)
        yield
