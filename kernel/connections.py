"""Connections: which layers a synapse joins, the shape of its weights, how they begin, what bounds them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import isfinite, prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .blas import one_thread
from .errors import DivergenceError, EqkernelError, is_finite, lookup, make_plain
from .geometry import ConvGeometry, conv_geometry
from .interop import write

Shapes = list[tuple[int, ...]]  # of every layer: (n,), or (height, width, channels) for a map


class Connection(ABC):
    """A synapse from layer `pre` (None if it has no presynaptic layer) into layer `post`.

    `stem` names the file that holds its verbs in every backend. Subclasses are frozen dataclasses, whose fields are
    the arguments that build them; weight files store them. `chooses` says whether the verb `choose` decides, whenever
    the drive of `post` is refreshed, which of its synapses act; it writes what it decides into the last of `extra`.
    """

    stem: ClassVar[str]
    pre: int | None
    post: int
    chooses: bool = False

    @property
    def name(self) -> str:
        """A name unique within a network, used in weight files."""
        return f"{self.stem}.{self.post}" if self.pre in (None, self.post) else f"{self.stem}.{self.pre}-{self.post}"

    @abstractmethod
    def shape(self, shapes: Shapes) -> tuple[int, ...]:
        """Shape of the weights, given that of every layer."""

    def initial(self, shapes: Shapes, rng: np.random.Generator) -> NDArray:
        """Weights before training, float64."""
        return np.zeros(self.shape(shapes))

    def extra(self, shapes: Shapes, batch: int) -> tuple[Any, ...]:
        """What its verbs take after their usual arguments, for a batch of states in memory of their own."""
        return ()

    def project(self, weight: NDArray, vectors: NDArray | None) -> NDArray | None:
        """Bring weights back into their allowed set, in place, after an update; most have none.

        `vectors` is what the last call returned (a warm start), None at first.
        """
        return None


@dataclass(frozen=True)
class Dense(Connection):
    """All-to-all, Phi = s_post . (W s_pre), W (n_post, n_pre), Glorot-uniform at first (Glorot & Bengio 2010)."""

    pre: int
    post: int
    stem: ClassVar[str] = "dense"

    def shape(self, shapes: Shapes) -> tuple[int, ...]:
        return prod(shapes[self.post]), prod(shapes[self.pre])

    def initial(self, shapes: Shapes, rng: np.random.Generator) -> NDArray:
        return _glorot(sum(self.shape(shapes)), self.shape(shapes), rng)


@dataclass(frozen=True)
class Bias(Connection):
    """Phi = b . s_post, zero at first: b (n_post,), or (channels,) for a map, whose positions share it."""

    post: int
    stem: ClassVar[str] = "bias"

    @property
    def pre(self) -> None:  # type: ignore[override]
        return None

    def shape(self, shapes: Shapes) -> tuple[int, ...]:
        return (shapes[self.post][-1],)


@dataclass(frozen=True)
class Lateral(Connection):
    """Within one layer, Phi = s . (W s) / 2, W (n, n) symmetric with spectral norm |W|_2 <= bound.

    A bound below 1 keeps the layer's own recursion a contraction for neurons of slope <= 1. Power iteration keeps it
    after every update, so both phases see the same weights.
    """

    post: int
    bound: float = 0.9
    stem: ClassVar[str] = "lateral"

    def __post_init__(self) -> None:
        if not (is_finite(self.bound) and self.bound > 0):
            raise EqkernelError(f"the spectral bound of a lateral connection must be positive, not {self.bound!r}")
        make_plain(self, float, "bound")

    @property
    def pre(self) -> int:  # type: ignore[override]
        return self.post

    def shape(self, shapes: Shapes) -> tuple[int, ...]:
        return (prod(shapes[self.post]),) * 2

    def initial(self, shapes: Shapes, rng: np.random.Generator) -> NDArray:
        weight = rng.standard_normal(self.shape(shapes))
        weight += weight.T
        return weight * (self.bound / 2 / np.linalg.norm(weight, 2))

    @np.errstate(over="ignore", invalid="ignore")  # divergence shows in the norm
    def project(self, weight: NDArray, vectors: NDArray | None) -> NDArray:
        """Make W symmetric again (rounding) and scale it to |W|_2 <= bound, in place; returns its leading eigenvectors.

        Power iteration on a block of vectors, from where the last call ended. A single vector would stay with an
        eigenvalue that has just been overtaken, and with the bound at work many crowd at it.
        Raises DivergenceError for weights that are not finite.
        """
        weight += weight.T.copy()
        weight *= weight.dtype.type(0.5)
        iterations = 2
        if vectors is None:
            block = len(weight), min(8, len(weight))
            vectors = np.empty_like(weight[:, : block[1]])  # where the weights are
            write(vectors, np.random.default_rng(0).standard_normal(block))
            iterations = 50
        with one_thread(weight):
            for _ in range(iterations):
                vectors = np.linalg.qr(weight @ vectors)[0]
            try:
                norm = float(np.linalg.norm(weight @ vectors, 2))
            except np.linalg.LinAlgError:  # singular values of what is not finite
                norm = float("nan")
        if not isfinite(norm):
            raise DivergenceError(
                f"the weights of connection {self.name} are no longer finite: lower the learning rate"
            )
        if norm > self.bound:
            weight *= weight.dtype.type(self.bound / norm)
        return vectors


@dataclass(frozen=True)
class Conv(Connection):
    """Convolution, Phi = <s_post, P(K * s_pre)>, between two maps; K (C_out, k, k, C_in), Glorot-uniform at first.

    P is the identity (pool "none"), or pools windows of `window` x `window`, side by side, by their "average" or their
    "max"; where the maximum lies is taken anew whenever the drive is refreshed and frozen in between, so that Phi stays
    bilinear. (Pool maxima into rates >= 0: one below 0 weakens the winner it reads, and winners take turns for ever.)
    The map of post must be floor((side + 2 padding - kernel) / stride) + 1 high and wide, divided by the window and
    rounded down.
    """

    pre: int
    post: int
    kernel: int = 5
    stride: int = 1
    padding: int = 0
    pool: str = "none"
    window: int = 2
    stem: ClassVar[str] = "conv"

    @property
    def chooses(self) -> bool:  # type: ignore[override]
        return self.pool == "max"

    def geometry(self, shapes: Shapes) -> ConvGeometry:
        """Its geometry between layers of `shapes`; EqkernelError naming the numbers if they do not fit."""
        return conv_geometry(
            f"connection {self.name}", shapes[self.pre], shapes[self.post],
            self.kernel, self.stride, self.padding, self.pool, self.window,
        )  # fmt: skip

    def shape(self, shapes: Shapes) -> tuple[int, ...]:
        return self.geometry(shapes).weight_shape

    def initial(self, shapes: Shapes, rng: np.random.Generator) -> NDArray:
        outputs, *taps, inputs = self.shape(shapes)
        return _glorot((outputs + inputs) * prod(taps), self.shape(shapes), rng)

    def extra(self, shapes: Shapes, batch: int) -> tuple[ConvGeometry, NDArray | None]:
        """(geometry, winners): winners (B, n_post) int32 of the last `choose`, None unless the pool is "max"."""
        geometry = self.geometry(shapes)
        return geometry, np.zeros((batch, geometry.n_post), np.int32) if self.chooses else None


def _glorot(fans: int, shape: tuple[int, ...], rng: np.random.Generator) -> NDArray:
    """Uniform weights of variance 2 / (fan-in + fan-out)."""
    limit = np.sqrt(6 / fans)
    return rng.uniform(-limit, limit, shape)


CONNECTIONS: dict[str, type[Connection]] = {kind.stem: kind for kind in (Dense, Bias, Lateral, Conv)}


def find_connection(stem: str) -> type[Connection]:
    """The connection type called `stem`; EqkernelError naming the types if there is none."""
    return lookup("connection", stem, CONNECTIONS)
