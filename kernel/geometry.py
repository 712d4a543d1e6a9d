"""The shape of a convolution: which neurons of two maps its synapses join."""

from __future__ import annotations

from typing import NamedTuple

from .errors import EqkernelError, is_whole, lookup

NONE, MAX, AVERAGE = range(3)
POOLS = {"none": NONE, "max": MAX, "average": AVERAGE}


class ConvGeometry(NamedTuple):
    """Plain integers. States are maps (height, width, channels), flattened with the channels last.

    The kernel, `kernel` x `kernel` and moved by `stride`, runs over the map of pre with `padding` zeros on every side
    and gives a map of (map_height, map_width, post_channels); windows of `window` x `window`, side by side, are pooled
    into the map of post. A rim narrower than a window belongs to none. Without pooling the window is 1.
    """

    pre_height: int
    pre_width: int
    pre_channels: int
    map_height: int
    map_width: int
    post_height: int
    post_width: int
    post_channels: int
    kernel: int
    stride: int
    padding: int
    pool: int
    window: int

    @property
    def n_pre(self) -> int:
        """Neurons of pre."""
        return self.pre_height * self.pre_width * self.pre_channels

    @property
    def n_post(self) -> int:
        """Neurons of post."""
        return self.post_height * self.post_width * self.post_channels

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """Shape of the weights."""
        return self.post_channels, self.kernel, self.kernel, self.pre_channels


def conv_geometry(
    name: str,
    pre: tuple[int, ...],
    post: tuple[int, ...],
    kernel: int,
    stride: int,
    padding: int,
    pool: str,
    window: int,
) -> ConvGeometry:
    """The geometry of connection `name` between maps of shapes `pre` and `post`; EqkernelError if it does not fit."""
    for what, value, least in (("kernel", kernel, 1), ("stride", stride, 1), ("padding", padding, 0)):
        if not is_whole(value, least):
            raise EqkernelError(f"{name}: {what} must be a whole number of at least {least}, not {value!r}")
    if padding >= kernel:
        raise EqkernelError(f"{name}: padding {padding} must be less than the kernel, {kernel}: more sees only zeros")
    code = lookup("pool", pool, POOLS)
    if code != NONE and not is_whole(window, 2):
        raise EqkernelError(f"{name}: a pooling window must be a whole number of at least 2, not {window!r}")
    for which, shape in (("pre", pre), ("post", post)):
        if len(shape) != 3:
            raise EqkernelError(
                f"{name}: its {which} layer has size {shape[0]}; give a map, Layer((height, width, channels))"
            )
    size = window if code != NONE else 1
    maps = [(side + 2 * padding - kernel) // stride + 1 for side in pre[:2]]
    pooled = [side // size for side in maps]
    if min(pooled) < 1:
        raise EqkernelError(
            f"{name}: a {kernel} x {kernel} kernel, stride {stride}, padding {padding}, pooled by {size}, leaves "
            f"nothing of a map of {pre[0]} x {pre[1]}"
        )
    if tuple(pooled) != tuple(post[:2]):
        raise EqkernelError(
            f"{name}: a map of {pre[0]} x {pre[1]} through a {kernel} x {kernel} kernel, stride {stride}, padding "
            f"{padding}, pooled by {size}, is {pooled[0]} x {pooled[1]}, and layer {name.split('-')[-1]} is "
            f"{post[0]} x {post[1]}"
        )
    sides = (*pre, *maps, *pooled, post[2], kernel, stride, padding, code, size)
    return ConvGeometry(*(int(n) for n in sides))
