"""Visits to layers on tensor cores (tensor.cu): rounded copies of states and weights, several layers in one launch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..cpu import tiles
from .device import current
from .launcher import across, launch
from .products import fills
from .products import tiles as tiles_of

if TYPE_CHECKING:
    from .layerwise import Channel, Layerwise, Workspace

KINDS = {1: (np.dtype("float32"), 32), 2: (np.dtype("uint16"), 64)}  # precision: type, numbers in a stage of a row
THREADS, LINE = 256, 128  # of tensor.cu
RELAX, DIFFERENCE, STORE, MEAN_DIFFERENCE = range(4)  # of moves.cuh


class Tile(NamedTuple):
    """A block's part of a layer, stages of it in shared memory, and blocks at once on a multiprocessor."""

    rows: int
    columns: int
    stages: int
    blocks: int

    @property
    def shared(self) -> int:
        """Bytes of shared memory."""
        return self.stages * (self.rows + self.columns) * LINE


TILES = Tile(128, 256, 3, 1), Tile(128, 128, 4, 1), Tile(64, 128, 4, 2)  # the larger, the fewer bytes a product


def tile_for(rows: int, sizes: list[int]) -> Tile:
    """The largest tile that fits a block's memory and whose blocks nearly fill the device; else the smallest."""

    def blocks(tile: Tile) -> int:
        return sum(-(-n // tile.columns) for n in sizes) * -(-rows // tile.rows)

    fit = (t for t in TILES if t.shared <= current().shared_memory and fills(blocks(t)))
    return next(fit, TILES[-1])


class Rounded:
    """Copies of a channel's states, (rows, stride) each with zeros beyond the layer's own columns; of layer 0 too."""

    def __init__(self, sizes: list[int], rows: int, code: int) -> None:
        self.rows, self.code, kind = rows, code, KINDS[code]
        self.strides = strides(sizes, code)
        self.starts = np.cumsum([0, *(rows * s * (2 if layer else 1) for layer, s in enumerate(self.strides))])
        self.flat = current().arrays.zeros(int(self.starts[-1]), kind[0])

    def at(self, layer: int, which: int) -> int:
        """Where the first or second copy of a layer begins."""
        return int(self.starts[layer]) + which * self.rows * self.strides[layer]

    def arrays(self) -> list[Any]:
        """The copies of layers 1..L, two of each."""
        return [
            self.flat[self.at(layer, which) : self.at(layer, which + 1)].reshape(self.rows, stride)
            for layer, stride in enumerate(self.strides) if layer for which in (0, 1)
        ]  # fmt: skip

    def take(self, x: Any) -> None:
        """The input's copy becomes that of x (rows, n_0)."""
        round_rows(self.flat[: self.at(1, 0)], x, self.strides[0], self.code)


class RoundedWeights:
    """Copies of the weights between layers and of the laterals; their memory is the network's as long as it lives."""

    def __init__(self, engine: Layerwise, code: int) -> None:
        self.code, self.strides, at = code, strides(engine.sizes, code), 0
        self.parts: list[tuple[int, Any, int]] = []  # where, weights, stride; the input's first
        self.weight: dict[int, int] = {}
        self.lateral: dict[int, int] = {}
        for found, given, step in ((self.weight, engine.weight, 1), (self.lateral, engine.lateral, 0)):
            for layer, weight in sorted(given.items()):
                found[layer] = at
                self.parts.append((at, weight, self.strides[layer - step]))
                at += weight.shape[0] * self.strides[layer - step]
        self.flat = current().arrays.zeros(at, KINDS[code][0])

    def take(self, input_too: bool = True) -> None:
        """Round the weights as they are now; those of the input only if they are needed."""
        for at, weight, stride in self.parts[not input_too :]:
            round_rows(self.flat[at : at + len(weight) * stride], weight, stride, self.code)


def strides(sizes: list[int], code: int) -> list[int]:
    """Columns of the copies: whole stages."""
    unit = KINDS[code][1]
    return [-(-n // unit) * unit for n in sizes]


def round_rows(low: Any, rows: Any, stride: int, code: int) -> None:
    """low, rows of `stride`, becomes `rows` rounded."""
    batch, n = rows.shape
    launch(
        "tensor", "round_rows", rows.dtype, across(-(-n // 4) * batch), 256, (low, rows, batch, n, stride),
        **defines_of(TILES[-1], code),
    )  # fmt: skip


def defines_of(tile: Tile, code: int) -> dict[str, int]:
    """What tensor.cu is compiled with."""
    rows, columns, stages, blocks = tile
    return {"PRECISION": code, "ROWS": rows, "COLUMNS": columns, "STAGES": stages, "TENSOR_BLOCKS": blocks}


def visit(
    engine: Layerwise, work: Workspace, channel: Channel, layers: list[int], up: bool, down: bool, mode: int,
    step: float, gamma: float, nudge: float, to_middle: bool, below: bool, beside: bool, keep: bool, most: Any,
) -> None:  # fmt: skip
    """One launch of tensor.cu: `Layerwise.visit`, whose arguments these are; `below` says that x is below layer 1."""
    sizes, network, low, weights = engine.sizes, engine.network, channel.low, engine.rounded[work.code]
    assert low is not None and work.difference.low is not None
    unit, other, middle = KINDS[work.code][1], work.difference, work.middle
    other_low = work.difference.low
    table = []
    for layer in layers:
        now, then = channel.turned[layer], other.turned[layer] if mode == MEAN_DIFFERENCE else 0
        rises, falls = up and (layer > 1 or below), down and layer < network.top
        lateral = beside and layer in engine.lateral
        under, over = layer - 1, min(layer + 1, len(sizes) - 1)
        table += [
            sizes[layer], int(engine.plan[layer, tiles.NEURON]), layer == network.top,
            channel.at(now, layer), channel.at(1 - now, layer), channel.at(2, layer), channel.at(3, layer),
            other.at(then, layer), other.at(1 - then, layer),
            middle.at(2, layer) if to_middle or mode != STORE else -1, int(engine.plan[layer, tiles.BIAS]),
            low.at(layer, now), low.at(layer, 1 - now), other_low.at(layer, 1 - then), low.strides[layer],
            -(-sizes[over] // unit) if falls else 0, low.at(over, channel.turned[over]), low.strides[over],
            weights.weight[over], sizes[over],
            -(-sizes[under] // unit) if rises else 0, low.at(under, channel.turned[under] if under else 0),
            low.strides[under], weights.weight[layer],
            -(-sizes[layer] // unit) if lateral else 0, weights.lateral.get(layer, 0),
        ]  # fmt: skip
    tile = tile_for(channel.rows, [sizes[layer] for layer in layers])
    grid = *tiles_of(channel.rows, max(sizes[layer] for layer in layers), tile.columns, tile.rows), len(layers)
    launch(
        "tensor", "relax_layers", network.dtype, grid, THREADS,
        (
            work.table(tuple(map(int, table))), mode, channel.flat, other.flat, middle.flat, low.flat, other_low.flat,
            weights.flat, network.buffer, work.pull, most, channel.rows, work.batch, int(channel.biased), int(keep),
            float(gamma), float(nudge), float(step),
        ),
        tile.shared, **defines_of(tile, work.code),
    )  # fmt: skip
