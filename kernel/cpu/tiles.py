"""Where everything of a tile of samples lies: the map that the fused kernels of a layered network share.

A tile is a single sample, or one or two vectors of samples (16 or 32 in float32, 8 or 16 in float64). It is stored
features first, element (i, b) of a layer at row i, lane b, and goes through all steps of a phase without leaving the
cache. In one flat piece of memory:

    x            n_0 rows            the clamped input
    channel 0    state, up, down     the free phase: s, W s_below + b, gamma W^T s_above, of layers 1..L
    channel 1    state, up, down     the mean of the two nudged states, or the + state
    channel 2    state, up, down     their difference, or the - state
    drive        two sections        drives being put together: down + lateral + nudge
    nudge        one section         on the top layer, the nudge at beta = 1
    target       n_L rows

The end of the memory is scratch for single samples, whose tile fills but a small part of it.
"""

from __future__ import annotations

import numpy as np

from .compile import kernel, paste

# Typed integers, not literals: Numba would compile every kernel once for each literal it is called with.
_CODES = tuple(np.arange(13))
# Columns of the plan, one row a layer: what a kernel must know of the network. LATERAL is -1 where there is none.
SIZE, WEIGHT, BIAS, LATERAL, NEURON, ROW = _CODES[:6]
STATE, UP, DOWN = _CODES[:3]
FREE, MEAN, DIFFERENCE = _CODES[:3]
PLUS, MINUS = MEAN, DIFFERENCE
DRIVE, OTHER_DRIVE, NUDGE, SECTIONS = _CODES[9:]
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
