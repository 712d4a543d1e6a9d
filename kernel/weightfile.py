"""Weight files: safetensors with the topology in the metadata, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .backends import load_backend
from .connections import find_connection
from .costs import COSTS
from .errors import BackendError, EqkernelError, as_dtype
from .interop import check_finite, to_host, write
from .schedules import Schedule

if TYPE_CHECKING:
    from .network import Layer, Network

FORMAT, VERSION = "eqkernel", 1


@contextmanager
def replacing(path: str | PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place if the block succeeds; otherwise `path` is left as it was.

    Where `path` is a link, what it points to is replaced. Raises EqkernelError if `path` is anything but a file, if the
    folder does not exist, cannot be written to, or the disk is full.
    """
    target = _target(path)
    temporary = None
    try:
        with NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as handle:
            temporary = Path(handle.name)
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise EqkernelError(f"cannot write {path}: {reason}; nothing was changed") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _target(path: str | PathLike[str]) -> Path:
    """The file that `path` means, which need not exist yet; EqkernelError for a folder, a device, or no path at all."""
    try:
        target = Path(os.path.realpath(path))
        if os.path.lexists(target) and not target.is_file():
            raise ValueError("it is there, and not a file")
    except (OSError, TypeError, ValueError) as error:
        raise EqkernelError(f"cannot write {path!s:.300}: {error}; nothing was changed") from error
    return target


def check_writable(path: str | PathLike[str]) -> None:
    """EqkernelError, before the work, where `replacing` could not begin to write `path`."""
    try:
        TemporaryFile(dir=_target(path).parent).close()
    except OSError as error:
        raise EqkernelError(f"cannot write {path}: {error.strerror or error}") from error


def save_network(network: Network, path: str | PathLike[str]) -> None:
    """Write the network's topology, schedule and parameters; EqkernelError for parameters that are not finite."""
    tensors = finite_parameters(network, "save")
    if type(network.cost) is not type(COSTS.get(network.cost.name)):
        raise EqkernelError(f"cannot save the network: its cost {network.cost!r} is none of eqkernel's, {list(COSTS)}")
    description = {
        "layers": [_fields(layer) for layer in network.layers],
        "connections": [[c.stem, vars(c)] for c in network.connections],
        "cost": network.cost.name,
        "schedule": asdict(network.schedule),
        "dtype": network.dtype.name,
        "seed": network.seed,
    }
    metadata = {"format": FORMAT, "version": str(VERSION), "network": json.dumps(description, default=np.generic.item)}
    with replacing(path) as temporary:
        temporary.write_bytes(_safetensors().numpy.save(tensors, metadata))


def finite_parameters(network: Network, verb: str) -> dict[str, NDArray]:
    """The parameters on the host, by the name of their connection; EqkernelError if they are not finite."""
    tensors = {c.name: to_host(p) for c, p in zip(network.connections, network.parameters, strict=True)}
    for name, tensor in tensors.items():
        check_finite(f"cannot {verb} the network: {name}", tensor)
    return tensors


def _safetensors() -> Any:
    """The package of that name, which nothing but weight files needs."""
    try:
        import safetensors.numpy
    except ModuleNotFoundError as error:
        raise EqkernelError(f"weight files need a package ({error}): pip install safetensors") from error
    return safetensors


def _fields(layer: Layer) -> list[Any]:
    """The arguments of a Layer, those of its adaptation only if it has one."""
    return [layer.size, layer.neuron, *((layer.adaptation, layer.tau) if layer.adaptation else ())]


def load_network(kind: type[Network], path: str | PathLike[str], backend: str, dtype: str | None) -> Network:
    """Read what `save_network` wrote, the parameters as `dtype` if that is given."""
    from .network import Layer

    metadata, tensors = _read(path)
    if metadata.get("format") != FORMAT:
        raise EqkernelError(f"{path} is a safetensors file, but not of eqkernel")
    if metadata.get("version") != str(VERSION):
        found = metadata.get("version")
        raise EqkernelError(f"{path} has format version {found}; this eqkernel reads version {VERSION}: update it")
    if dtype is not None:
        as_dtype(dtype)
    if backend != "auto":
        load_backend(backend)
    try:
        description = json.loads(metadata["network"])
        layers = [Layer(*fields) for fields in description["layers"]]
        connections = [find_connection(stem)(**fields) for stem, fields in description["connections"]]
        stored, shapes = as_dtype(description["dtype"]), [layer.shape for layer in layers]
        for connection in connections:  # before a network is made: that of a foreign description may be of any size
            tensor = tensors.get(connection.name)
            if tensor is None or tensor.shape != connection.shape(shapes) or tensor.dtype != stored:
                raise EqkernelError(f"the weights of {connection.name} are missing or of another shape or type")
        cost, schedule, seed = description["cost"], Schedule(**description["schedule"]), description["seed"]
        network = kind(layers, connections, cost, schedule, dtype or stored.name, backend, seed)
    except BackendError as error:
        raise BackendError(f"{path}: {error}") from error
    except (LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EqkernelError(f"{path} describes no network this eqkernel knows: {error}") from error
    for connection, parameter in zip(network.connections, network.parameters, strict=True):
        with np.errstate(over="ignore"):  # what overflows `dtype` is refused as the infinity it becomes
            tensor = tensors[connection.name].astype(network.dtype)
        check_finite(f"{path}: {connection.name}", tensor)
        write(parameter, tensor)
    return network


def _read(path: str | PathLike[str]) -> tuple[dict[str, str], dict[str, NDArray]]:
    """The metadata and the tensors of a safetensors file."""
    try:
        there, hint = Path(path).is_file(), ": it is a folder" if Path(path).is_dir() else ""
    except (OSError, TypeError, ValueError):  # a name that is too long, or None
        there, hint = False, ""
    if not there:
        raise EqkernelError(f"no weight file at {path!s:.300}{hint}")
    safetensors = _safetensors()
    try:
        with safetensors.safe_open(os.fspath(path), framework="numpy") as handle:
            return handle.metadata() or {}, {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, AttributeError, TypeError) as error:  # of a type that NumPy lacks
        raise EqkernelError(f"{path} is not a whole safetensors file: {error}") from error
