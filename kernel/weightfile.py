"""Weight files: safetensors with the topology in the metadata, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from .connections import find_connection
from .errors import EqkernelError
from .interop import to_host, write
from .schedules import Schedule

if TYPE_CHECKING:
    from .network import Layer, Network

FORMAT, VERSION = "eqkernel", 1


@contextmanager
def replacing(path: str | PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place if the block succeeds; otherwise `path` is left as it was.

    Raises EqkernelError if the folder does not exist, cannot be written to, or the disk is full.
    """
    target = Path(path)
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
        raise EqkernelError(f"cannot write {target}: {reason}; nothing was changed") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def save_network(network: Network, path: str | PathLike[str]) -> None:
    """Write the network's topology, schedule and parameters."""
    description = {
        "layers": [_fields(layer) for layer in network.layers],
        "connections": [[c.stem, vars(c)] for c in network.connections],
        "cost": network.cost.name,
        "schedule": asdict(network.schedule),
        "dtype": network.dtype.name,
        "seed": network.seed,
    }
    metadata = {"format": FORMAT, "version": str(VERSION), "network": json.dumps(description, default=np.generic.item)}
    tensors = {c.name: to_host(p) for c, p in zip(network.connections, network.parameters, strict=True)}
    with replacing(path) as temporary:
        temporary.write_bytes(save(tensors, metadata))


def _fields(layer: Layer) -> list[Any]:
    """The arguments of a Layer, those of its adaptation only if it has one."""
    return [layer.size, layer.neuron, *((layer.adaptation, layer.tau) if layer.adaptation else ())]


def load_network(kind: type[Network], path: str | PathLike[str], backend: str) -> Network:
    """Read what `save_network` wrote."""
    from .network import Layer

    if not Path(path).is_file():
        raise EqkernelError(f"no weight file at {path}")
    try:
        with safe_open(os.fspath(path), framework="numpy") as handle:
            metadata = handle.metadata() or {}
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise EqkernelError(f"{path} is not a whole safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise EqkernelError(f"{path} is a safetensors file, but not of eqkernel")
    if metadata.get("version") != str(VERSION):
        found = metadata.get("version")
        raise EqkernelError(f"{path} has format version {found}; this eqkernel reads version {VERSION}: update it")
    try:
        description = json.loads(metadata["network"])
        network = kind(
            [Layer(*fields) for fields in description["layers"]],
            [find_connection(stem)(**fields) for stem, fields in description["connections"]],
            description["cost"],
            Schedule(**description["schedule"]),
            description["dtype"],
            backend,
            description["seed"],
        )
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise EqkernelError(f"{path} describes no network this eqkernel knows: {error}") from error
    for connection, parameter in zip(network.connections, network.parameters, strict=True):
        tensor = tensors.get(connection.name)
        if tensor is None or tensor.shape != parameter.shape or tensor.dtype != parameter.dtype:
            raise EqkernelError(f"{path}: the weights of {connection.name} are missing or of another shape or type")
        if not np.isfinite(tensor).all():
            raise EqkernelError(f"{path}: the weights of {connection.name} hold a NaN or an infinity")
        write(parameter, tensor)
    return network
