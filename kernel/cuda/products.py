"""How a matrix product is shared out among blocks: the tile of gemm.cuh for its size and this device."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np

from .device import current

THREADS = {128: 256, 64: 256, 32: 128}  # of a block, for each tile of gemm.cuh


class Product(NamedTuple):
    """The launch of a kernel of products: a grid of tiles, threads a block, and the constants it is compiled with."""

    grid: tuple[int, ...]  # tiles across, tiles down
    threads: int
    defines: dict[str, int]


def product(rows: int, columns: int, dtype: np.dtype, times: int = 1) -> Product:
    """The launch for `times` products of (rows, columns): the largest tile whose blocks nearly fill the device.

    Large tiles read their factors less often; small ones leave no multiprocessor idle.
    """
    large = (t for t in THREADS if t * dtype.itemsize <= 512 and fills(times * prod(tiles(rows, columns, t))))
    tile = next(large, min(THREADS))
    return Product(tiles(rows, columns, tile), THREADS[tile], {"TILE": tile, "GEMM_THREADS": THREADS[tile]})


def tiles(rows: int, columns: int, tile: int, tall: int = 0) -> tuple[int, int]:
    """Tiles across and down, `tall` rows high if they are not square."""
    return -(-columns // tile), -(-rows // (tall or tile))


def fills(blocks: int) -> bool:
    """Whether so many blocks occupy at least three of four multiprocessors."""
    return 4 * blocks >= 3 * current().processors
