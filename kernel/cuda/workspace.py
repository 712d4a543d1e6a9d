"""Device memory of the phases of large networks (layerwise.py): what settles, what is kept, what is returned."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from . import tensor
from .device import current
from .launcher import c_int
from .precision import code_for

if TYPE_CHECKING:
    from ..network import Network

LINE = 16  # states begin at multiples of so many numbers, as vector.cuh wants


class Channel:
    """One thing that settles: of layers 1..L the state, room for the next state, up and down, (rows, n_l) each."""

    def __init__(self, network: Network, rows: int, code: int = 0, biased: bool = True) -> None:
        sizes, self.rows, self.biased = network.sizes[1:], rows, biased
        self.starts = np.cumsum([0, *(-(-rows * n // LINE) * LINE for n in sizes)])
        self.flat = current().arrays.zeros((4, int(self.starts[-1])), network.dtype)
        pieces = [
            [part[at : at + rows * n].reshape(rows, n) for at, n in zip(self.starts, sizes, strict=False)]
            for part in self.flat
        ]
        self.low = tensor.Rounded(network.sizes, rows, code) if code else None
        self.pair = [[pieces[0][l], pieces[1][l]] for l in range(len(sizes))]
        self.up, self.down = ([None, *part] for part in pieces[2:])
        self.turned = [0] * (len(sizes) + 1)

    def at(self, section: int, layer: int) -> int:
        """Where a layer begins in section 0 or 1 (states), 2 (up) or 3 (down) of all."""
        return section * int(self.starts[-1]) + int(self.starts[layer - 1])

    def state(self, layer: int) -> Any:
        """(rows, n) of a layer."""
        return self.pair[layer - 1][self.turned[layer]]

    def next(self, layer: int) -> Any:
        """Where its next state goes."""
        return self.pair[layer - 1][1 - self.turned[layer]]

    def turn(self, layer: int) -> None:
        """The next state becomes the state."""
        self.turned[layer] = 1 - self.turned[layer]

    def begin(self, like: Channel | None = None) -> None:
        """At rest, or as another channel of as many rows, or of half as many, twice."""
        if like is None:
            self.turned = [0] * len(self.turned)
            self.flat.fill(0)
            if self.low is not None:
                for array in self.low.arrays():
                    array.fill(0)
        else:
            self.turned = [*like.turned]
            for mine, theirs in zip(self.arrays(), like.arrays(), strict=True):
                for first in range(0, self.rows, like.rows):
                    mine[first : first + like.rows] = theirs

    def arrays(self) -> list[Any]:
        """All its arrays."""
        states = [array for pair in self.pair for array in pair]
        return states + self.up[1:] + self.down[1:] + (self.low.arrays() if self.low is not None else [])


class Workspace:
    """All device memory of the phases of a batch, and the graphs that work on it."""

    def __init__(self, network: Network, batch: int) -> None:
        arrays, sizes, dtype = current().arrays, network.sizes, network.dtype
        self.network, self.batch, self.code = network, batch, code_for(network.dtype)
        self.free, self.mean = (Channel(network, batch, self.code) for _ in range(2))
        self.difference = Channel(network, batch, self.code, biased=False)
        self.both = Channel(network, 2 * batch, self.code)  # a + and a - state, or one of them in its first half
        self.middle = Channel(network, batch)  # in its `up`: the drive of the mean, or of the difference
        self.target, self.error = (arrays.zeros((2 * batch, sizes[-1]), dtype) for _ in range(2))
        self.pull = arrays.zeros((2 * batch, sizes[network.top]), dtype)
        self.graphs: dict[Any, tuple[Callable[[], None], list[int]] | None] = {}
        self.tables: dict[tuple[int, ...], Any] = {}
        self.most: Any = None
        self.own_results()

    def own_results(self) -> None:
        """New memory for what a nudged phase returns."""
        sizes, arrays = self.network.sizes[1:], current().arrays
        flats = [arrays.zeros(self.batch * sum(sizes), self.network.dtype) for _ in range(2)]
        starts = np.cumsum([0, *sizes])
        self.means, self.differences = (
            [
                flat[self.batch * at : self.batch * (at + n)].reshape(self.batch, n)
                for at, n in zip(starts, sizes, strict=False)
            ]
            for flat in flats
        )

    def table(self, rows: tuple[int, ...]) -> Any:
        """These C ints on the device; the same array for the same numbers. EqkernelError for one that is too large."""
        if rows not in self.tables:
            self.tables[rows] = current().arrays.asarray(np.array([*map(c_int, rows)]))
        return self.tables[rows]

    def with_own_results(self) -> Workspace:
        """A workspace that shares all but the arrays a nudged phase returns, which no recorded graph knows."""
        other = copy(self)
        other.graphs = {}
        other.own_results()
        return other
