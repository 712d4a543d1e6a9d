"""Convolution: Phi = <post, P(K * pre)>, K (C_out, k, k, C_in), P the identity or a pooling over windows.

    (K * pre)[i, j, o] = sum_uvc K[o, u, v, c] pre[S i + u - p, S j + v - p, c],  0 outside the map; stride S, padding p
    P(q)[i, j, o] = sum_w share[i, j, o, w] q[window w of i, j; o],  the place w in a window counted row by row

States are flat maps, channels last: pre (B, H W C_in), post (B, H W C_out), `geometry` their shapes. The shares of an
average are all 1 / window^2. Those of a maximum are 1 at the winner and 0 elsewhere: `winners` (B, n_post) int32 is the
w that won, the first of equals. `choose` takes them anew from a state; between, they are frozen and Phi is bilinear.
Without max-pooling `winners` is None.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ..geometry import MAX, ConvGeometry


def energy(
    energy: NDArray, pre: NDArray, post: NDArray, weight: NDArray, geometry: ConvGeometry, winners: NDArray | None
) -> None:
    """energy (B,) -= Phi = <post, P(K * pre)>."""
    drive = np.zeros_like(post)
    drive_post(drive, pre, weight, geometry, winners)
    energy -= np.sum(post * drive, axis=1)


def drive_post(
    drive: NDArray, pre: NDArray, weight: NDArray, geometry: ConvGeometry, winners: NDArray | None
) -> None:
    """drive (B, n_post) += dPhi/dpost = P(K * pre)."""
    q = windows(convolve(padded(pre, geometry), weight, geometry.stride), geometry)
    drive += np.sum(shares(winners, geometry) * q, axis=-1).reshape(drive.shape)


def drive_pre(
    drive: NDArray, post: NDArray, weight: NDArray, geometry: ConvGeometry, winners: NDArray | None
) -> None:
    """drive (B, n_pre) += dPhi/dpre = K^T P^T post in gather form: what every map position sends back to a neuron.

    Neuron y hears map position i through tap u = y + p - S i: the kernel flipped, over the map with its positions S
    apart.
    """
    g, k, S = geometry, geometry.kernel, geometry.stride
    first = k - 1 - g.padding
    rows, columns = (slice(first, first + S * (n - 1) + 1, S) for n in (g.map_height, g.map_width))
    apart = np.zeros((len(post), g.pre_height + k - 1, g.pre_width + k - 1, g.post_channels), post.dtype)
    apart[:, rows, columns] = unpooled(post, winners, g)
    flipped = weight[:, ::-1, ::-1].transpose(3, 1, 2, 0)
    drive += convolve(apart, flipped, 1).reshape(drive.shape)


def hebbian(
    trace: NDArray, pre: NDArray, post: NDArray, scale: float, geometry: ConvGeometry, winners: NDArray | None
) -> None:
    """trace (C_out, k, k, C_in) += scale sum_B dPhi/dK: correlation of P^T post with pre, zeros beyond the border."""
    patches = sliding_window_view(padded(pre, geometry), (geometry.kernel,) * 2, axis=(1, 2))
    patches = patches[:, :: geometry.stride, :: geometry.stride]  # (B, H', W', C_in, k, k)
    product = np.tensordot(unpooled(post, winners, geometry), patches, axes=((0, 1, 2), (0, 1, 2)))
    trace += scale * product.transpose(0, 2, 3, 1)


def choose(winners: NDArray, pre: NDArray, weight: NDArray, geometry: ConvGeometry) -> None:
    """winners (B, n_post) = the place in each window where K * pre is largest, the first of equals."""
    q = windows(convolve(padded(pre, geometry), weight, geometry.stride), geometry)
    winners[...] = q.argmax(axis=-1).reshape(winners.shape)


def padded(pre: NDArray, geometry: ConvGeometry) -> NDArray:
    """The map (B, H + 2p, W + 2p, C) of a flat state (B, H W C), with zeros around it."""
    image = pre.reshape(-1, geometry.pre_height, geometry.pre_width, geometry.pre_channels)
    rim = (geometry.padding,) * 2
    return np.pad(image, ((0, 0), rim, rim, (0, 0)))


def convolve(image: NDArray, weight: NDArray, stride: int) -> NDArray:
    """K * image, (B, H', W', C_out), of a map (B, H, W, C) that is padded already."""
    k = weight.shape[1]
    patches = sliding_window_view(image, (k, k), axis=(1, 2))[:, ::stride, ::stride]  # (B, H', W', C, k, k)
    return np.tensordot(patches, weight, axes=((3, 4, 5), (3, 1, 2)))


def windows(q: NDArray, geometry: ConvGeometry) -> NDArray:
    """The pooling windows of a map (B, H', W', C): (B, H, W, C, window^2), the rim left out."""
    H, W, n = geometry.post_height, geometry.post_width, geometry.window
    blocks = q[:, : H * n, : W * n].reshape(len(q), H, n, W, n, -1)
    return blocks.transpose(0, 1, 3, 5, 2, 4).reshape(len(q), H, W, -1, n * n)


def unpooled(post: NDArray, winners: NDArray | None, geometry: ConvGeometry) -> NDArray:
    """P^T post, a map (B, H', W', C) that is 0 on the rim."""
    H, W, C, n = geometry.post_height, geometry.post_width, geometry.post_channels, geometry.window
    blocks = (shares(winners, geometry) * post.reshape(-1, H, W, C, 1)).reshape(len(post), H, W, C, n, n)
    q = np.zeros((len(post), geometry.map_height, geometry.map_width, C), post.dtype)
    q[:, : H * n, : W * n] = blocks.transpose(0, 1, 4, 2, 5, 3).reshape(len(post), H * n, W * n, C)
    return q


def shares(winners: NDArray | None, geometry: ConvGeometry) -> NDArray:
    """How much each place in a window gives to the pooled value: (window^2,), or (B, H, W, C, window^2)."""
    places = geometry.window**2
    if geometry.pool != MAX:
        return np.full(places, 1 / places)
    assert winners is not None, "max-pooling needs the winners of `choose`"
    shape = -1, geometry.post_height, geometry.post_width, geometry.post_channels, 1
    return winners.reshape(shape) == np.arange(places)
