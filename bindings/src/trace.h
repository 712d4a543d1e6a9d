/* The Hebbian trace of a convolution, from samples-first maps with their channels last.
 *
 *     trace[o, u, v, c] += scale sum_B,i,j post[i, j, o] pre[S i + u - p, S j + v - p, c]
 *
 * For one kernel row u the taps (v, c) are neighbours in a row of pixels, so they make the vectors, and a sum over map
 * pixels i, j stays in registers. Pre is copied into a frame of zeros, one sample at a time; what a vector reads beyond
 * the last tap is not used.
 */

/* What one thread works with: filters begin..begin + rows - 1 of one convolution. */
typedef struct {
    const shape *g;
    int64_t begin, rows, columns; /* the sums of one kernel row and filter, whole vectors */
    real *sums, *frame, *map, *winners, *best, *packed, *gradient;
    map_list list;
} tracer;

static tracer tracer_in(const shape *g, real *room, int64_t begin, int64_t rows) {
    tracer t = {g, begin, rows, (g->kernel * g->pre_channels + CHAINS - 1) / CHAINS * CHAINS, room, 0, 0, 0, 0, 0, 0,
                {0, 0, 0}};
    int64_t sums = rows * g->kernel * t.columns;
    t.frame = t.sums + sums;
    t.map = t.frame + framed_size(g) + CHAINS;
    t.winners = t.map + unpooled_size(g);
    t.best = t.winners + post_size(g);
    t.packed = t.best + post_size(g);
    if (listed_size(g, rows))
        t.list = map_list_in(g, t.packed + rows * filter_size(g), rows);
    t.gradient = t.packed + rows * filter_size(g) + listed_size(g, rows);
    memset(room, 0, (size_t)(sums + framed_size(g) + CHAINS) * sizeof *room);
    return t;
}

/* The tracer's part of the places that win for one sample (post_h, post_w, C_out). */
static void take_winners(const tracer *t, const real *winners) {
    for (int64_t pixel = 0; pixel < t->g->post_height * t->g->post_width; pixel++)
        memcpy(t->winners + pixel * t->rows, winners + pixel * t->g->post_channels + t->begin,
               (size_t)t->rows * sizeof *winners);
}

/* The places that win for one sample of pre, by the packed filters: (post_h, post_w, rows). */
static void find_winners(const tracer *t, const real *pre) {
    correlate_up(t->g, t->map, pre, 0, t->packed, t->rows, 1);
    choose_winners(t->g, t->winners, t->best, t->map, t->rows);
}

INLINE void sum_block(const tracer *t, const int filters, const int vectors, const real *post, int64_t pitch, int64_t i,
                      int64_t u, int64_t column) {
    const shape *g = t->g;
    const int64_t wide = (g->pre_width + 2 * g->padding) * g->pre_channels, row = g->kernel * t->columns;
    const real *pre = t->frame + u * wide + column;
    real *place = t->sums + i * row + u * t->columns + column;
    vec sum[FILTERS_A][8];
    UNROLL for (int r = 0; r < filters; r++)
        UNROLL for (int v = 0; v < vectors; v++)
            sum[r][v] = v_load(place + r * row + v * LANES);
    for (int64_t y = 0; y < g->map_height; y++)
        accumulate(filters, vectors, sum, post + y * g->map_width * pitch + i, 1, pitch, pre + y * g->stride * wide,
                   g->stride * g->pre_channels, g->map_width, 0, 0);
    UNROLL for (int r = 0; r < filters; r++)
        UNROLL for (int v = 0; v < vectors; v++)
            v_store(place + r * row + v * LANES, sum[r][v]);
}

#define SUM_COLUMNS(most, vectors) { \
        int64_t i = 0; \
        for (; t->rows - i >= most; i += most) \
            sum_block(t, most, vectors, map, pitch, i, u, column); \
        for (; t->rows - i >= FILTERS_B; i += FILTERS_B) \
            sum_block(t, FILTERS_B, vectors, map, pitch, i, u, column); \
        for (; i < t->rows; i++) \
            sum_block(t, 1, vectors, map, pitch, i, u, column); \
    }

/* Adds one sample: pre, and what its map says, whose pixels are `pitch` apart. */
NOINLINE void sum_map(const tracer *t, const real *map, int64_t pitch) {
    enum { WIDE_A = FILTERS_A / ABREAST, WIDE = ABREAST * LANES };
    const int64_t taps = t->g->kernel * t->g->pre_channels;
    for (int64_t u = 0; u < t->g->kernel; u++) {
        int64_t column = 0;
        for (; taps - column >= WIDE; column += WIDE)
            SUM_COLUMNS(WIDE_A, ABREAST)
        for (; column < taps; column += LANES)
            SUM_COLUMNS(FILTERS_A, 1)
    }
}

/* The same of a map that is listed: along the taps of a kernel row, or across the kernel rows if these are more. */
static void sum_list(const tracer *t) {
    const shape *g = t->g;
    const int64_t wide = (g->pre_width + 2 * g->padding) * g->pre_channels, pixels = g->map_height * g->map_width;
    const int64_t vectors = (g->kernel * g->pre_channels + LANES - 1) / LANES, across = vectors < g->kernel;
    const int64_t lines = across ? vectors : g->kernel, length = across ? g->kernel : vectors;
    const ptrdiff_t next = across ? LANES : t->columns, apart = across ? t->columns : LANES;
    for (int64_t i = 0; i < t->rows; i++)
        for (int64_t line = 0; line < lines; line++)
            sum_listed(t->sums + i * g->kernel * t->columns + line * next, apart,
                       t->frame + line * (across ? LANES : wide), across ? wide : LANES, length,
                       t->list.corners + i * pixels, t->list.values + i * pixels, t->list.counts[i]);
}

/* Adds one sample of pre (H, W, C_in) and post (post_h, post_w, C_out); winners are those of the tracer. */
static void sum_sample(const tracer *t, const real *pre, const real *post) {
    const shape *g = t->g;
    int64_t row = g->pre_width * g->pre_channels, wide = row + 2 * g->padding * g->pre_channels;
    for (int64_t y = 0; y < g->pre_height; y++)
        memcpy(t->frame + (y + g->padding) * wide + g->padding * g->pre_channels, pre + y * row,
               (size_t)row * sizeof *pre);
    if (g->pool == EQK_NO_POOL) {
        sum_map(t, post + t->begin, g->post_channels);
        return;
    }
    unpool(g, t->map, post + t->begin, g->post_channels, t->winners, t->rows);
    if (listed_size(g, 1) && all_finite(pre, pre_size(g))) {
        list_map(g, &t->list, t->map, t->rows);
        sum_list(t);
    } else
        sum_map(t, t->map, t->rows);
}

/* trace (rows, taps, taps, C_in) += scale * the sums. Where kernels were averaged a tap has a share in several, which are
 * added up first, in the place of filters that no map needs: one by one they would be lost beside a large trace. */
static void end_trace(const tracer *t, real *restrict trace, real scale) {
    const shape *g = t->g;
    const int64_t line = g->taps * g->pre_channels;
    const real share = scale / (real)(g->spread * g->spread);
    for (int64_t row = 0; row < t->rows * g->taps; row++) {
        const real *sums = t->sums + (row / g->taps * g->kernel + row % g->taps) * t->columns, *total = sums;
        if (g->spread > 1) {
            memset(t->packed, 0, (size_t)line * sizeof *sums);
            for (int64_t y = 0; y < g->spread; y++)
                for (int64_t x = 0; x < g->spread; x++)
                    combine(t->packed, t->packed, 1, sums + y * g->step * t->columns + x * g->step * g->pre_channels, line);
            total = t->packed;
        }
        combine(trace + row * line, trace + row * line, share, total, line);
    }
}
