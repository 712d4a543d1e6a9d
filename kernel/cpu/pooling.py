"""Max pooling of a map (map_h, map_w, C) over windows side by side, and its adjoint; a pixel is `width` numbers.

`width` is C times the lanes of a tile, or C alone for one sample's map. The winner is the place of the largest element
in its window, 0, 1, ... row by row, kept in the type of the states; of equals the first wins. (An average is a wider
kernel: `correlate.shape_of`.)
"""

from __future__ import annotations

from .compile import kernel, never_inline
from .correlate import MAP_H, MAP_W, POST_H, POST_W, WINDOW


@kernel
def choose_winners(winners, winners_at, source, source_at, best, best_at, width, shape):
    """winners = where each window of `source` is largest, best = how large; both (post_h, post_w, width)."""
    never_inline()
    window = shape[WINDOW]
    for y in range(shape[POST_H]):
        for x in range(shape[POST_W]):
            pixel = (y * shape[POST_W] + x) * width
            winner = winners[winners_at + pixel : winners_at + pixel + width]
            highest = best[best_at + pixel : best_at + pixel + width]
            for place in range(window * window):
                at = source_at + map_pixel(y, x, place, shape) * width
                values = source[at : at + width]
                if place == 0:
                    winner[:] = winner.dtype.type(0)
                    for i in range(width):
                        highest[i] = values[i]
                else:
                    code = winner.dtype.type(place)
                    for i in range(width):
                        winner[i] = code if values[i] > highest[i] else winner[i]
                    for i in range(width):
                        highest[i] = values[i] if values[i] > highest[i] else highest[i]


@kernel
def map_pixel(y, x, place, shape):
    """Which pixel of the map is number `place` in the window of pixel (y, x) of the pooled map."""
    window = shape[WINDOW]
    return (y * window + place // window) * shape[MAP_W] + x * window + place % window


@kernel
def pool(out, out_at, source, source_at, winners, winners_at, width, shape):
    """out (post_h, post_w, width) = P(source): the winners."""
    never_inline()
    window = shape[WINDOW]
    for y in range(shape[POST_H]):
        for x in range(shape[POST_W]):
            pixel = (y * shape[POST_W] + x) * width
            pooled = out[out_at + pixel : out_at + pixel + width]
            winner = winners[winners_at + pixel : winners_at + pixel + width]
            pooled[:] = out.dtype.type(0)
            for place in range(window * window):
                at = source_at + map_pixel(y, x, place, shape) * width
                values, code = source[at : at + width], winners.dtype.type(place)
                for i in range(width):
                    pooled[i] = values[i] if winner[i] == code else pooled[i]


@kernel
def unpool(out, out_at, source, source_at, winners, winners_at, width, shape):
    """out (map_h, map_w, width) = the adjoint of P on source (post_h, post_w, width)."""
    never_inline()
    window, zero = shape[WINDOW], out.dtype.type(0)
    out[out_at : out_at + shape[MAP_H] * shape[MAP_W] * width] = zero
    for y in range(shape[POST_H]):
        for x in range(shape[POST_W]):
            pixel = (y * shape[POST_W] + x) * width
            values = source[source_at + pixel : source_at + pixel + width]
            winner = winners[winners_at + pixel : winners_at + pixel + width]
            for place in range(window * window):
                at = out_at + map_pixel(y, x, place, shape) * width
                spread, code = out[at : at + width], winners.dtype.type(place)
                for i in range(width):
                    spread[i] = values[i] if winner[i] == code else zero
