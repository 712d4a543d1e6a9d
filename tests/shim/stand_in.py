"""A GPU's stand-in: arrays, kernels and launches with CuPy's names and CuPy's rules, on the CPU.

Stricter than CuPy where CuPy lets a mistake reach the GPU: scalars must have the type of their C parameter, arrays that
of their pointer, and every array lies between guard bands that no kernel may touch. Host and device arrays do not mix.
"""

from __future__ import annotations

import contextlib
import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from . import build
from .build import KernelError

GUARD = 256  # bytes around an array, of value 0xFF


class Array(NDArrayOperatorsMixin):
    """Memory of the stand-in. NumPy's functions work on it, as on CuPy's arrays, unless host arrays are mixed in."""

    def __init__(self, data: np.ndarray, owner: Array | None = None) -> None:
        if owner is None:
            _forbid("an allocation")
        self.base = owner if owner is None or owner.base is None else owner.base
        whole = owner._whole if owner is not None else None
        if whole is None:
            whole = np.full(data.nbytes + 3 * GUARD, 0xFF, np.uint8)
            whole = whole[-whole.ctypes.data % GUARD :][: data.nbytes + 2 * GUARD]  # aligned as the GPU's memory is
            inside = whole[GUARD : GUARD + data.nbytes].view(data.dtype).reshape(data.shape)
            inside[...] = data
            data = inside
        self._data, self._whole = data, whole

    shape = property(lambda self: self._data.shape)
    dtype = property(lambda self: self._data.dtype)
    ndim = property(lambda self: self._data.ndim)
    size = property(lambda self: self._data.size)
    nbytes = property(lambda self: self._data.nbytes)
    itemsize = property(lambda self: self._data.itemsize)
    flags = property(lambda self: self._data.flags)
    T = property(lambda self: Array(self._data.T, self))
    data = property(lambda self: SimpleNamespace(ptr=self._data.ctypes.data))

    def __len__(self) -> int:
        return len(self._data)

    def get(self) -> np.ndarray:
        _forbid("a copy to the host")
        return self._data.copy()

    def set(self, values: np.ndarray) -> None:
        if not isinstance(values, np.ndarray) or values.dtype != self.dtype or values.shape != self.shape:
            raise ValueError("set() takes a NumPy array of the same shape and type")
        self._data[...] = values

    def fill(self, value: float) -> None:
        _do(lambda: self._data.fill(value))

    def reshape(self, *shape: Any) -> Array:
        view = self._data.reshape(*shape)
        return Array(view, self) if np.shares_memory(view, self._data) else Array(view)

    def astype(self, dtype: Any, copy: bool = True) -> Array:
        return Array(self._data.astype(dtype)) if copy or self.dtype != dtype else self

    def copy(self) -> Array:
        return Array(self._data.copy())

    def __getitem__(self, key: Any) -> Array:
        part = self._data[_unwrap(key)]
        return Array(part, self) if part.size == 0 or np.shares_memory(part, self._data) else Array(np.asarray(part))

    def __setitem__(self, key: Any, value: Any) -> None:
        place, values = _unwrap(key), _unwrap(value)
        _do(lambda: self._data.__setitem__(place, values))

    def _reduce(name: str):  # type: ignore[misc]
        return lambda self, *args, **options: Array(np.asarray(getattr(self._data, name)(*args, **options)))

    sum, max, min, mean, all, any, argmax = map(_reduce, ("sum", "max", "min", "mean", "all", "any", "argmax"))

    def __float__(self) -> float:
        return float(self._data)

    def __int__(self) -> int:
        return int(self._data)

    def __bool__(self) -> bool:
        return bool(self._data)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        out = options.pop("out", ())
        if out:
            options["out"] = tuple(map(_unwrap, out))
        if out:
            values = [*map(_unwrap, inputs)]
            _do(lambda: getattr(ufunc, method)(*values, **options))
            return out[0]
        return _wrap(getattr(ufunc, method)(*map(_unwrap, inputs), **options))

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        done = function(*_unwrap(list(args)), **{name: _unwrap(value) for name, value in options.items()})
        return tuple(map(_wrap, done)) if isinstance(done, tuple) else _wrap(done)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self._data.__array_interface__, "version": 3, "stream": 1}


def _wrap(value: Any) -> Any:
    return Array(np.asarray(value)) if isinstance(value, np.ndarray | np.generic) else value


def _unwrap(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_unwrap, value))
    if isinstance(value, Array):
        return value._data
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("Unsupported type <class 'numpy.ndarray'>: a host array among device arrays")
    return value


def _empty(shape: Any, dtype: Any = np.float64) -> Array:
    """Filled with NaN bits: whoever reads before writing shall notice."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return Array(np.full(count, 0xFF, np.uint8).view(dtype).reshape(shape))


def _asarray(values: Any, dtype: Any = None) -> Array:
    if isinstance(values, Array):
        return values if dtype in (None, values.dtype) else values.astype(dtype)
    return Array(np.ascontiguousarray(values, dtype))


ARRAYS = SimpleNamespace(
    ndarray=Array,
    empty=_empty,
    zeros=lambda shape, dtype=np.float64: Array(np.zeros(shape, dtype)),
    asarray=_asarray,
    ascontiguousarray=lambda a: a if a.flags.c_contiguous else Array(np.ascontiguousarray(a._data)),
    arange=lambda *args, **options: Array(np.arange(*args, **options)),
    asnumpy=lambda a: a.get() if isinstance(a, Array) else np.asarray(a),
)


RECORDING: list[Any] | None = None  # what a graph being captured will do


def _do(work: Any) -> None:
    """Work on the device: now, or when the graph that is being captured is launched."""
    if RECORDING is None:
        work()
    else:
        RECORDING.append(work)


def _forbid(what: str) -> None:
    if RECORDING is not None:
        raise KernelError(f"{what} while a graph is captured")


class StandIn:
    """A device on which kernels run as fibers; `mode` "fast" or "check", `seed` orders threads and blocks."""

    arrays = ARRAYS
    shared_memory = 227 * 1024
    capability = 90
    processors = 2  # so few that tiles of several samples are used too

    def __init__(self, mode: str = "fast", seed: int = 0, edit: Any = None) -> None:
        self.mode, self.seed, self.edit, self.profile = mode, seed, edit, None
        self.graphs = 0  # captured so far

    def compile(self, text: str, name: str) -> RawModule:
        text = self.edit(name, text) if self.edit else text
        return RawModule(self, text, (f"-D__CUDA_ARCH__={10 * self.capability}",))

    def record(self, run: Any) -> Any:
        """As a CUDA graph: what is captured is not done, and does not allocate or wait."""
        global RECORDING
        RECORDING = work = []
        try:
            run()
        finally:
            RECORDING = None
        self.graphs += 1
        return lambda: [part() for part in work] and None

    @contextlib.contextmanager
    def on_stream_of(self, array: Any):
        yield


class RawModule:
    """In place of cupy.RawModule."""

    def __init__(self, device: StandIn, text: str, options: tuple[str, ...] = ()) -> None:
        self.device, self.bounds = device, build.kernels(text)
        self.library = ctypes.CDLL(str(build.build(text, options, device.mode)))

    def get_function(self, name: str) -> RawKernel:
        if name not in self.bounds:
            raise KeyError(f"no kernel {name!r} among {', '.join(self.bounds)}")
        return RawKernel(self, name)


class RawKernel:
    """In place of cupy.RawKernel, called as kernel(grid, block, arguments, shared_mem=bytes)."""

    def __init__(self, module: RawModule, name: str, cooperative: bool = False) -> None:
        self.module, self.name, self.cooperative = module, name, cooperative
        text = ctypes.create_string_buffer(4096)
        getattr(module.library, f"shim_signature_{name}")(text)
        self.parameters = [p for p in text.value.decode().split(",") if p]
        self.max_dynamic_shared_size_bytes = 48 * 1024

    def __call__(self, grid: tuple, block: tuple, arguments: tuple, *, shared_mem: int = 0) -> None:
        _do(lambda: self._launch(grid, block, arguments, shared_mem))

    def _launch(self, grid: tuple, block: tuple, arguments: tuple, shared_mem: int) -> None:
        library, device, bound = self.module.library, self.module.device, self.module.bounds[self.name]
        threads = int(np.prod(block))
        if bound and threads > bound:
            raise KernelError(f"{self.name}: {threads} threads a block, but __launch_bounds__ says {bound}")
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise KernelError(f"{self.name}: {shared_mem} bytes of shared memory, more than was asked for")
        if len(arguments) != len(self.parameters):
            raise TypeError(f"{self.name} has {len(self.parameters)} parameters and got {len(arguments)} arguments")
        library.shim_check(int(device.mode == "check"), int(device.profile is not None))
        library.shim_forget()
        values = [self._value(*pair) for pair in zip(self.parameters, arguments, strict=True)]
        pointers = (ctypes.c_void_p * len(values))(*(v.ctypes.data for v in values))
        shape = [(ctypes.c_uint * 3)(*(*map(int, size), 1, 1)[:3]) for size in (grid, block)]
        error = ctypes.create_string_buffer(512)
        getattr(library, f"shim_launch_{self.name}")(
            pointers, *shape, ctypes.c_uint(shared_mem), int(self.cooperative), ctypes.c_uint(device.seed), error, 512
        )
        if error.value:
            raise KernelError(f"{self.name}: {error.value.decode()}")
        for array in arguments:
            if isinstance(array, Array) and not ((array._whole[:GUARD] == 255) & (array._whole[-GUARD:] == 255)).all():
                array._whole[:GUARD] = array._whole[-GUARD:] = 255
                raise KernelError(f"{self.name}: wrote outside an array of shape {array.shape}")
        if device.profile is not None:
            counts = (ctypes.c_double * 8)()
            library.shim_profile(counts)
            device.profile.setdefault(self.name, np.zeros((4, 2)))[...] += np.reshape(counts, (4, 2))

    def _value(self, parameter: str, argument: Any) -> np.ndarray:
        """What a pointer to the argument must point to: an address or a number of the parameter's own type."""
        if "*" not in parameter:
            if not isinstance(argument, np.generic) or argument.dtype != np.dtype(parameter):
                raise TypeError(f"{self.name}: {argument!r} ({type(argument).__name__}) for a parameter {parameter}")
            return np.array(argument)
        if not isinstance(argument, Array):
            raise TypeError(f"{self.name}: {type(argument).__name__} where a device array belongs")
        if argument.dtype != np.dtype(parameter.split("*")[1]):
            raise TypeError(f"{self.name}: an array of {argument.dtype} for a parameter {parameter}")
        if not argument.flags.c_contiguous:
            raise TypeError(f"{self.name}: an array that is not C-contiguous")
        address, constant = argument.data.ptr, parameter.startswith("C")
        self.module.library.shim_array(ctypes.c_size_t(address), ctypes.c_size_t(argument.nbytes), int(constant))
        return np.array(address, np.uintp)
