"""A channel: something that settles. The free state, a nudged state, or the difference of two nudged states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .connections import Connection
    from .network import Network


class Channel:
    """Each layer's state, and its drive in two parts, from below (`up`) and, times gamma, above (`down`); all (B, n_l).

    current   the adaptation current of a layer, None if it has none; it is linear, so a difference has its own
    extra     what the verbs of every connection take besides; a difference has the choices of its mean
    A channel made with its `mean` is a difference, which no bias and no clamped input drives.
    """

    def __init__(self, network: Network, batch: int, mean: Channel | None = None) -> None:
        self.is_difference = mean is not None
        self.state, self.up, self.down = (
            [network.arrays.zeros((batch, size), network.dtype) for size in network.sizes] for _ in range(3)
        )
        self.current = [
            np.zeros_like(s) if l.adaptation else None for l, s in zip(network.layers, self.state, strict=True)
        ]
        own = [] if mean else [extra_of(network, c, batch) for c in network.connections]
        self.extra: list[tuple[Any, ...]] = mean.extra if mean else own

    def copy(self, network: Network) -> Channel:
        """A second channel with the same contents."""
        other = Channel(network, len(self.state[0]))
        for mine, theirs in zip(other.parts(), self.parts(), strict=True):
            mine[...] = theirs
        return other

    def parts(self) -> Iterator[NDArray]:
        """All its arrays."""
        yield from (*self.state, *self.up, *self.down, *(a for a in self.current if a is not None))
        yield from (item for extra in self.extra for item in extra if hasattr(item, "dtype"))


def extra_of(network: Network, connection: Connection, batch: int) -> tuple[Any, ...]:
    """What the verbs of a connection take besides, its arrays where the network computes."""
    extra = connection.extra(network.shapes, batch)
    return tuple(network.arrays.asarray(item) if isinstance(item, np.ndarray) else item for item in extra)
