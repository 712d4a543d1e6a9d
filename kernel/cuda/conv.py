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
from .products import Product, product

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
    _each("pool", drive.dtype, drive.size, arguments, geometry)


def drive_pre(drive: Any, post: Any, weight: Any, geometry: ConvGeometry, winners: Any) -> None:
    """drive += K^T P^T post."""
    batch, g = len(drive), geometry
    check(drive, (batch, g.n_pre), (post, (batch, g.n_post)), (weight, g.weight_shape))
    how = product(batch * g.pre_height * g.pre_width, g.pre_channels, drive.dtype)
    _launch("drive_pre", drive.dtype, how, how.grid[::-1], (drive, post, weight, _indices(winners, g, batch), batch), g)


def hebbian(trace: Any, pre: Any, post: Any, scale: float, geometry: ConvGeometry, winners: Any) -> None:
    """trace += scale * (P^T post correlated with pre), summed over the batch."""
    batch, g = len(pre), geometry
    check(trace, g.weight_shape, (pre, (batch, g.n_pre)), (post, (batch, g.n_post)))
    places, n = batch * g.map_height * g.map_width, trace.size
    how = product(g.post_channels, n // g.post_channels, trace.dtype, -(-places // SHARE))
    splits = max(1, min(2 * current().processors // (how.grid[0] * how.grid[1]), places // SHARE))
    share = -(-places // splits)
    parts = current().arrays.zeros((splits, n), trace.dtype)
    arguments = parts, pre, post, _indices(winners, g, batch), places, share
    _launch("trace_parts", trace.dtype, how, (*how.grid, splits), arguments, g)
    _each("gather", trace.dtype, n, (trace, parts, float(scale), n, splits), g)


def choose(winners: Any, pre: Any, weight: Any, geometry: ConvGeometry) -> None:
    """winners = the place in each window where K * pre is largest, the first of equals."""
    batch = len(winners)
    map_ = _map(pre, weight, geometry)
    _each("choose", pre.dtype, winners.size, (_indices(winners, geometry, batch), map_, batch), geometry)


def _convolve(map_: Any, pre: Any, weight: Any, geometry: ConvGeometry) -> None:
    batch = len(pre)
    how = product(batch * geometry.map_height * geometry.map_width, geometry.post_channels, map_.dtype)
    _launch("convolve", map_.dtype, how, how.grid[::-1], (map_, pre, weight, batch), geometry)


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


def _each(name: str, dtype: Any, n: int, arguments: Any, geometry: ConvGeometry) -> None:
    """A kernel of one thread an element; the constants of a product are those of the smallest."""
    how = product(1, 1, dtype)
    _launch(name, dtype, how._replace(threads=256), across(n), arguments, geometry)


def _launch(name: str, dtype: Any, how: Product, grid: tuple[int, ...], arguments: Any, geometry: ConvGeometry) -> None:
    defines = {field.upper(): value for field, value in geometry._asdict().items()} | how.defines
    launch("conv", name, dtype, grid, how.threads, arguments, **defines)
