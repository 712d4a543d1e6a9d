"""The phases of networks with one hidden layer below a narrow output, each block a sample (shallow.cu)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..cpu import tiles
from ..neurons import SOFTMAX
from .launcher import launch
from .layered import Layered, Workspace

if TYPE_CHECKING:
    from ..network import Network

UNITS = (8, 4)  # hidden units of a thread: many share the folding of sums, few need less registers
BLOCKS = (32, 64, 128, 256)  # threads: the fewest that have all hidden units
NARROW = 64  # most bytes of an output
WEIGHTS = 320  # most bytes of weights of a thread: both bound its registers


def shape_of(hidden: int, output: int) -> tuple[int, int] | None:
    """Units of a thread and threads of a block for a hidden layer of that size and an output of so many bytes."""
    for units in UNITS:
        if output <= NARROW and units * output <= WEIGHTS and (hidden > 32 * UNITS[-1] or units == UNITS[-1]):
            for threads in BLOCKS:
                if units * threads >= hidden:
                    return units, threads
    return None


class Shallow(Layered):
    """The phases of one network of layers n_0, n_1, n_2 that has no lateral connections and no readout."""

    def __init__(self, network: Network, plan: NDArray) -> None:
        super().__init__(network, plan)
        shape = shape_of(self.sizes[1], self.sizes[2] * network.dtype.itemsize)
        assert shape is not None
        self.units, self.block = shape

    @staticmethod
    def fits(plan: NDArray, dtype: np.dtype) -> bool:
        """Whether the network is one of these."""
        if len(plan) != 3 or plan[2, tiles.NEURON] == SOFTMAX or (plan[1:, tiles.LATERAL] >= 0).any():
            return False
        _, hidden, outputs = map(int, plan[:, tiles.SIZE])
        return shape_of(hidden, outputs * dtype.itemsize) is not None

    def lanes_for(self, batch: int) -> int:
        """Samples of a block."""
        return 1

    def settle(self, phase: str, work: Workspace, arguments: tuple[Any, ...]) -> None:
        """Launch a phase, "free" or "nudged"."""
        launch(
            "shallow", f"{phase}_sample", self.network.dtype, (work.blocks,), self.block,
            (self.device_plan, self.network.buffer, *arguments), BLOCK=self.block, UNITS=self.units,
            OUTPUTS=self.sizes[2],
        )  # fmt: skip
