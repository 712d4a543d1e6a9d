"""Convolution, Phi = <post, P(K * pre)>, states as flat maps, channels last: see `eqkernel.reference.conv`.

Each geometry is a compilation of its own (conv.cu), so that no kernel divides by what it does not know.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..geometry import MAX, NONE, ConvGeometry
from .checks import check
from .device import current
from .launcher import across, launch

TILE, GEMM_THREADS = 64, 256  # of gemm.cuh
SHARE = 256  # places of the map, at least, that a block sums into a trace


def energy(energy: Any, pre: Any, post: Any, weight: Any, geometry: ConvGeometry, winners: Any) -> None:
    """energy[b] -= <post, P(K * pre)>."""
    drive = np.zeros_like(post)
    drive_post(drive, pre, weight, geometry, winners)
    check(energy, (len(post),), (post, drive.shape))
    energy -= (post * drive).sum(axis=1)


def drive_post(drive: Any, pre: Any, weight: Any, geometry: ConvGeometry, winners: Any) -> None:
    """drive += P(K * pre)."""
    batch = len(drive)
    check(drive, (batch, geometry.n_post), (pre, (batch, geometry.n_pre)), (weight, geometry.weight_shape))
    if geometry.pool == NONE:
        _convolve(drive, pre, weight, geometry)
        return
    map_ = _map(pre, weight, geometry)
    arguments = drive, map_, _indices(winners, geometry, batch), batch
    _launch("pool", drive.dtype, across(drive.size), arguments, geometry)


def drive_pre(drive: Any, post: Any, weight: Any, geometry: ConvGeometry, winners: Any) -> None:
    """drive += K^T P^T post."""
    batch, g = len(drive), geometry
    check(drive, (batch, g.n_pre), (post, (batch, g.n_post)), (weight, g.weight_shape))
    grid = _tiles(batch * g.pre_height * g.pre_width), _tiles(g.pre_channels)
    _launch("drive_pre", drive.dtype, grid, (drive, post, weight, _indices(winners, g, batch), batch), g)


def hebbian(trace: Any, pre: Any, post: Any, scale: float, geometry: ConvGeometry, winners: Any) -> None:
    """trace += scale * (P^T post correlated with pre), summed over the batch."""
    batch, g = len(pre), geometry
    check(trace, g.weight_shape, (pre, (batch, g.n_pre)), (post, (batch, g.n_post)))
    places, n = batch * g.map_height * g.map_width, trace.size
    tiles = _tiles(n // g.post_channels), _tiles(g.post_channels)
    splits = max(1, min(2 * current().processors // (tiles[0] * tiles[1]), places // SHARE))
    share = -(-places // splits)
    parts = current().arrays.zeros((splits, n), trace.dtype)
    arguments = parts, pre, post, _indices(winners, g, batch), batch, share
    _launch("trace_parts", trace.dtype, (*tiles, splits), arguments, g)
    _launch("gather", trace.dtype, across(n), (trace, parts, float(scale), n, splits), g)


def choose(winners: Any, pre: Any, weight: Any, geometry: ConvGeometry) -> None:
    """winners = the place in each window where K * pre is largest, the first of equals."""
    batch = len(winners)
    map_ = _map(pre, weight, geometry)
    _launch("choose", pre.dtype, across(winners.size), (_indices(winners, geometry, batch), map_, batch), geometry)


def _convolve(map_: Any, pre: Any, weight: Any, geometry: ConvGeometry) -> None:
    batch = len(pre)
    grid = _tiles(batch * geometry.map_height * geometry.map_width), _tiles(geometry.post_channels)
    _launch("convolve", map_.dtype, grid, (map_, pre, weight, batch), geometry)


def _map(pre: Any, weight: Any, geometry: ConvGeometry) -> Any:
    """K * pre before it is pooled."""
    check(pre, (len(pre), geometry.n_pre), (weight, geometry.weight_shape))
    shape = len(pre), geometry.map_height, geometry.map_width, geometry.post_channels
    map_ = current().arrays.zeros(shape, pre.dtype)
    _convolve(map_, pre, weight, geometry)
    return map_


def _indices(winners: Any, geometry: ConvGeometry, batch: int) -> Any:
    """The winners of max-pooling; elsewhere something of their type that no kernel reads."""
    if geometry.pool != MAX:
        return current().arrays.zeros(1, np.int32)
    assert winners.shape == (batch, geometry.n_post) and winners.dtype == np.int32
    return winners


def _tiles(n: int) -> int:
    return -(-n // TILE)


def _launch(name: str, dtype: Any, grid: tuple[int, ...], arguments: Any, geometry: ConvGeometry) -> None:
    defines = {field.upper(): value for field, value in geometry._asdict().items()}
    launch("conv", name, dtype, grid, GEMM_THREADS, arguments, **defines)
