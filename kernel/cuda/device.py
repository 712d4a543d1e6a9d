"""Where CUDA kernels run: the one place that knows CuPy.

A device offers an array namespace with CuPy's functions, `compile(text, name)` giving a module whose get_function makes
kernels, and its limits. Tests put a stand-in here that runs the same kernels on the CPU.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Protocol

from ..errors import BackendError


class Device(Protocol):
    """What the launch code needs of a GPU, or of what stands in for one."""

    arrays: Any  # the array namespace
    shared_memory: int  # bytes of shared memory that a block may have
    capability: int  # 90 for sm_90
    processors: int  # multiprocessors, each with room for a few blocks at once

    def __hash__(self) -> int: ...

    def compile(self, text: str, name: str) -> Any:
        """The module of a kernel text, with get_function(name) as CuPy's RawModule."""

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        """What does again, in one launch, all that `run` asks of the device; `run` may neither allocate nor wait."""

    def on_stream_of(self, array: Any) -> contextlib.AbstractContextManager[None]:
        """A context in which kernels run on the stream that the owner of `array` is using.

        Streams do not wait for one another: that one begins when the work before the context is done (weights on their
        way to the device), and the stream used outside goes on when the work inside is (a network that is saved).
        """


class CuPy:
    """The current GPU, by CuPy."""

    def __init__(self) -> None:
        import cupy

        self.arrays = cupy
        attributes = cupy.cuda.Device().attributes
        self.shared_memory = int(attributes["MaxSharedMemoryPerBlockOptin"])
        self.processors = int(attributes["MultiProcessorCount"])
        self.capability = int(cupy.cuda.Device().compute_capability)

    def compile(self, text: str, name: str) -> Any:
        return self.arrays.RawModule(code=text, options=("--std=c++17",))

    def record(self, run: Callable[[], None]) -> Callable[[], None]:
        stream = self.arrays.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            run()
            graph = stream.end_capture()
        return graph.launch

    @contextlib.contextmanager
    def on_stream_of(self, array: Any) -> Iterator[None]:
        if type(array).__module__.split(".")[0] != "torch":
            yield
            return
        import torch

        cuda, owner = self.arrays.cuda, torch.cuda.current_stream(array.device)
        here = cuda.get_current_stream()
        if here.ptr == owner.cuda_stream:
            yield
            return
        if hasattr(cuda.Stream, "from_external") and hasattr(owner, "__cuda_stream__"):
            there = cuda.Stream.from_external(owner)
        else:  # before CuPy 14, or a PyTorch without the protocol
            there = cuda.ExternalStream(owner.cuda_stream)
        there.wait_event(here.record())
        try:
            with there:
                yield
        finally:
            here.wait_event(there.record())


_chosen: Device | None = None


@cache
def _cupy() -> CuPy | str:
    """The GPU, or why there is none."""
    try:
        import cupy
    except ImportError:
        return "CuPy is not installed"
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy {cupy.__version__} finds no usable driver ({error})"
    return CuPy() if count else f"CuPy {cupy.__version__} finds no GPU"


def missing() -> str | None:
    """Why no kernel can run here; None if one can."""
    found = _chosen or _cupy()
    return found if isinstance(found, str) else None


def current() -> Device:
    """The device that kernels run on; BackendError if there is none."""
    found = _chosen or _cupy()
    if isinstance(found, str):
        from ..backends import BACKENDS

        raise BackendError(f"backend 'cuda' is not available: {found}; {BACKENDS['cuda'][1]}")
    return found


@contextlib.contextmanager
def using(device: Device | None) -> Iterator[None]:
    """Run kernels on `device` for a while."""
    global _chosen
    before, _chosen = _chosen, device
    try:
        yield
    finally:
        _chosen = before
