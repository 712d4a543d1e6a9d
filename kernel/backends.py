"""Backends by name: who computes the verbs, and what to do when one is missing.

A backend is a package with one module per connection stem, holding the verbs of `eqkernel.reference`, and a module
`neurons`. It may offer `fused(network)`: the phases of the networks it covers, in its own kernels; `missing()`: why it
cannot run here, or None; `preferred()`: whether "auto" may choose it; and `namespace()`: the array namespace of its
memory, if that is not the host's.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

from .errors import BackendError, lookup

if TYPE_CHECKING:
    from .network import Network

# name -> what it is, and what to do where it cannot be imported. The fastest first.
BACKENDS = {
    "c": ("C99 library, float32 and float64", "install a C compiler and reinstall eqkernel"),
    "cpu": ("Numba kernels, float32 and float64", "reinstall eqkernel: numba is one of its dependencies"),
    "reference": ("NumPy, float64: the specification", "reinstall eqkernel"),
    # Last, so that "auto" does not choose it: it has not been measured on a GPU.
    "cuda": (
        "CUDA kernels through CuPy, float32 and float64",
        "for CUDA 12 pip install 'eqkernel[cuda12]', for CUDA 13 pip install 'eqkernel[cuda13]' (nvidia-smi shows "
        "which the driver supports)",
    ),
}
BROKEN = "reinstall eqkernel, for this Python and this machine"  # what to do where all is there, but does not load
MODULES = {"c": "bindings.backend"}  # where it is not the package of that name


@cache
def _import(name: str) -> ModuleType | ImportError:
    try:
        return import_module(f".{MODULES.get(name, name)}", __package__)
    except ImportError as error:
        return error


def unavailable(name: str) -> str | None:
    """Why backend `name` cannot be used here and the fix; None if it can."""
    _, fix = lookup("backend", name, BACKENDS)
    found = _import(name)
    if isinstance(found, ImportError) and not isinstance(found, ModuleNotFoundError):
        return f"{found}; {BROKEN}"
    lack = found if isinstance(found, ImportError) else found.missing() if hasattr(found, "missing") else None
    return None if lack is None else f"{lack}; {fix}"


def load_backend(name: str) -> ModuleType:
    """The module of backend `name`; BackendError with the reason, the fix and what is available."""
    reason = unavailable(name)
    if reason:
        present = ", ".join(other for other in BACKENDS if not unavailable(other))
        raise BackendError(f"backend {name!r} is not available: {reason}. Available: {present}")
    module = _import(name)
    assert isinstance(module, ModuleType)
    return module


def verbs(name: str, stem: str) -> ModuleType | None:
    """The module of backend `name` with the verbs of connection `stem` (or "neurons"); None if it has none."""
    module = load_backend(name)
    if not hasattr(module, stem) and hasattr(module, "__path__") and find_spec(f".{name}.{stem}", __package__):
        import_module(f".{name}.{stem}", __package__)
    return getattr(module, stem, None)


def choose(name: str, network: Network) -> str:
    """The backend to run `network` on: `name` itself if it covers the network, or for "auto" the fastest that does.

    An explicit choice never falls back: it raises BackendError instead.
    """
    if name == "auto":
        first, reasons = None, []
        for other in BACKENDS:
            if unavailable(other) or not _preferred(module := load_backend(other)):
                continue
            if lack := _lacks(other, network):
                reasons.append(f"{other!r} has no {lack[0]}")
            elif hasattr(module, "fused") and module.fused(network) is not None:
                return other
            else:
                first = first or other  # only the verbs: another may do better
        if first is None:
            raise BackendError(f"no backend covers this network: {'; '.join(reasons)}")
        return first
    load_backend(name)
    if lack := _lacks(name, network):
        raise BackendError(f"backend {name!r} has no {lack[0]}: choose {lack[1]}")
    return name


def fastest(names: Iterable[str] = BACKENDS) -> str:
    """The first of `names` that is here and that "auto" may choose."""
    return next(name for name in names if not unavailable(name) and _preferred(load_backend(name)))


def _preferred(module: ModuleType) -> bool:
    """Whether "auto" may choose the backend, which may know that on this machine it is slow."""
    return module.preferred() if hasattr(module, "preferred") else True


def _lacks(name: str, network: Network) -> tuple[str, str] | None:
    """What the backend lacks for the network, and what to choose instead; None if it has all."""
    for connection in network.connections:
        if verbs(name, connection.stem) is None:
            return f"connection {connection.stem!r}", "backend='auto'"
    if name == "reference" and network.dtype != "float64":
        return f"{network.dtype}, only float64", "dtype='float64'"
    return None
