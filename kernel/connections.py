"""Connections: which layers a synapse joins, the shape of its weights, how they begin, what bounds them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from .errors import EqkernelError, is_finite, lookup


class Connection:
    """A synapse from layer `pre` (None if it has no presynaptic layer) into layer `post`.

    `stem` names the file that holds its verbs in every backend. Subclasses are frozen dataclasses, whose fields are
    the arguments that build them; weight files store them.
    """

    stem: ClassVar[str]
    pre: int | None
    post: int

    @property
    def name(self) -> str:
        """A name unique within a network, used in weight files."""
        return f"{self.stem}.{self.post}" if self.pre in (None, self.post) else f"{self.stem}.{self.pre}-{self.post}"

    def shape(self, sizes: list[int]) -> tuple[int, ...]:
        """Shape of the weights, given the size of every layer."""
        raise NotImplementedError

    def initial(self, sizes: list[int], rng: np.random.Generator) -> NDArray:
        """Weights before training, float64."""
        return np.zeros(self.shape(sizes))

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

    def shape(self, sizes: list[int]) -> tuple[int, ...]:
        return sizes[self.post], sizes[self.pre]

    def initial(self, sizes: list[int], rng: np.random.Generator) -> NDArray:
        limit = np.sqrt(6 / (sizes[self.pre] + sizes[self.post]))
        return rng.uniform(-limit, limit, self.shape(sizes))


@dataclass(frozen=True)
class Bias(Connection):
    """Phi = b . s_post, b (n_post,), zero at first."""

    post: int
    stem: ClassVar[str] = "bias"

    @property
    def pre(self) -> None:  # type: ignore[override]
        return None

    def shape(self, sizes: list[int]) -> tuple[int, ...]:
        return (sizes[self.post],)


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

    @property
    def pre(self) -> int:  # type: ignore[override]
        return self.post

    def shape(self, sizes: list[int]) -> tuple[int, ...]:
        return sizes[self.post], sizes[self.post]

    def initial(self, sizes: list[int], rng: np.random.Generator) -> NDArray:
        weight = rng.standard_normal(self.shape(sizes))
        weight += weight.T
        return weight * (self.bound / 2 / np.linalg.norm(weight, 2))

    def project(self, weight: NDArray, vectors: NDArray | None) -> NDArray:
        """Make W symmetric again (rounding) and scale it to |W|_2 <= bound, in place; returns its leading eigenvectors.

        Power iteration on a block of vectors, from where the last call ended. A single vector would stay with an
        eigenvalue that has just been overtaken, and with the bound at work many crowd at it.
        """
        weight += weight.T.copy()
        weight *= weight.dtype.type(0.5)
        iterations = 2
        if vectors is None:
            block = len(weight), min(8, len(weight))
            vectors, iterations = np.random.default_rng(0).standard_normal(block).astype(weight.dtype), 50
        for _ in range(iterations):
            vectors = np.linalg.qr(weight @ vectors)[0]
        norm = np.linalg.norm(weight @ vectors, 2)
        if norm > self.bound:
            weight *= weight.dtype.type(self.bound / norm)
        return vectors


CONNECTIONS: dict[str, type[Connection]] = {kind.stem: kind for kind in (Dense, Bias, Lateral)}


def find_connection(stem: str) -> type[Connection]:
    """The connection type called `stem`; EqkernelError naming the types if there is none."""
    return lookup("connection", stem, CONNECTIONS)
