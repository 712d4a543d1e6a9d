"""The table that tells the kernels of a layered network what is where (its columns are in `tiles`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..connections import Conv
from ..geometry import MAX, ConvGeometry
from ..neurons import find_neuron
from . import tiles
from .correlate import NUMBERS, averaged_size, packed_down, packed_up, shape_of
from .microkernel import DOTS, SUMS, VECTOR_BYTES

if TYPE_CHECKING:
    from ..network import Network


class Plan(NamedTuple):
    """table (L + 1, columns), a row a layer; a full tile holds `width` samples and has `size` elements.

    hoisted and products are how many multiply-adds one pass through the connections of the clamped input, whose drive
    is made once, and through the others takes for one sample; constants are pairs of numbers that a tile holds from
    the start, by their place.
    """

    table: NDArray
    width: int
    size: int
    hoisted: int
    products: int
    constants: dict[int, tuple[float, float]]


def plan_of(network: Network) -> Plan | None:
    """The plan of a network whose every layer is driven by the one below it and perhaps by itself; None for others."""
    table = np.full((len(network.layers), tiles.SHAPE + NUMBERS), -1, np.int64)
    table[:, tiles.SIZE] = network.sizes
    table[:, tiles.NEURON] = [find_neuron(layer.neuron).code for layer in network.layers]
    table[:, tiles.ROW] = np.cumsum([0, 0, *network.sizes[1:-1]])
    table[:, tiles.BIASES] = [shape[-1] for shape in network.shapes]
    table[:, tiles.ON_RATE] = 0
    table[network.top, tiles.ON_RATE] = network.cost.on_rate
    column = {"dense": tiles.WEIGHT, "conv": tiles.WEIGHT, "bias": tiles.BIAS, "lateral": tiles.LATERAL}
    geometries = {}
    for connection, at in zip(network.connections, network.offsets, strict=True):
        post, pre = connection.post, connection.post - 1 if connection.pre is None else connection.pre
        if connection.stem not in column or not post - 1 <= pre <= post or table[post, column[connection.stem]] >= 0:
            return None
        table[post, column[connection.stem]] = at
        if isinstance(connection, Conv):
            geometries[post] = connection.geometry(network.shapes)
    if not (table[1:, [tiles.WEIGHT, tiles.BIAS]] >= 0).all() or any(post > network.top for post in geometries):
        return None
    hoisted = products = 0
    for connection, weight in zip(network.connections, network.parameters, strict=True):
        shape = geometries[connection.post] if isinstance(connection, Conv) else None
        work = weight.size * (shape.map_height * shape.map_width if shape else 1)
        if connection.pre == 0:
            hoisted += work
        else:
            products += work
    vector = VECTOR_BYTES // network.dtype.itemsize
    width = vector if geometries else 2 * vector
    adapting = {i: layer for i, layer in enumerate(network.layers) if i and layer.adaptation}
    size = place(table, geometries, list(adapting), width) + SUMS * DOTS + max(network.sizes)
    constants = {int(table[i, tiles.CURRENT]): (l.adaptation, 1 / l.tau) for i, l in adapting.items()}
    return Plan(table, width, size, hoisted, products, constants)


def dense_plan_of(network: Network) -> NDArray | None:
    """The columns before BIASES, for backends without maps, adaptation and nudged rates; None if there are any."""
    plan = plan_of(network)
    adapts = any(layer.adaptation for layer in network.layers)
    if plan is None or adapts or network.cost.on_rate or any(len(shape) > 1 for shape in network.shapes):
        return None
    return np.ascontiguousarray(plan.table[:, : tiles.BIASES])


def place(table: NDArray, geometries: dict[int, ConvGeometry], adapting: list[int], width: int) -> int:
    """Enter where in a tile currents are, and of convolutions weights, winners, room; returns where the tile ends."""
    states = int(table[1:, tiles.SIZE].sum())
    end = int(table[0, tiles.SIZE] + tiles.SECTIONS * states + table[-1, tiles.SIZE]) * width
    for layer in adapting:
        table[layer, tiles.CURRENT] = end
        end += 2 + 3 * int(table[layer, tiles.SIZE]) * width
    room = 0
    for layer, geometry in geometries.items():
        shape = shape_of(geometry)
        table[layer, tiles.SHAPE :] = shape
        table[layer, tiles.PACKED_UP] = end
        table[layer, tiles.PACKED_DOWN] = end = end + packed_up(shape)
        table[layer, tiles.WINNERS] = end = end + packed_down(shape)
        if geometry.pool == MAX:
            end += 3 * geometry.n_post * width
            room = max(room, geometry.map_height * geometry.map_width * geometry.post_channels * width)
        room = max(room, averaged_size(shape))
    table[list(geometries), tiles.ROOM] = end
    return end + room
