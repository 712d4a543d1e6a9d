"""Networks: layers of neurons joined by connections, with all parameters in one flat buffer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, prod
from os import PathLike
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import weightfile
from .alignment import LINE, aligned
from .backends import choose, load_backend
from .connections import Bias, Connection, Conv, Dense, Lateral
from .costs import Cost, CrossEntropy, find_cost
from .errors import EqkernelError, as_dtype, check_seed, is_finite, is_whole, make_plain
from .interop import to_host, write
from .neurons import find_neuron
from .relaxation import Relaxation
from .schedules import Schedule, find_schedule

MOST = 2**31 - 1  # neurons of a layer


@dataclass(frozen=True)
class Layer:
    """Neurons of one model: `size` of them, or a map of (height, width, channels); the input's model is not used.

    The states of a map are rows (B, height * width * channels) like any other, its channels last.
    adaptation   strength g of a current that tires a neuron as it fires: ds/dt = rho(drive - g a) - s,
                 tau da/dt = s - a; at rest it adds g s^2 / 2 to the energy (docs/cortex.md)
    tau          its time constant, at least 1, in units of the neuron's own
    """

    size: int | tuple[int, int, int]
    neuron: str = "hard-sigmoid"
    adaptation: float = 0.0
    tau: float = 2.0

    def __post_init__(self) -> None:
        if isinstance(self.size, tuple | list):
            if len(self.size) != 3 or not all(is_whole(n, 1) for n in self.size):
                raise EqkernelError(
                    f"a map is (height, width, channels), whole numbers of at least 1, not {self.size!r}"
                )
            object.__setattr__(self, "size", tuple(int(n) for n in self.size))
        elif not is_whole(self.size, 1):
            raise EqkernelError(f"a layer needs a whole number of neurons, at least 1, not {self.size!r}")
        if not (is_finite(self.adaptation) and self.adaptation >= 0):
            raise EqkernelError(f"adaptation must be a number of at least 0, not {self.adaptation!r}")
        if not (is_finite(self.tau) and self.tau >= 1):
            raise EqkernelError(f"tau must be a number of at least 1, not {self.tau!r}")
        make_plain(self, float, "adaptation", "tau")
        if prod(self.shape) > MOST:
            raise EqkernelError(f"a layer has at most {MOST:,} neurons, not {self.size!r}")
        if self.adaptation and self.neuron == "softmax":
            raise EqkernelError("a softmax readout takes no part in the dynamics: it has no adaptation")
        find_neuron(self.neuron)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n,), or (height, width, channels) of a map."""
        return self.size if isinstance(self.size, tuple) else (int(self.size),)


class Parameters(tuple[NDArray, ...]):
    """Views of one buffer. To set one is to write its numbers: an array of its shape, or one number for all."""

    def __setitem__(self, index: SupportsIndex | slice, values: ArrayLike) -> None:
        if isinstance(index, slice):
            raise EqkernelError("parameters are set one by one, net.parameters[0] = ..., or all in net.buffer[...]")
        given = to_host(values, f"parameter {index}")
        if given.shape not in ((), self[index].shape):
            raise EqkernelError(f"parameter {index} has shape {self[index].shape}, not {given.shape}")
        if given.dtype.kind not in "fiub":
            raise EqkernelError(f"parameter {index} must be real numbers, not of type {given.dtype}")
        with np.errstate(over="ignore"):
            values = given.astype(self[index].dtype)
        if (np.isfinite(values) != np.isfinite(given)).any():
            raise EqkernelError(f"parameter {index}: a number is too large for {values.dtype}")
        write(self[index], values)


FIXED = {"layers", "connections", "cost", "dtype", "backend", "buffer", "parameters"}  # what an engine is built on


class Network:
    """Layers 0..L (0 is the clamped input) and the connections between them.

    layers        a Layer for each, in order; with cost "cross-entropy" the last is a "softmax" readout
    connections   Dense, Conv, Bias, Lateral; each runs from a lower to a higher layer or stays within one
    cost          "cross-entropy", "squared-error" or "binary-cross-entropy" (a last layer of sigmoids)
    schedule      a name of SCHEDULES or a Schedule; it holds the feedback gain gamma, so it is part of the model
    dtype         "float32" or "float64"
    backend       "auto", "c", "cpu", "reference" or "cuda"

    Attributes: parameters (one array a connection, all views of the flat `buffer`; on backend "cuda" they lie on the
    device), top (the layer that is nudged), arrays (the namespace of these arrays: numpy, or cupy), engine (who runs
    the phases: fused kernels where the backend has them, else the verbs). The schedule may be set, also by its name;
    layers, connections, cost, dtype and backend may not. A network can be copied and pickled; its engine is built anew.
    Raises EqkernelError for a topology that has no equilibrium propagation, naming the layer or connection.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        connections: Sequence[Connection],
        cost: str | Cost = "cross-entropy",
        schedule: str | Schedule = "few-step",
        dtype: str = "float32",
        backend: str = "auto",
        seed: int = 0,
    ) -> None:
        self.layers: tuple[Layer, ...] = _all(layers, Layer, "Network.dense takes sizes")
        self.connections: tuple[Connection, ...] = _all(connections, Connection, "as Dense(0, 1) is one")
        self.cost, self.schedule, self.seed = find_cost(cost), find_schedule(schedule), seed
        check_seed(seed)
        self.dtype = as_dtype(dtype)
        self._check()
        self.top = len(self.layers) - (2 if self.has_readout else 1)
        shapes = [connection.shape(self.shapes) for connection in self.connections]
        line = LINE // 4  # numbers from one parameter's begin to a next one's; float64's are as far apart
        starts = np.cumsum([0] + [-(-int(np.prod(shape)) // line) * line for shape in shapes])
        self.offsets = [int(start) for start in starts[:-1]]
        self.buffer = aligned(1, int(starts[-1]), self.dtype)[0]
        self.parameters = self._views(shapes)
        rng = np.random.default_rng(seed)
        for parameter, connection in zip(self.parameters, self.connections, strict=True):
            parameter[...] = connection.initial(self.shapes, rng)
        self._vectors: list[NDArray | None] = [None] * len(self.connections)
        self.backend = choose(backend, self)
        module = load_backend(self.backend)
        self.arrays: Any = module.namespace() if hasattr(module, "namespace") else np
        if self.arrays is not np:
            self.buffer = self.arrays.asarray(self.buffer)
            self.parameters = self._views(shapes)
        own_error = type(self.cost).error is not Cost.error  # which fused kernels do not know
        fused = module.fused(self) if hasattr(module, "fused") and not own_error else None
        self.engine: Any = fused or Relaxation(self, self.backend)
        self.warned = False
        self.planned: Schedule | None = None  # the schedule that was last found to suit

    def __setattr__(self, name: str, value: Any) -> None:
        """A schedule may be set by its name; what the engine was built on may not be set."""
        if name in FIXED and "engine" in vars(self) and value is not getattr(self, name):  # net.buffer *= 2 sets itself
            raise AttributeError(f"the {name} of a network cannot be set: make another, or Network.load(path, ...)")
        super().__setattr__(name, find_schedule(value) if name == "schedule" else value)

    def __reduce__(self) -> tuple[Any, ...]:
        description = self.layers, self.connections, self.cost, self.schedule, self.dtype.name, self.backend, self.seed
        vectors = [None if v is None else to_host(v) for v in self._vectors]
        return _restored, (type(self), description, to_host(self.buffer), vectors, self.warned)

    @classmethod
    def dense(
        cls,
        *sizes: int,
        neuron: str = "hard-sigmoid",
        output: str | None = None,
        cost: str | Cost = "cross-entropy",
        **options: Any,
    ) -> Network:
        """A layered network: `sizes` from input to output, all-to-all weights and biases between neighbours.

        `output` is the last layer's neuron: "softmax" for cross-entropy (outside the dynamics), "sigmoid" for binary
        cross-entropy, "linear" unless chosen for squared error. `options` are those of Network: schedule, dtype,
        backend, seed.
        """
        return cls(_layers(sizes, neuron, output, cost), _chain(len(sizes)), cost, **options)

    @classmethod
    def recurrent(
        cls,
        *sizes: int,
        bound: float = 0.9,
        neuron: str = "tanh",
        output: str | None = None,
        cost: str | Cost = "cross-entropy",
        schedule: str | Schedule = "converged",
        **options: Any,
    ) -> Network:
        """As `dense`, with a symmetric lateral connection of spectral norm <= `bound` in every hidden layer."""
        laterals = [Lateral(layer, bound) for layer in range(1, len(sizes) - 1)]
        layers = _layers(sizes, neuron, output, cost)
        return cls(layers, [*_chain(len(sizes)), *laterals], cost, schedule, **options)

    @cached_property
    def sizes(self) -> list[int]:
        """Neurons of every layer."""
        return [prod(layer.shape) for layer in self.layers]

    @cached_property
    def shapes(self) -> list[tuple[int, ...]]:
        """Shape of every layer: (n,), or (height, width, channels) of a map."""
        return [layer.shape for layer in self.layers]

    @property
    def has_readout(self) -> bool:
        """Whether the last layer is a softmax readout outside the dynamics."""
        return isinstance(self.cost, CrossEntropy)

    @property
    def gamma(self) -> float:
        """Gain of feedback over one layer."""
        return self.schedule.gamma

    def scale(self, connection: Connection, schedule: Schedule) -> float:
        """What turns a connection's Hebbian contrast into the descent gradient: -gamma^(post - top) (docs/theory.md).

        A readout is outside the energy: its contrast is the gradient itself, up to the sign.
        """
        return -1.0 if connection.post > self.top else -(schedule.gamma ** (connection.post - self.top))

    def _views(self, shapes: Sequence[tuple[int, ...]]) -> Parameters:
        """The parts of the buffer that are parameters of these shapes."""
        places = zip(self.offsets, shapes, strict=True)
        return Parameters(self.buffer[at : at + prod(shape)].reshape(shape) for at, shape in places)

    def project(self) -> None:
        """Bring the parameters back into their allowed sets (lateral connections: |W|_2 <= bound)."""
        for i, connection in enumerate(self.connections):
            self._vectors[i] = connection.project(self.parameters[i], self._vectors[i])

    def save(self, path: str | PathLike[str]) -> None:
        """Write topology, schedule and parameters to a safetensors file, whole or not at all.

        EqkernelError for parameters that are not finite, or a path that is not a file's or cannot be written.
        """
        weightfile.save_network(self, path)

    def export_c(self, path: str | PathLike[str]) -> None:
        """Write the network as a C header for the C library (docs/c.md), whole or not at all.

        EqkernelError for a topology that the library does not settle, and as `save`.
        """
        from .bindings.export import export_c

        export_c(self, path)

    @classmethod
    def load(cls, path: str | PathLike[str], backend: str = "auto", dtype: str | None = None) -> Network:
        """Read a network that `save` wrote, to compute in `dtype`, by default that of the file.

        EqkernelError for a file that is missing, cut short or foreign, BackendError as for a new network.
        """
        return weightfile.load_network(cls, path, backend, dtype)

    def __repr__(self) -> str:
        sizes = "-".join("x".join(map(str, shape)) for shape in self.shapes)
        count = sum(parameter.size for parameter in self.parameters)
        return f"Network({sizes}, {count:,} parameters, {self.cost.name}, {self.schedule.name}, {self.backend})"

    def _check(self) -> None:
        if len(self.layers) < 2:
            raise EqkernelError(f"a network needs an input and an output layer, not {len(self.layers)} layers")
        if self.has_readout and len(self.layers) < 3:
            raise EqkernelError(
                "with cost 'cross-entropy' the last layer is read out of the dynamics: give at least one hidden "
                "layer, or use cost 'squared-error'"
            )
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers[1:], 1):
            if (layer.neuron == "softmax") != (self.has_readout and index == last):
                raise EqkernelError(
                    f"layer {index} has neuron {layer.neuron!r}: 'softmax' is the readout of cost "
                    "'cross-entropy', there the last layer's and only its"
                )
        if self.cost.only and self.layers[last].neuron != self.cost.output:
            raise EqkernelError(
                f"layer {last} has neuron {self.layers[last].neuron!r}: cost {self.cost.name!r} needs "
                f"{self.cost.output!r} there"
            )
        names = set()
        for connection in self.connections:
            is_bias = connection.pre is None and not isinstance(connection, Dense | Conv)
            pre = 0 if is_bias else connection.pre
            if pre is None or not all(is_whole(layer, -inf) for layer in (pre, connection.post)):
                raise EqkernelError(f"{connection!r} must name layers by their numbers, 0..{last}")
            if not 0 <= pre <= connection.post <= last or connection.post == 0:
                raise EqkernelError(
                    f"connection {connection.name} must run from a layer in 0..{last} to one above it or its own"
                )
            if pre == connection.post and connection.stem in ("dense", "conv"):
                raise EqkernelError(f"connection {connection.name} stays in its layer: use Lateral({pre})")
            if self.has_readout and connection.post == last and connection.pre not in (None, last - 1):
                raise EqkernelError(f"connection {connection.name}: a softmax readout reads the layer below it only")
            if connection.name in names:
                raise EqkernelError(f"connection {connection.name} is given twice")
            names.add(connection.name)
        for index in range(1, last + 1):
            if not any(c.post == index and c.pre not in (None, index) for c in self.connections):
                raise EqkernelError(f"layer {index} has no connection from a layer below it")


def _all(given: Any, kind: type[Any], hint: str) -> tuple[Any, ...]:
    """What is given as a tuple; EqkernelError unless every item is of this kind."""
    items = tuple(given) if isinstance(given, Iterable) else (given,)
    for item in items:
        if not isinstance(item, kind):
            raise EqkernelError(f"{kind.__name__.lower()}s must be a list of {kind.__name__}s, not of {item!r}: {hint}")
    return items


def _restored(
    kind: type[Network], description: tuple[Any, ...], buffer: NDArray, vectors: list[NDArray | None], warned: bool
) -> Network:
    """The network that was copied or pickled."""
    network = kind(*description)
    write(network.buffer, buffer)
    network._vectors = [None if v is None else network.arrays.asarray(v) for v in vectors]
    network.warned = warned
    return network


def _layers(sizes: Sequence[int], neuron: str, output: str | None, cost: str | Cost) -> list[Layer]:
    output = output or find_cost(cost).output
    return [Layer(size, output if i and i == len(sizes) - 1 else neuron) for i, size in enumerate(sizes)]


def _chain(layers: int) -> list[Connection]:
    chain: list[Connection] = []
    for post in range(1, layers):
        chain += [Dense(post - 1, post), Bias(post)]
    return chain
