"""The drives of a layer in a tile: what the layers below, above and beside it do to it, whatever connects them."""

from __future__ import annotations

from ..neurons import SOFTMAX
from .arithmetic import maximum
from .compile import kernel
from .conv import down_through, pack_kernels, up_through
from .gather import get_place
from .gemm import forward_panel, forward_times_vector, panel, times_vector
from .microkernel import DEPTH, DOTS, SUMS, VECTOR_BYTES
from .tiles import (
    BIAS,
    BIASES,
    CURRENT,
    DOWN,
    LATERAL,
    MEAN,
    NEURON,
    NUDGE,
    ON_RATE,
    ONE,
    PACKED_DOWN,
    PACKED_UP,
    ROOM,
    SHAPE,
    SIZE,
    STATE,
    UP,
    WEIGHT,
    ZERO,
    adapts,
    current,
    is_conv,
    piece,
    section_at,
    winners_at,
)
from .zeros import all_finite, list_rows

_WORTH = 64  # rows of a product for which to list zeros


@kernel
def copy(out, a):
    """out = a, element by element."""
    for i in range(out.size):
        out[i] = a[i]


@kernel
def combine(out, a, gain, b):
    """out = a + gain b, element by element (an array expression would allocate)."""
    for i in range(out.size):
        out[i] = a[i] + gain * b[i]


@kernel
def at_rest(state):
    """Whether every number is zero, as all are where a phase begins; looks no further than the first block that is not.

    What a layer at rest does to others is zero and need not be computed.
    """
    block = 128
    for begin in range(0, state.size, block):
        largest = state.dtype.type(0)
        for i in range(begin, min(begin + block, state.size)):
            largest = maximum(largest, abs(state[i]))
        if largest != 0:  # NaN is not at rest
            return False
    return True


@kernel
def are_finite(plan, theta, first):
    """Whether the matrices of layers `first`, ... hold neither NaN nor infinity, which a zero that is skipped hides."""
    for layer in range(first, plan.shape[0]):
        n, below = plan[layer, SIZE], plan[layer - 1, SIZE]
        at, beside = plan[layer, WEIGHT], plan[layer, LATERAL]
        if not is_conv(plan, layer) and not all_finite(theta[at : at + n * below]):
            return False
        if beside >= 0 and not all_finite(theta[beside : beside + n * n]):
            return False
    return True


@kernel
def lists_of(tile, lanes, sums, source, rows, depth):
    """Where the lists of a product are, or 0 if no zeros are skipped: of few rows, or a W that is not finite."""
    if rows < _WORTH or not get_place(tile, tile.size - 1):
        return ZERO
    lists = tile.size - 1 - depth - 2 * SUMS
    list_rows(tile, lists, sums, source, lanes, depth)
    return lists


@kernel
def times(tile, lanes, out, theta, at, source, rows, depth, gain, keep):
    """out = gain * W source (+ out if keep), W (rows, depth) = theta[at:]; out and source lie in the tile."""
    if lanes == 1:
        room = tile.size - SUMS * DOTS
        forward_times_vector(tile, out, theta, at, depth, tile, source, rows, depth, gain, keep, room)
    else:
        vectors = lanes // (VECTOR_BYTES // tile.itemsize)
        lists = lists_of(tile, lanes, ONE * SUMS, source, rows, depth)
        forward_panel(tile, out, lanes, theta, at, depth, tile, source, lanes, rows, depth, lists, gain, keep, vectors)


@kernel
def times_transpose(tile, lanes, out, theta, at, source, rows, depth, gain, keep):
    """out = gain * W^T source (+ out if keep), W (depth, rows) = theta[at:], DEPTH rows of it after DEPTH rows."""
    if lanes == 1:
        for first in range(0, depth, DEPTH):
            count, add = min(DEPTH, depth - first), keep if first == 0 else ONE
            times_vector(tile, out, theta, at + first * rows, rows, tile, source + first, rows, count, gain, add)
    else:
        vectors = lanes // (VECTOR_BYTES // tile.itemsize)
        for first in range(0, depth, DEPTH):
            count, begin, add = min(DEPTH, depth - first), source + first * lanes, keep if first == 0 else ONE
            lists = lists_of(tile, lanes, ONE, begin, rows, count)
            terms, places = (get_place(tile, lists), lists + 1) if lists else (count, lists)
            panel(
                tile, out, lanes, theta, at + first * rows, ONE, rows, tile, begin, lanes, rows, terms, places,
                gain, add, vectors,
            )  # fmt: skip


@kernel
def top_of(plan):
    """The layer that the cost nudges: the last one, or the one below a softmax readout."""
    last = plan.shape[0] - 1
    return last - 1 if plan[last, NEURON] == SOFTMAX else last


@kernel
def weigh_back(plan, theta, tile, lanes, out, layer, source, alpha):
    """out rows of `layer` = alpha W^T s_above; out and source are places in the tile."""
    n, above = plan[layer, SIZE], plan[layer + 1, SIZE]
    times_transpose(tile, lanes, out, theta, plan[layer + 1, WEIGHT], source, n, above, alpha, ZERO)


@kernel
def pack(plan, theta, tile, gamma):
    """Bring the weights of convolutions into the order of their kernels."""
    for layer in range(1, plan.shape[0]):
        if is_conv(plan, layer):
            up, down = plan[layer, PACKED_UP], plan[layer, PACKED_DOWN] if layer > 1 else -ONE
            weight, bias, room, shape = plan[layer, WEIGHT], plan[layer, BIAS], plan[layer, ROOM], plan[layer, SHAPE:]
            pack_kernels(tile, up, down, room, theta, weight, theta, bias, gamma, shape)


@kernel
def winners_of(plan, lanes, channel, layer, biased):
    """The winners of a channel's max pooling into the layer; those of a difference are its mean's."""
    return winners_at(plan, lanes, channel if biased else MEAN, layer)


@kernel
def refresh_up(plan, theta, tile, lanes, channel, layer, biased):
    """up = W s_below + b, without b for a difference."""
    n, below = plan[layer, SIZE], plan[layer - 1, SIZE]
    source = section_at(plan, lanes, 3 * channel + STATE, layer - 1) if layer > 1 else ZERO
    out = section_at(plan, lanes, 3 * channel + UP, layer)
    up, biases = piece(plan, tile, lanes, 3 * channel + UP, layer), plan[layer, BIASES]
    if not biased and layer > 1 and at_rest(piece(plan, tile, lanes, 3 * channel + STATE, layer - 1)):
        up[:] = tile.dtype.type(0)
        return
    if is_conv(plan, layer):
        winners = winners_of(plan, lanes, channel, layer, biased)
        room, packed, shape = plan[layer, ROOM], plan[layer, PACKED_UP], plan[layer, SHAPE:]
        up_through(tile, lanes, out, source, winners, room, packed, biased, biased, shape)
        return
    if biased and lanes == 1:
        for i in range(0, n, biases):
            copy(up[i : i + biases], theta[plan[layer, BIAS] : plan[layer, BIAS] + biases])
    elif biased:
        for i in range(n):
            up[i * lanes : (i + 1) * lanes] = theta[plan[layer, BIAS] + i % biases]
    times(tile, lanes, out, theta, plan[layer, WEIGHT], source, n, below, tile.dtype.type(1), biased)


@kernel
def refresh_down(plan, theta, tile, lanes, channel, layer, gamma, biased):
    """down = gamma W^T s_above; packed weights hold gamma already."""
    above = layer + 1
    out = section_at(plan, lanes, 3 * channel + DOWN, layer)
    source = section_at(plan, lanes, 3 * channel + STATE, above)
    if at_rest(piece(plan, tile, lanes, 3 * channel + STATE, above)):
        piece(plan, tile, lanes, 3 * channel + DOWN, layer)[:] = tile.dtype.type(0)
        return
    if is_conv(plan, above):
        winners = winners_of(plan, lanes, channel, above, biased)
        room, packed, shape = plan[above, ROOM], plan[above, PACKED_DOWN], plan[above, SHAPE:]
        down_through(tile, lanes, out, source, winners, room, packed, shape)
    else:
        weigh_back(plan, theta, tile, lanes, out, layer, source, gamma)


@kernel
def complete_drive(plan, theta, tile, lanes, channel, layer, nudge, out):
    """The section of what is added to `up`: `down` itself, or `out` = down - adaptation + nudge + lateral."""
    down, tires = 3 * channel + DOWN, adapts(plan, layer)
    lateral, nudged = plan[layer, LATERAL] >= 0, nudge != 0 and layer == top_of(plan) and not plan[layer, ON_RATE]
    if not (lateral or nudged or tires):
        return down
    total, source = piece(plan, tile, lanes, out, layer), piece(plan, tile, lanes, down, layer)
    if tires:
        combine(total, source, -tile[plan[layer, CURRENT]], current(plan, tile, lanes, channel, layer))
        source = total
    if nudged:
        combine(total, source, nudge, piece(plan, tile, lanes, NUDGE, layer))
    elif not tires:
        copy(total, source)
    if lateral:
        n, source = plan[layer, SIZE], section_at(plan, lanes, 3 * channel + STATE, layer)
        place, gain = section_at(plan, lanes, out, layer), tile.dtype.type(1)
        # W is symmetric; read as its transpose, it is fastest for a single sample too.
        times_transpose(tile, lanes, place, theta, plan[layer, LATERAL], source, n, n, gain, ONE)
    return out
