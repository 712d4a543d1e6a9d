/* Correlation of maps with packed weights, and its adjoint, for a tile or a single sample.
 *
 * A pixel's channels are neighbouring rows of a tile and a row of pixels is contiguous, so the taps of one kernel row are
 * one run of rows: an output pixel is a sum over kernel rows of (weights) x (a run), with no copy of the map. At the
 * borders the runs are clipped. Every sum is one chain over the taps in order: the vectors of a tile run across its
 * samples, those of a single sample across the filters, to the same bits.
 *
 * The adjoint gathers. The pixels y of `pre` with (y + padding) mod stride = r meet only the taps r, r + stride, ..., so
 * each of the stride^2 phases is itself a correlation, of stride 1, with those taps turned round.
 *
 * Weights are packed as the registers take them: [block of filters][tap][channel of source][filter of the block].
 */

/* Rows and pixels are counted in rows of the tile; the out of a phase leaves pixels out. */
typedef struct {
    int64_t height, width, rows, out_line, out_pixel; /* pixels of out, channels of each, and how far apart they lie */
    int64_t source_height, source_width, depth;       /* pixels and channels of source */
    int64_t taps_y, taps_x, stride, pad_y, pad_x;
} conv_pass;

/* Filters in the block that is used when `left` are left. */
INLINE int64_t block_of(int64_t left) { return left >= FILTERS_A ? FILTERS_A : left >= FILTERS_B ? FILTERS_B : 1; }

/* How many of phase, phase + stride, ... are below `size`, for a phase below the stride. */
INLINE int64_t taps_of(int64_t size, int64_t stride, int64_t phase) {
    return (size - phase + stride - 1) / stride;
}

/* The kernels of filters (C_out, taps, taps, C_in): themselves, or in `room` the averages that windows ask for. */
static const real *kernels_of(const shape *g, real *restrict room, const real *restrict weight) {
    const int64_t line = g->taps * g->pre_channels, wide = g->kernel * g->pre_channels;
    const real share = 1 / (real)(g->spread * g->spread);
    if (g->spread == 1)
        return weight;
    memset(room, 0, (size_t)(g->post_channels * kernel_size(g)) * sizeof *room);
    for (int64_t row = 0; row < g->post_channels * g->taps; row++)
        for (int64_t y = 0; y < g->spread; y++)
            for (int64_t x = 0; x < g->spread; x++) {
                int64_t kernel_row = row / g->taps * g->kernel + row % g->taps + y * g->step;
                real *place = room + kernel_row * wide + x * g->step * g->pre_channels;
                combine(place, place, share, weight + row * line, line);
            }
    return room;
}

/* packed = `rows` filters of weight (rows, k, k, C_in). */
static void pack_up(const shape *g, real *restrict packed, const real *restrict weight, int64_t rows) {
    int64_t depth = kernel_size(g);
    for (int64_t i = 0, count; i < rows; i += count) {
        count = block_of(rows - i);
        for (int64_t k = 0; k < depth; k++)
            for (int64_t r = 0; r < count; r++)
                *packed++ = weight[(i + r) * depth + k];
    }
}

/* packed = gain * weight (C_out, k, k, C_in) for the adjoint, or as it is for a map of winners: pixels y0, y0 + stride, ...
 * of pre meet the taps phase_y, phase_y + stride, ... alone, and so it goes from phase to phase. */
static void pack_down(const shape *g, real *restrict packed, const real *restrict weight, real gain) {
    int64_t rows = g->pre_channels, k = g->kernel, stride = g->stride;
    if (g->pool == EQK_MAX_POOL) {
        for (int64_t i = 0; i < g->post_channels * filter_size(g); i++)
            packed[i] = gain * weight[i];
        return;
    }
    for (int64_t y0 = 0; y0 < stride && y0 < g->pre_height; y0++)
        for (int64_t x0 = 0; x0 < stride && x0 < g->pre_width; x0++) {
            const int64_t phase_y = (y0 + g->padding) % stride, phase_x = (x0 + g->padding) % stride;
            for (int64_t i = 0, count; i < rows; i += count) {
                count = block_of(rows - i);
                for (int64_t y = taps_of(k, stride, phase_y); y-- > 0;)
                    for (int64_t x = taps_of(k, stride, phase_x); x-- > 0;)
                        for (int64_t c = 0; c < g->post_channels; c++) {
                            int64_t tap = (c * k + phase_y + y * stride) * k + phase_x + x * stride;
                            for (int64_t r = 0; r < count; r++)
                                *packed++ = gain * weight[tap * rows + i + r];
                        }
            }
        }
}

/* How many of the taps at..at + taps - 1 lie on a side of `size` pixels; `first` is the first of them. */
INLINE int64_t clip_taps(int64_t at, int64_t taps, int64_t size, int64_t *first) {
    int64_t end = size - at < taps ? size - at : taps;
    *first = at < 0 ? -at : 0;
    if (end > *first)
        return end - *first;
    *first = 0;
    return 0;
}

/* out[i] = start[i] + sum over `outer` lines of `inner` products each, for some filters of a block of so many and ABREAST
 * vectors of samples. */
INLINE void sum_samples(const int filters, real *out, ptrdiff_t lanes, const real *start, const real *w, ptrdiff_t w_line,
                        const int block, const real *source, ptrdiff_t line, int64_t outer, int64_t inner) {
    vec sum[FILTERS_A][8];
    UNROLL for (int i = 0; i < filters; i++)
        UNROLL for (int v = 0; v < ABREAST; v++)
            sum[i][v] = v_set(start ? start[i] : 0);
    for (int64_t o = 0; o < outer; o++)
        accumulate(filters, ABREAST, sum, w + o * w_line, 1, block, source + o * line, lanes, inner, 0, 0);
    UNROLL for (int i = 0; i < filters; i++)
        UNROLL for (int v = 0; v < ABREAST; v++)
            v_store(out + i * lanes + v * LANES, sum[i][v]);
}

/* The same of a whole block and all samples of a tile. */
INLINE void sum_tile(const int block, real *out, ptrdiff_t lanes, const real *start, const real *w, ptrdiff_t w_line,
                     const real *source, ptrdiff_t line, int64_t outer, int64_t inner) {
    enum { MOST_FILTERS = FILTERS_A / ABREAST };
    const int filters = block < MOST_FILTERS ? block : MOST_FILTERS;
    for (int i = 0; i < block; i += filters)
        for (ptrdiff_t lane = 0; lane < lanes; lane += ABREAST * LANES)
            sum_samples(filters, out + i * lanes + lane, lanes, start ? start + i : 0, w + i, w_line, block, source + lane,
                        line, outer, inner);
}

/* The same for a single sample: vectors of filters, and pixels side by side that clip no tap. */
INLINE void sum_filters(const int pixels, const int filters, real *out, ptrdiff_t out_pixel, const real *start,
                        const real *w, ptrdiff_t w_line, const real *source, ptrdiff_t pixel, ptrdiff_t line,
                        int64_t outer, int64_t inner) {
    enum { PARTIAL = 1, WHOLE = 0 };
    const int vectors = filters < LANES ? 1 : filters / LANES, partial = filters < LANES ? PARTIAL : WHOLE;
    vec sum[PIXELS][8];
    UNROLL for (int p = 0; p < pixels; p++)
        UNROLL for (int v = 0; v < vectors; v++)
            sum[p][v] = start ? v_load_some(start + v * LANES, filters - v * LANES) : v_set(0);
    for (int64_t o = 0; o < outer; o++)
        accumulate(pixels, vectors, sum, source + o * line, pixel, 1, w + o * w_line, filters, inner, partial, filters);
    UNROLL for (int p = 0; p < pixels; p++)
        UNROLL for (int v = 0; v < vectors; v++)
            v_store_some(out + p * out_pixel + v * LANES, sum[p][v], filters - v * LANES);
}

#define EACH_BLOCK(call) \
    for (; c->rows - i >= FILTERS_A; i += FILTERS_A, w += FILTERS_A * filter) { enum { N = FILTERS_A }; call; } \
    for (; c->rows - i >= FILTERS_B; i += FILTERS_B, w += FILTERS_B * filter) { enum { N = FILTERS_B }; call; } \
    for (; i < c->rows; i++, w += filter) { enum { N = 1 }; call; }

/* out[y, x, :] = start + sum over taps of weights * source[y stride - pad_y + tap_y, x stride - pad_x + tap_x, :]. */
NOINLINE void correlate(const conv_pass *c, real *restrict out, const real *restrict source,
                        const real *restrict start, const real *restrict packed, const ptrdiff_t lanes) {
    const int64_t run = c->taps_x * c->depth, filter = c->taps_y * run;
    const ptrdiff_t line = c->source_width * c->depth * lanes;
    for (int64_t y = 0; y < c->height; y++) {
        int64_t top = y * c->stride - c->pad_y, first_y, outer = clip_taps(top, c->taps_y, c->source_height, &first_y);
        for (int64_t x = 0, pixels; x < c->width; x += pixels) {
            int64_t left = x * c->stride - c->pad_x, first_x, taps = clip_taps(left, c->taps_x, c->source_width, &first_x);
            int64_t inner = taps * c->depth, skip = first_y * run + first_x * c->depth, i = 0;
            int64_t corner = outer && inner ? (top + first_y) * c->source_width + left + first_x : 0;
            const real *from = source + corner * c->depth * lanes, *w = packed;
            real *to = out + (y * c->out_line + x * c->out_pixel) * lanes;
            int whole = left >= 0 && left + (PIXELS - 1) * c->stride + c->taps_x <= c->source_width;
            pixels = 1;
            if (lanes > 1) {
                EACH_BLOCK(sum_tile(N, to + i * lanes, lanes, start ? start + i : 0, w + skip * N, run * N, from, line, outer,
                                    inner))
            } else if (whole && x + PIXELS <= c->width) {
                pixels = PIXELS;
                EACH_BLOCK(sum_filters(PIXELS, N, to + i, c->out_pixel, start ? start + i : 0, w + skip * N, run * N, from,
                                       c->stride * c->depth, line, outer, inner))
            } else {
                EACH_BLOCK(sum_filters(1, N, to + i, 0, start ? start + i : 0, w + skip * N, run * N, from, 0, line, outer,
                                       inner))
            }
        }
    }
}

/* out (the map before pooling) = bias + K * source, of the `rows` filters that are packed; bias may be NULL. */
static void correlate_up(const shape *g, real *out, const real *source, const real *bias, const real *packed,
                         int64_t rows, ptrdiff_t lanes) {
    conv_pass c = {g->map_height, g->map_width, rows, g->map_width * rows, rows, g->pre_height, g->pre_width,
                     g->pre_channels, g->kernel, g->kernel, g->stride, g->padding, g->padding};
    correlate(&c, out, source, bias, packed, lanes);
}

/* out (pre) = the adjoint of K *, applied to source (the map before pooling); the packed weights hold the gain. */
static void correlate_down(const shape *g, real *out, const real *source, const real *packed, ptrdiff_t lanes) {
    int64_t rows = g->pre_channels, stride = g->stride, padding = g->padding;
    for (int64_t y0 = 0; y0 < stride && y0 < g->pre_height; y0++) {
        int64_t phase_y = (y0 + padding) % stride, taps_y = taps_of(g->kernel, stride, phase_y);
        for (int64_t x0 = 0; x0 < stride && x0 < g->pre_width; x0++) {
            int64_t phase_x = (x0 + padding) % stride, taps_x = taps_of(g->kernel, stride, phase_x);
            conv_pass c = {taps_of(g->pre_height, stride, y0),
                             taps_of(g->pre_width, stride, x0),
                             rows,
                             stride * g->pre_width * rows,
                             stride * rows,
                             g->map_height,
                             g->map_width,
                             g->post_channels,
                             taps_y,
                             taps_x,
                             1,
                             taps_y - 1 - (y0 + padding - phase_y) / stride,
                             taps_x - 1 - (x0 + padding - phase_x) / stride};
            correlate(&c, out + (y0 * g->pre_width + x0) * rows * lanes, source, 0, packed, lanes);
            packed += taps_y * taps_x * g->post_channels * rows;
        }
    }
}
