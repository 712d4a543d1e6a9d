"""The fused settle of layered networks: a tile of samples goes through all steps of a phase inside one kernel.

Three moves, the same for every order and form, on one channel (see `tiles`) of one layer:
    refresh_up      up   = W s_below + b                 (`drives`; W is dense or a convolution)
    refresh_down    down = gamma W^T s_above
    relax           s moves towards rho(up + down + lateral + nudge), rho of `neurons`
`eqkernel.relaxation` spells out the same phases with the verbs, for any network; this file is held to it by test.
"""

from __future__ import annotations

from ..geometry import MAX
from .arithmetic import maximum
from .compile import kernel
from .correlate import POOL
from .drives import combine, complete_drive, copy, pack, refresh_down, refresh_up, top_of, weigh_back
from .gather import put_place
from .gemm import transpose
from .microkernel import VECTOR_BYTES
from .neurons import relax_difference, relax_mean, relax_towards, softmax_rows
from .tiles import (
    CURRENT,
    DIFFERENCE,
    DRIVE,
    EVEN_ODD,
    FREE,
    LATERAL,
    MEAN,
    MINUS,
    NEURON,
    NUDGE,
    ON_RATE,
    ONE,
    OTHER_DRIVE,
    PLUS,
    ROW,
    RUN_DIFFERENCE,
    RUN_FREE,
    RUN_MEAN_DIFFERENCE,
    RUN_STATE,
    RUN_STATES,
    SHAPE,
    SIZE,
    STATE,
    SWEEP,
    SYNCHRONOUS,
    UP,
    ZERO,
    adapts,
    current,
    is_conv,
    lanes_for,
    piece,
    section_at,
    target_at,
    tile_lanes,
    winners_at,
)


@kernel
def push(plan, tile, lanes, channel, layer, gain):
    """state += gain * nudge, of a layer whose rate is nudged.

    Between two pushes by -gain and gain, relaxing towards a rate moves the state towards that rate + gain * nudge.
    """
    if plan[layer, ON_RATE] and gain != 0:
        state = piece(plan, tile, lanes, 3 * channel + STATE, layer)
        combine(state, state, gain, piece(plan, tile, lanes, NUDGE, layer))


@kernel
def adapt(plan, tile, lanes, channel, layer, step):
    """tau da/dt = s - a, of a layer that adapts; returns the largest change that this makes to a drive."""
    largest = tile.dtype.type(0)
    if adapts(plan, layer):
        gain, rate = tile[plan[layer, CURRENT]], step * tile[plan[layer, CURRENT] + 1]
        a, state = current(plan, tile, lanes, channel, layer), piece(plan, tile, lanes, 3 * channel + STATE, layer)
        for i in range(a.size):
            move = rate * (state[i] - a[i])
            a[i] += move
            largest = maximum(largest, gain * abs(move))
    return largest


@kernel
def relax(plan, theta, tile, lanes, channel, layer, nudge, step):
    more = complete_drive(plan, theta, tile, lanes, channel, layer, nudge, DRIVE)
    push(plan, tile, lanes, channel, layer, -nudge)
    largest = relax_towards(
        piece(plan, tile, lanes, 3 * channel + STATE, layer),
        piece(plan, tile, lanes, 3 * channel + UP, layer),
        piece(plan, tile, lanes, more, layer),
        step,
        plan[layer, NEURON],
    )
    push(plan, tile, lanes, channel, layer, nudge)
    return maximum(largest, adapt(plan, tile, lanes, channel, layer, step))


@kernel
def read_out(plan, theta, tile, lanes, channel):
    """The softmax readout of a channel: its state in layer L = softmax(W s_top + b)."""
    last = plan.shape[0] - 1
    refresh_up(plan, theta, tile, lanes, channel, last, ONE)
    probabilities = piece(plan, tile, lanes, 3 * channel + STATE, last)
    softmax_rows(probabilities, piece(plan, tile, lanes, 3 * channel + UP, last), lanes)


@kernel
def aim(plan, theta, tile, lanes, channel):
    """The nudge at beta = 1 from a channel's own output: t - s, or W^T (t - p) below a readout."""
    last, top = plan.shape[0] - 1, top_of(plan)
    at = target_at(plan, lanes)
    target = tile[at : at + plan[last, SIZE] * lanes]
    output = piece(plan, tile, lanes, 3 * channel + STATE, last)
    combine(piece(plan, tile, lanes, NUDGE, last), target, tile.dtype.type(-1), output)
    if top < last:
        source, out = section_at(plan, lanes, NUDGE, last), section_at(plan, lanes, NUDGE, top)
        weigh_back(plan, theta, tile, lanes, out, top, source, tile.dtype.type(1))


@kernel
def channels_of(form):
    """The first and the last channel that settles."""
    if form == RUN_FREE:
        return FREE, FREE
    if form == RUN_STATE:
        return PLUS, PLUS
    if form == RUN_DIFFERENCE:
        return DIFFERENCE, DIFFERENCE
    return MEAN, DIFFERENCE


@kernel
def refresh(plan, theta, tile, lanes, form, layer, gamma, up, down):
    """Refresh the drives of one layer in every channel that settles."""
    top = top_of(plan)
    first, last = channels_of(form)
    for channel in range(first, last + 1):
        biased = int(form <= RUN_STATES or channel == MEAN)
        if up and layer > 1:
            refresh_up(plan, theta, tile, lanes, channel, layer, biased)
        if down and layer < top:
            refresh_down(plan, theta, tile, lanes, channel, layer, gamma, biased)


@kernel
def relax_all(plan, theta, tile, lanes, form, layer, beta, step, live):
    """Relax one layer in every channel that settles; returns the largest change."""
    if form <= RUN_STATES:
        largest = tile.dtype.type(0)
        first, last = channels_of(form)
        for channel in range(first, last + 1):
            if live and layer == top_of(plan):
                if layer < plan.shape[0] - 1:
                    read_out(plan, theta, tile, lanes, channel)
                aim(plan, theta, tile, lanes, channel)
            nudge = -beta if channel == MINUS else beta
            largest = maximum(largest, relax(plan, theta, tile, lanes, channel, layer, nudge, step))
        return largest
    code = plan[layer, NEURON]
    difference = piece(plan, tile, lanes, 3 * DIFFERENCE + STATE, layer)
    drive = piece(plan, tile, lanes, 3 * DIFFERENCE + UP, layer)
    more = piece(
        plan, tile, lanes,
        complete_drive(plan, theta, tile, lanes, DIFFERENCE, layer, beta + beta, OTHER_DRIVE), layer,
    )  # fmt: skip
    mean, largest = piece(plan, tile, lanes, 3 * MEAN + UP, layer), tile.dtype.type(0)
    if form == RUN_MEAN_DIFFERENCE:
        rest = complete_drive(plan, theta, tile, lanes, MEAN, layer, tile.dtype.type(0), DRIVE)
        mean_drive = piece(plan, tile, lanes, DRIVE, layer)
        combine(mean_drive, mean, tile.dtype.type(1), piece(plan, tile, lanes, rest, layer))
        mean = mean_drive
        largest = relax_mean(piece(plan, tile, lanes, 3 * MEAN + STATE, layer), mean, drive, more, step, code)
        largest = maximum(largest, adapt(plan, tile, lanes, MEAN, layer, step))
    push(plan, tile, lanes, DIFFERENCE, layer, -beta - beta)
    largest = maximum(largest, relax_difference(difference, mean, drive, more, step, code))
    push(plan, tile, lanes, DIFFERENCE, layer, beta + beta)
    return maximum(largest, adapt(plan, tile, lanes, DIFFERENCE, layer, step))


@kernel
def visited(order, i, top, form, forward):
    """The i-th layer of a step, i = 1..top."""
    if order == EVEN_ODD:
        # The free phase begins at the input's side, the nudged one at the cost's.
        first = 1 if form == RUN_FREE or top % 2 == 1 else 2
        count = (top - first) // 2 + 1
        return first + 2 * (i - 1) if i <= count else 3 - first + 2 * (i - 1 - count)
    return i if forward else top + 1 - i


@kernel
def settle(plan, theta, tile, lanes, form, order, steps, gamma, beta, step, live, tolerance):
    """Steps until the residual falls below `tolerance` or they run out.

    Returns (steps taken, last residual, largest residual in the first half of the steps). The residual is the largest
    change of a state in one step; in the nudged phase it is counted in units of beta (see `eqkernel.phases`).
    """
    top, unit = top_of(plan), tile.dtype.type(1)
    if form != RUN_FREE:
        unit /= abs(beta) if form <= RUN_STATES else beta + beta
    residual, early, taken = tile.dtype.type(0), tile.dtype.type(0), ZERO
    while taken < steps:
        largest = tile.dtype.type(0)
        forward = (taken % 2 == 0) == (form == RUN_FREE) if order == SWEEP else True
        # Synchronous order refreshes every drive before any state moves; the others go layer by layer.
        for half in range(2 if order == SYNCHRONOUS else 1):
            for i in range(1, top + 1):
                layer = visited(order, i, top, form, forward)
                # Half-sweeps: forward over layers 2..top, backward over top-1..1. The first takes every layer, and so
                # does each for a layer whose own state drives it, by lateral connections or adaptation.
                still = order == SWEEP and layer == (1 if forward else top)
                if still and taken > 0 and plan[layer, LATERAL] < 0 and not adapts(plan, layer):
                    continue
                if half == 0:
                    up, down = order != SWEEP or forward, order != SWEEP or not forward
                    refresh(plan, theta, tile, lanes, form, layer, gamma, up, down)
                if half == 1 or order != SYNCHRONOUS:
                    largest = maximum(largest, relax_all(plan, theta, tile, lanes, form, layer, beta, step, live))
        residual = unit * largest
        if 2 * taken < steps:
            early = maximum(early, residual)
        taken += 1
        if residual < tolerance:
            break
    return taken, residual, early


@kernel
def clear(plan, tile, lanes, channel):
    for section in range(3):
        for layer in range(1, plan.shape[0]):
            piece(plan, tile, lanes, 3 * channel + section, layer)[:] = tile.dtype.type(0)
    for layer in range(1, plan.shape[0]):
        if adapts(plan, layer):
            current(plan, tile, lanes, channel, layer)[:] = tile.dtype.type(0)


@kernel
def set_out(plan, theta, tile, lanes, form):
    """Channels as they are at the start of a nudged phase, from the free state in channel 0."""
    aim(plan, theta, tile, lanes, FREE)
    clear(plan, tile, lanes, DIFFERENCE)
    for layer in range(1, plan.shape[0]):
        if is_conv(plan, layer) and plan[layer, SHAPE + POOL] == MAX:
            n, free = plan[layer, SIZE] * lanes, winners_at(plan, lanes, FREE, layer)
            for channel in range(MEAN, DIFFERENCE + 1):
                at = winners_at(plan, lanes, channel, layer)
                copy(tile[at : at + n], tile[free : free + n])
        if form == RUN_DIFFERENCE:
            # The mean drive stays that of the free state: up + down + lateral, kept in the mean channel's `up`.
            rest = complete_drive(plan, theta, tile, lanes, FREE, layer, tile.dtype.type(0), DRIVE)
            mean = piece(plan, tile, lanes, 3 * MEAN + UP, layer)
            up = piece(plan, tile, lanes, 3 * FREE + UP, layer)
            combine(mean, up, tile.dtype.type(1), piece(plan, tile, lanes, rest, layer))
        else:
            for section in range(3):
                free = piece(plan, tile, lanes, 3 * FREE + section, layer)
                copy(piece(plan, tile, lanes, 3 * MEAN + section, layer), free)
                if form == RUN_STATES:
                    copy(piece(plan, tile, lanes, 3 * MINUS + section, layer), free)
            if adapts(plan, layer):
                tired = current(plan, tile, lanes, FREE, layer)
                copy(current(plan, tile, lanes, MEAN, layer), tired)
                if form == RUN_STATES:
                    copy(current(plan, tile, lanes, MINUS, layer), tired)


@kernel
def finish(plan, tile, lanes, form, beta):
    """Leave in every form the same result: mean m = (s+ + s-)/2 and difference d = (s+ - s-)/(2 beta) of each layer.

    A softmax readout, which takes no part in the dynamics, gets the free p and the error t - p.
    """
    last, half = plan.shape[0] - 1, tile.dtype.type(0.5)
    for layer in range(1, plan.shape[0]):
        mean = piece(plan, tile, lanes, 3 * MEAN + STATE, layer)
        difference = piece(plan, tile, lanes, 3 * DIFFERENCE + STATE, layer)
        free = piece(plan, tile, lanes, 3 * FREE + STATE, layer)
        if layer == last and layer > top_of(plan):
            copy(mean, free)
            # A live nudge has moved the nudge section; the readout learns at the free state.
            at = target_at(plan, lanes)
            combine(difference, tile[at : at + difference.size], tile.dtype.type(-1), free)
        elif form == RUN_STATE:
            for i in range(mean.size):
                difference[i] = (mean[i] - free[i]) / beta
                mean[i] = half * (mean[i] + free[i])
        elif form == RUN_STATES:
            for i in range(mean.size):
                plus, minus = mean[i], difference[i]
                mean[i] = half * (plus + minus)
                difference[i] = half * (plus - minus) / beta
        else:
            for i in range(difference.size):
                difference[i] *= half / beta


@kernel
def load_rows(tile, at, lanes, source, first, count, features):
    """Put samples first.. of source (B, features) into rows of a tile; spare lanes repeat the last sample.

    A repeated sample settles as its original does, so spare lanes change neither a residual nor an early stop.
    """
    transpose(tile, at, lanes, source, first * features, features, count, features)
    for i in range(features if count < lanes else 0):
        for b in range(count, lanes):
            tile[at + i * lanes + b] = tile[at + i * lanes + count - 1]


@kernel
def store_rows(plan, tile, lanes, section, out, batch, first, count):
    """Write a section's layers 1..L as blocks (B, n_l) of `out`, one after the other."""
    for layer in range(1, plan.shape[0]):
        n, at = plan[layer, SIZE], section_at(plan, lanes, section, layer)
        out_at = batch * plan[layer, ROW] + first * n
        transpose(out, out_at, n, tile, at, lanes, n, count)


@kernel
def store_winners(plan, tile, lanes, out, batch, first, count):
    """Write the winners of the free state as `store_rows` does states; other layers' blocks stay as they are."""
    for layer in range(1, plan.shape[0]):
        if is_conv(plan, layer) and plan[layer, SHAPE + POOL] == MAX:
            n, at = plan[layer, SIZE], winners_at(plan, lanes, FREE, layer)
            transpose(out, batch * plan[layer, ROW] + first * n, n, tile, at, lanes, n, count)


@kernel
def free_tiles(plan, theta, tiles, x, states, report, begin, end, finite, order, steps, gamma, step, tolerance):
    """Free phase of tiles begin..end of a batch x (B * n_0,); writes states and, for each tile, a row of report.

    `finite` says whether the weights are (`drives.are_finite`): else no zeros are skipped.
    """
    features = plan[0, SIZE]
    batch, vector = x.size // features, VECTOR_BYTES // tiles.itemsize
    width = tile_lanes(plan, vector)
    for index in range(begin, end):
        tile, first = tiles[index], index * width
        put_place(tile, tile.size - 1, finite)
        count = min(width, batch - first)
        lanes = lanes_for(plan, count, vector)
        pack(plan, theta, tile, gamma)
        load_rows(tile, ZERO, lanes, x, first, count, features)
        clear(plan, tile, lanes, FREE)
        refresh_up(plan, theta, tile, lanes, FREE, ONE, ONE)
        report[index, 0], report[index, 1], report[index, 2] = settle(
            plan, theta, tile, lanes, RUN_FREE, order, steps, gamma, tile.dtype.type(0), step, ZERO, tolerance
        )
        if top_of(plan) < plan.shape[0] - 1:
            read_out(plan, theta, tile, lanes, FREE)
        store_rows(plan, tile, lanes, 3 * FREE + STATE, states, batch, first, count)


@kernel
def nudged_tiles(
    plan, theta, tiles, target, means, differences, winners, report, begin, end, finite,
    form, order, steps, gamma, beta, step, live, tolerance,
):  # fmt: skip
    """Nudged phase of tiles begin..end, whose free phase is done; target (B * n_L,).

    If there is room in `winners` (laid out as the means) it receives those of max poolings in the free state.
    """
    classes = plan[plan.shape[0] - 1, SIZE]
    batch, vector = target.size // classes, VECTOR_BYTES // tiles.itemsize
    width = tile_lanes(plan, vector)
    for index in range(begin, end):
        tile, first = tiles[index], index * width
        put_place(tile, tile.size - 1, finite)
        count = min(width, batch - first)
        lanes = lanes_for(plan, count, vector)
        pack(plan, theta, tile, gamma)
        load_rows(tile, target_at(plan, lanes), lanes, target, first, count, classes)
        set_out(plan, theta, tile, lanes, form)
        report[index, 0], report[index, 1], report[index, 2] = settle(
            plan, theta, tile, lanes, form, order, steps, gamma, beta, step, live, tolerance
        )
        finish(plan, tile, lanes, form, beta)
        if form != RUN_DIFFERENCE:  # whose mean is the free state
            store_rows(plan, tile, lanes, 3 * MEAN + STATE, means, batch, first, count)
        store_rows(plan, tile, lanes, 3 * DIFFERENCE + STATE, differences, batch, first, count)
        if winners.size:
            store_winners(plan, tile, lanes, winners, batch, first, count)
