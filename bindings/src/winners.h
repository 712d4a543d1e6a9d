/* Max pooling makes maps of zeros: of every window all but the winner. Here are the two sums that read such a map, without
 * their products by 0: the adjoint of correlate.h and the trace of trace.h, in the order of these, so to their bits (but
 * for the sign of a zero). An infinity or a NaN must meet its zeros: where the other factor holds one, none is left out.
 *
 * A number (y, x, o) of the map meets filter o, whose rows are `line` neighbours each, and a corner of pre in its frame of
 * zeros, whose rows are `wide` apart.
 */

enum { SPAN_OF_MAP = 12 }; /* vectors of sums that leave registers for what they add up */

/* Where a number of the map meets the frame. */
INLINE int64_t corner_of(const shape *g, int64_t y, int64_t x) {
    return (y * g->stride * (g->pre_width + 2 * g->padding) + x * g->stride) * g->pre_channels;
}

/* -- the adjoint --------------------------------------------------------------------------------------------------- */

/* corner (kernel, line) += the sum of `filters` values times their filters, 1 or 2, one after the other. */
INLINE void add_filters(const int filters, const shape *g, real *restrict corner, const real values[2],
                        const real *const filter[2]) {
    const int64_t line = g->kernel * g->pre_channels, wide = (g->pre_width + 2 * g->padding) * g->pre_channels;
    for (int64_t u = 0; u < g->kernel; u++)
        for (int64_t i = 0; i < line; i += LANES) {
            int64_t some = line - i;
            vec sum = v_load_some(corner + u * wide + i, some);
            UNROLL for (int f = 0; f < filters; f++)
                sum = v_fma(v_load_some(filter[f] + u * line + i, some), v_set(values[f]), sum);
            v_store_some(corner + u * wide + i, sum, some);
        }
}

/* The same of those numbers of a pixel that `word` tells, each with its filter, two by two. */
INLINE void scatter_pixel(const shape *g, real *restrict corner, const real *restrict pixel, const real *restrict filters,
                          uint64_t word) {
    const int64_t size = filter_size(g);
    while (word) {
        const real *filter[2];
        real values[2];
        int count = 0;
        for (; count < 2 && word; word &= word - 1, count++) {
            int64_t o = lowest_bit(word);
            values[count] = pixel[o], filter[count] = filters + o * size;
        }
        if (count == 2)
            add_filters(2, g, corner, values, filter);
        else
            add_filters(1, g, corner, values, filter);
    }
}

/* frame += the adjoint of K * on a map, whose filters (C_out, k, k, C_in) hold the gain; of numbers that are 0 too, if
 * `all`. */
NOINLINE void scatter_map(const shape *g, real *restrict frame, const real *restrict map, const real *restrict filters,
                          int all) {
    const int64_t channels = g->post_channels;
    for (int64_t y = 0; y < g->map_height; y++)
        for (int64_t x = 0; x < g->map_width; x++, map += channels)
            for (int64_t first = 0; first < channels; first += WORD) {
                int64_t n = channels - first < WORD ? channels - first : WORD;
                uint64_t word = all ? ~(uint64_t)0 >> (WORD - n) : nonzero_bits(map + first, n);
                scatter_pixel(g, frame + corner_of(g, y, x), map + first, filters + first * filter_size(g), word);
            }
}

/* out (pre) = the adjoint of P(K * .) on source (post) in a tile, sample by sample; room holds pooling_room(). */
static void scatter_through(const shape *g, real *out, const real *source, const real *filters, const real *winners,
                            real *room, ptrdiff_t lanes) {
    const int64_t posts = post_size(g), framed = framed_size(g), row = g->pre_width * g->pre_channels;
    const int64_t wide = row + 2 * g->padding * g->pre_channels, edge = g->padding * (wide + g->pre_channels);
    const int all = !all_finite(filters, g->post_channels * filter_size(g));
    real *map = room, *frames = map + map_size(g), *states = frames + framed * lanes, *places = states + posts * lanes;
    if (lanes > 1) {
        transpose(states, posts, source, lanes, posts, lanes);
        transpose(places, posts, winners, lanes, posts, lanes);
        source = states, winners = places;
    }
    memset(frames, 0, (size_t)(framed * lanes) * sizeof *frames);
    for (ptrdiff_t b = 0; b < lanes; b++) {
        unpool(g, map, source + b * posts, g->post_channels, winners + b * posts, g->post_channels);
        scatter_map(g, frames + b * framed, map, filters, all);
    }
    for (int64_t y = 0; y < g->pre_height; y++)
        transpose(out + y * row * lanes, lanes, frames + edge + y * wide, framed, lanes, row);
}

/* -- the trace ----------------------------------------------------------------------------------------------------- */

/* The numbers of a map that are not 0, filter by filter: which they are, and where they meet the frame. */
typedef struct {
    int32_t *counts, *corners; /* (rows), (rows, pixels) */
    real *values;              /* (rows, pixels) */
} map_list;

static map_list map_list_in(const shape *g, real *room, int64_t rows) {
    int64_t pixels = g->map_height * g->map_width;
    map_list l = {(int32_t *)room, (int32_t *)(room + rows), room + rows * (1 + pixels)};
    return l;
}

/* Lists a map of `rows` filters. */
NOINLINE void list_map(const shape *g, const map_list *l, const real *restrict map, int64_t rows) {
    const int64_t pixels = g->map_height * g->map_width;
    memset(l->counts, 0, (size_t)rows * sizeof *l->counts);
    for (int64_t y = 0; y < g->map_height; y++)
        for (int64_t x = 0; x < g->map_width; x++, map += rows)
            for (int64_t first = 0; first < rows; first += WORD) {
                uint64_t word = nonzero_bits(map + first, rows - first < WORD ? rows - first : WORD);
                for (; word; word &= word - 1) {
                    int64_t o = first + lowest_bit(word), at = o * pixels + l->counts[o]++;
                    l->corners[at] = (int32_t)corner_of(g, y, x), l->values[at] = map[o];
                }
            }
}

/* sums[v apart] += sum over j of values[j] frame[corners[j] + v step], `vectors` of them. */
INLINE void sum_corners(const int vectors, real *restrict sums, ptrdiff_t apart, const real *restrict frame, ptrdiff_t step,
                        const int32_t *restrict corners, const real *restrict values, int64_t count) {
    vec sum[SPAN_OF_MAP];
    UNROLL for (int v = 0; v < vectors; v++)
        sum[v] = v_load(sums + v * apart);
    for (int64_t j = 0; j < count; j++) {
        const real *from = frame + corners[j];
        vec value = v_set(values[j]);
        UNROLL for (int v = 0; v < vectors; v++)
            sum[v] = v_fma(value, v_load(from + v * step), sum[v]);
    }
    UNROLL for (int v = 0; v < vectors; v++)
        v_store(sums + v * apart, sum[v]);
}

/* The same of any number of vectors, in spans that differ by one at most. */
#define CORNERS_OF(n) case n: sum_corners(n, sums, apart, frame, step, corners, values, count); break;
NOINLINE void sum_listed(real *restrict sums, ptrdiff_t apart, const real *restrict frame, ptrdiff_t step, int64_t vectors,
                         const int32_t *restrict corners, const real *restrict values, int64_t count) {
    for (int64_t spans = (vectors + SPAN_OF_MAP - 1) / SPAN_OF_MAP; spans > 0; spans--) {
        const int64_t span = vectors / spans;
        switch (span) {
            CORNERS_OF(12) CORNERS_OF(11) CORNERS_OF(10) CORNERS_OF(9) CORNERS_OF(8) CORNERS_OF(7)
            CORNERS_OF(6) CORNERS_OF(5) CORNERS_OF(4) CORNERS_OF(3) CORNERS_OF(2) CORNERS_OF(1)
        }
        sums += span * apart, frame += span * step, vectors -= span;
    }
}
