"""Arrays of others: host and GPU, NumPy, CuPy, PyTorch and all that speak DLPack or __cuda_array_interface__.

A network on backend "cuda" keeps its parameters on the device. What it is given is used where it lies: a device array
of its type without a copy, on the stream its owner is using. Results come back as the input came: host arrays for a
host input, CuPy arrays for a CuPy one, PyTorch tensors for a tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import EqkernelError, all_finite, as_array

if TYPE_CHECKING:
    from .network import Network

Return = Callable[[Any], Any]
_HERE = nullcontext()


def on_device(array: Any) -> bool:
    """Whether an array lies on a GPU."""
    # A tensor on the host has the attribute too, and raises AttributeError when it is read.
    return not isinstance(array, np.ndarray) and hasattr(array, "__cuda_array_interface__")


def to_host(array: Any, name: str = "the array") -> NDArray:
    """An array as NumPy's: itself, or a copy of one on a device; EqkernelError for what is none."""
    return array.get() if hasattr(array, "get") and on_device(array) else as_array(name, array)


def write(array: Any, values: NDArray) -> None:
    """array[...] = values, host values, wherever the array lies."""
    if isinstance(array, np.ndarray):
        array[...] = values
    else:
        array.set(np.ascontiguousarray(np.broadcast_to(values, array.shape), array.dtype))


def to_network(network: Network, name: str, array: Any) -> Any:
    """An array where the network computes, in its type and C-contiguous; as it is where it has these already.

    Raises EqkernelError for one on a GPU if the network is not, and for one that is not of real numbers.
    """
    if network.arrays is np:
        if on_device(array):
            raise EqkernelError(
                f"{name} lies on a GPU, and this network on the host: make it with backend='cuda', or pass a host array"
            )
        return array
    if not on_device(array):
        host = as_array(name, array)
        if host.dtype.kind in "fiub":
            return network.arrays.asarray(np.ascontiguousarray(host, network.dtype))
        raise EqkernelError(f"{name} has type {host.dtype}: it must hold real numbers")
    if not isinstance(array, network.arrays.ndarray):
        array = network.arrays.from_dlpack(array) if hasattr(array, "__dlpack__") else network.arrays.asarray(array)
    if array.dtype.kind not in "fiub":
        raise EqkernelError(f"{name} has type {array.dtype}: it must hold real numbers")
    return network.arrays.ascontiguousarray(array.astype(network.dtype, copy=False))


def resident(network: Network, given: Any) -> Any:
    """An array on the device if the network is, so that all that follows stays there."""
    return given if network.arrays is np else to_network(network, "x", given)


def laid_out(name: str, array: NDArray, dtype: np.dtype) -> NDArray:
    """A host array in a type, C-contiguous and aligned, as kernels read it: itself, where it is so already.

    What overflows the type becomes an infinity. Raises EqkernelError for one that is not of real numbers.
    """
    flags = array.flags
    if array.dtype == dtype and flags.c_contiguous and flags.aligned:
        return array
    if array.dtype.kind not in "fiub":
        raise EqkernelError(f"{name} has type {array.dtype}: it must hold real numbers")
    with np.errstate(over="ignore"):
        return np.require(array, dtype, ["C", "A"])


def states_of(network: Network, **given: list[Any]) -> list[list[Any]]:
    """Lists of states, (B, n_l) for every layer l, where the network computes, in its type and C-contiguous.

    Raises EqkernelError for an array of another shape: of another network, or of another batch than the first; and on
    the host for one that is not finite.
    """
    lists: list[list[Any]] = []
    batch = 0
    for name, states in given.items():
        if len(states) != len(network.sizes):
            raise EqkernelError(f"{name} has {len(states)} states: this network has {len(network.sizes)} layers")
        lists.append([])
        for layer, (array, n) in enumerate(zip(states, network.sizes, strict=True)):
            label = f"{name}[{layer}]"
            array = to_network(network, label, array)
            if network.arrays is np:
                array = laid_out(label, as_array(label, array), network.dtype)
            batch = batch or (array.shape or (0,))[0]
            if not batch or array.shape != (batch, n):
                raise EqkernelError(f"{label} has shape {array.shape}: this network takes ({batch or 'B'}, {n})")
            if network.arrays is np:  # on a device, to look would stop it
                check_finite(label, array)
            lists[-1].append(array)
    return lists


def turn_of(network: Network) -> AbstractContextManager[Any]:
    """A context that one thread at a time is in: in it the memory that the network's engine works in is its own."""
    try:
        return network.engine.turn
    except AttributeError:  # its first
        return vars(network.engine).setdefault("turn", RLock())


def returner(network: Network, given: Any) -> Return:
    """What hands a result, or a list of them, back as `given` came: on the host, as CuPy's, or as tensors."""
    if network.arrays is np or isinstance(given, network.arrays.ndarray):
        return _as_it_is
    if not on_device(given):
        return _each(to_host)
    if type(given).__module__.split(".")[0] == "torch":
        from torch import from_dlpack

        return _each(from_dlpack)
    return _as_it_is


def _as_it_is(result: Any) -> Any:
    return result


def _each(convert: Return) -> Return:
    return lambda result: [convert(r) for r in result] if isinstance(result, list) else convert(result)


def stream_of(network: Network, array: Any) -> AbstractContextManager[None]:
    """A context in which the network's kernels run on the stream that the owner of `array` is using."""
    if network.arrays is np or not on_device(array):
        return _HERE
    from .cuda.device import current

    return current().on_stream_of(array)


def targets_of(network: Network, y: Any) -> Any:
    """Targets (B, n_L) where the network computes, of labels (B,) or targets on the host or the device."""
    classes = network.sizes[-1]
    if not on_device(y):
        target = network.cost.targets(y, classes, network.dtype)
        return laid_out("y", target, network.dtype) if network.arrays is np else network.arrays.asarray(target)
    to_network(network, "y", y[:0])  # refuses where it must
    if not isinstance(y, network.arrays.ndarray):
        y = network.arrays.from_dlpack(y)
    if y.ndim == 2:
        # The rules of costs are for host arrays; targets are few, and a copy of them is checked there.
        network.cost.targets(to_host(y), classes, network.dtype)
        return to_network(network, "y", y)
    if y.ndim != 1 or y.dtype.kind not in "iu" or not len(y):
        raise EqkernelError(f"y must be labels (B,), integers in 0..{classes - 1}, or targets (B, {classes})")
    if int(y.min()) < 0 or int(y.max()) >= classes:
        raise EqkernelError(f"labels run from {int(y.min())} to {int(y.max())}: they must lie in 0..{classes - 1}")
    return (y[:, None] == network.arrays.arange(classes)[None, :]).astype(network.dtype)


def check_finite(name: str, array: Any) -> None:
    """EqkernelError if an array holds a NaN or an infinity."""
    if not all_finite(array):
        raise EqkernelError(f"{name} holds a NaN or an infinity, as {array.dtype}")
