"""The fused Hebbian update: for a few rows of a weight matrix at a time, the contrast, then the optimiser's step.

    trace = sum_b  d_post[b] m_pre[b]^T + m_post[b] d_pre[b]^T

The clamped input has d_pre = 0, and from layer to layer a feed-forward schedule has the first product alone. m and d
are the mean and the difference of the nudged states, so the difference is formed before the product and nothing
cancels. The trace of a block of rows stays in the cache until the optimiser has used it. Where many of the numbers are
zero the products skip them (`zeros`), each in the way that is fastest.
"""

from __future__ import annotations

import numpy as np

from .arithmetic import real
from .compile import kernel, never_inline
from .correlate import POST_C, filter_size
from .gemm import multiply
from .microkernel import HEIGHTS
from .tiles import BIAS, BIASES, LATERAL, ONE, ROW, SHAPE, SIZE, WEIGHT, ZERO, is_conv
from .trace import begin_trace, end_trace, sum_batch, trace_room
from .zeros import BLOCK, BY_POST, BY_PRE, DENSE, by_post, by_pre, hebbian_room, list_pre, way_of

GRADIENT, SGD, MOMENTUM, ADAM = range(4)
_ROWS = 56 // HEIGHTS[0] * HEIGHTS[0]  # what is read of the presynaptic states serves several blocks in turn


@kernel
def share(n, part, parts):
    """Rows begin..end of n that belong to one of `parts` threads."""
    return n * part // parts, n * (part + 1) // parts


@kernel
def scratch(plan, vector):
    """Elements of working memory that one thread needs: a block of rows of a matrix or all filters, or biases."""
    most = 0
    for layer in range(plan.shape[0]):
        most = max(most, hebbian_room(plan[layer, SIZE], vector))
        if is_conv(plan, layer):
            shape = plan[layer, SHAPE:]
            most = max(most, shape[POST_C] * filter_size(shape) + trace_room(shape, shape[POST_C], vector))
    return most


@kernel
def learn(theta, first, second, at, gradient, rate, decay, rule, hyper):
    """One optimiser step on theta[at:], given its gradient; moments are flat and shaped as theta.

    hyper is what the rule's Optimiser.hyper() gives; decay is decoupled.
    """
    never_inline()
    n = gradient.size
    weight = theta[at : at + n]
    one = real(1.0, rate)
    keep = one - rate * decay
    if rule == SGD:
        for i in range(n):
            weight[i] = keep * weight[i] - rate * gradient[i]
    elif rule == MOMENTUM:
        velocity = first[at : at + n]
        for i in range(n):
            moved = hyper[0] * velocity[i] + gradient[i]
            velocity[i] = moved
            weight[i] = keep * weight[i] - rate * moved
    elif rule == ADAM:
        mean, square = first[at : at + n], second[at : at + n]
        a, fresh_a, b, fresh_b = hyper[0], hyper[1], hyper[2], hyper[3]
        eps, unbias_mean, unbias_square = hyper[4], hyper[5], hyper[6]
        for i in range(n):
            m = a * mean[i] + fresh_a * gradient[i]
            v = b * square[i] + fresh_b * gradient[i] * gradient[i]
            mean[i], square[i] = m, v
            weight[i] = keep * weight[i] - rate * (unbias_mean * m / (np.sqrt(unbias_square * v) + eps))
    else:
        for i in range(n):
            weight[i] = gradient[i]


@kernel
def product(room, way, post, post_at, n_post, pre, pre_at, n_pre, rows, batch, scale, keep):
    """room[:] (rows, n_pre) = scale * sum_b post[b]^T pre[b] (+ itself if keep)."""
    if way == BY_POST:
        by_post(room, post, post_at, n_post, pre, pre_at, n_pre, rows, batch, scale, keep)
    elif way == BY_PRE:
        by_pre(room, post, post_at, n_post, pre, pre_at, n_pre, rows, batch, scale)
    else:
        multiply(room, ZERO, n_pre, post, post_at, ONE, n_post, pre, pre_at, n_pre, rows, batch, n_pre, scale, keep)


@kernel
def update_matrix(
    theta, first, second, at, pre, pre_mean, pre_difference, pre_at, n_pre, mean, difference, post_at, n_post,
    batch, scale, begin, end, room, rate, decay, rule, hyper,
):  # fmt: skip
    """Rows begin..end of one dense or lateral matrix at theta[at:]. `pre` says whether pre has a difference."""
    if begin == end:
        return
    share, start = end - begin, post_at + begin
    way = way_of(difference, start, n_post, pre_mean, pre_at, n_pre, share, batch, ONE - pre)
    other = way_of(mean, start, n_post, pre_difference, pre_at, n_pre, share, batch, ZERO) if pre else DENSE
    if way == BY_PRE:
        list_pre(room, pre_mean, pre_at, n_pre, batch)
    most = _ROWS if way == DENSE and other == DENSE else BLOCK
    for row in range(begin, end, most):
        rows = min(most, end - row)
        product(room, way, difference, post_at + row, n_post, pre_mean, pre_at, n_pre, rows, batch, scale, ZERO)
        if pre:
            product(room, other, mean, post_at + row, n_post, pre_difference, pre_at, n_pre, rows, batch, scale, ONE)
        learn(theta, first, second, at + row * n_pre, room[: rows * n_pre], rate, decay, rule, hyper)


@kernel
def update_filters(
    theta, first, second, at, pre, pre_mean, pre_difference, pre_at, mean, difference, winners, post_at,
    batch, scale, begin, end, trace, rate, decay, rule, hyper, shape,
):  # fmt: skip
    """Filters begin..end of a convolution whose weights are theta[at:]. pre says whether pre has a difference."""
    if begin == end:
        return
    taps = filter_size(shape)
    gradient, room = trace[: (end - begin) * taps], trace[(end - begin) * taps :]
    gradient[:] = real(0.0, scale)
    begin_trace(room, begin, end, shape)
    sum_batch(room, pre_mean, pre_at, difference, post_at, winners, post_at, batch, begin, end, shape)
    if pre:
        sum_batch(room, pre_difference, pre_at, mean, post_at, winners, post_at, batch, begin, end, shape)
    end_trace(gradient, room, begin, end, scale, shape)
    learn(theta, first, second, at + begin * taps, gradient, rate, decay, rule, hyper)


@kernel
def update_part(
    plan, theta, first, second, x, means, differences, winners, scales, feed_forward, trace, part, parts,
    rate, decay, rule, hyper,
):  # fmt: skip
    """One thread's share of the rows of every connection of a layered network.

    x (B * n_0,); means, differences and winners hold blocks (B, n_l) of layers 1..L, winners none without max pooling;
    scales[l] = -gamma^(l - top) / B turns the contrast of connections into layer l into the gradient of the mean loss,
    and scales[0] says whether layer L is a readout; feed_forward is the schedule's. With rule GRADIENT theta receives
    the gradient.
    """
    batch, last = x.size // plan[0, SIZE], plan.shape[0] - 1
    none = real(0.0, rate)
    for layer in range(1, plan.shape[0]):
        n, below, post_at = plan[layer, SIZE], plan[layer - 1, SIZE], batch * plan[layer, ROW]
        begin, end = share(n, part, parts)
        channel, end_channel = share(plan[layer, BIASES], part, parts)
        readout = layer == last and scales[0] != none
        pre = int(layer > 1 and not readout and not feed_forward)
        pre_mean = x if layer == 1 else means
        pre_at = 0 if layer == 1 else batch * plan[layer - 1, ROW]
        if is_conv(plan, layer):
            update_filters(
                theta, first, second, plan[layer, WEIGHT], pre, pre_mean, differences, pre_at,
                means, differences, winners, post_at, batch, scales[layer], channel, end_channel,
                trace, rate, decay, rule, hyper, plan[layer, SHAPE:],
            )  # fmt: skip
        else:
            update_matrix(
                theta, first, second, plan[layer, WEIGHT], pre, pre_mean, differences, pre_at, below,
                means, differences, post_at, n, batch, scales[layer], begin, end, trace, rate, decay, rule, hyper,
            )  # fmt: skip
        if plan[layer, LATERAL] >= 0:
            update_matrix(
                theta, first, second, plan[layer, LATERAL], ONE, means, differences, post_at, n,
                means, differences, post_at, n, batch, real(0.5, rate) * scales[layer], begin, end,
                trace, rate, decay, rule, hyper,
            )  # fmt: skip
        column = trace[: end_channel - channel]
        column[:] = none
        for at in range(post_at + channel, post_at + batch * n, plan[layer, BIASES]):
            row = differences[at : at + column.size]
            for i in range(column.size):
                column[i] += row[i]
        for i in range(column.size):
            column[i] *= scales[layer]
        learn(theta, first, second, plan[layer, BIAS] + channel, column, rate, none, rule, hyper)
