"""Where everything of a tile of samples lies: the map that the fused kernels of a layered network share.

A tile is a single sample, or one or two vectors of samples (16 or 32 in float32, 8 or 16 in float64); a network with
convolutions has tiles of one vector, since its states are large. It is stored features first, element (i, b) of a layer
at row i, lane b, and goes through all steps of a phase without leaving the cache. In one flat piece of memory:

    x            n_0 rows            the clamped input
    channel 0    state, up, down     the free phase: s, W s_below + b, gamma W^T s_above, of layers 1..L
    channel 1    state, up, down     the mean of the two nudged states, or the + state
    channel 2    state, up, down     their difference, or the - state
    drive        two sections        drives being put together: down + lateral + nudge
    nudge        one section         on the top layer, the nudge at beta = 1
    target       n_L rows
    of each layer that adapts: its gain and the rate 1 / tau, then the currents, one section a channel
    of each convolution: packed weights upwards and downwards; the winners of max pooling, one section a channel
    map          room for one map before it is pooled, and for averaged kernels

The end of the memory is scratch: of single samples for sums, of others for lists of what is not zero (`zeros`), with
whether the weights are finite in the last element.
"""

from __future__ import annotations

import numpy as np

from .compile import kernel, paste

# Typed integers, not literals: Numba would compile every kernel once for each literal it is called with.
_CODES = tuple(np.arange(14))
# Columns of the plan, one row a layer: what a kernel must know of the network. LATERAL and CURRENT are -1 for a layer
# that has none. The BIASES biases take turns along the neurons. ON_RATE: whether the layer's rate is nudged, not its
# drive. The rest is for layers that a convolution drives, and -1 for others: where in a tile its weights, winners and
# room are, and from SHAPE on its shape (`correlate.shape_of`).
SIZE, WEIGHT, BIAS, LATERAL, NEURON, ROW, BIASES, ON_RATE, CURRENT = _CODES[:9]
PACKED_UP, PACKED_DOWN, WINNERS, ROOM, SHAPE = _CODES[9:14]
STATE, UP, DOWN = _CODES[:3]
FREE, MEAN, DIFFERENCE = _CODES[:3]
PLUS, MINUS = MEAN, DIFFERENCE
DRIVE, OTHER_DRIVE, NUDGE, SECTIONS = _CODES[9:13]
SYNCHRONOUS, EVEN_ODD, SWEEP = _CODES[:3]
# What settles: the free state; one nudged state; the + and - states; their difference alone; their mean and difference.
RUN_FREE, RUN_STATE, RUN_STATES, RUN_DIFFERENCE, RUN_MEAN_DIFFERENCE = _CODES[:5]
ZERO, ONE = _CODES[:2]


@kernel
def rows_of(plan):
    """Rows of one section: all layers but the input."""
    last = plan.shape[0] - 1
    return plan[last, ROW] + plan[last, SIZE]


@kernel
def section_at(plan, lanes, section, layer):
    return (plan[0, SIZE] + section * rows_of(plan) + plan[layer, ROW]) * lanes


@paste
def piece(plan, tile, lanes, section, layer):
    """A layer's part of a section, as a flat view."""
    at = section_at(plan, lanes, section, layer)
    return tile[at : at + plan[layer, SIZE] * lanes]


@kernel
def target_at(plan, lanes):
    return (plan[0, SIZE] + SECTIONS * rows_of(plan)) * lanes


@kernel
def is_conv(plan, layer):
    """Whether a convolution drives the layer."""
    return plan[layer, PACKED_UP] >= 0


@kernel
def tile_lanes(plan, vector):
    """Lanes of a full tile."""
    for layer in range(1, plan.shape[0]):
        if is_conv(plan, layer):
            return vector
    return 2 * vector


@kernel
def lanes_for(plan, samples, vector):
    """Width of a tile that holds `samples` samples: one lane, one vector, or two."""
    full = tile_lanes(plan, vector)
    if samples == 1 and full > vector:
        return ONE
    return vector if samples <= vector else full


@kernel
def adapts(plan, layer):
    """Whether the layer has an adaptation current."""
    return plan[layer, CURRENT] >= 0


@paste
def current(plan, tile, lanes, channel, layer):
    """A channel's adaptation current of the layer, as a flat view."""
    n = plan[layer, SIZE] * lanes
    at = plan[layer, CURRENT] + 2 + channel * n
    return tile[at : at + n]


@kernel
def winners_at(plan, lanes, channel, layer):
    """Where the winners of a channel's max pooling into the layer are."""
    return plan[layer, WINNERS] + channel * plan[layer, SIZE] * lanes
