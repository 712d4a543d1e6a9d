/* Max pooling of a map (map_h, map_w, width) over windows side by side, and its adjoint; a pixel is `width` numbers. (An
 * average is a wider kernel, see shape.h.)
 *
 * `width` is the channels times the lanes of a tile. The winner of a max pooling is the place of the largest element in
 * its window, 0, 1, ... row by row, kept in the type of the states; of equals the first wins.
 */

/* Which pixel of the map is number `place` in the window of pixel (y, x) of the pooled map. */
INLINE int64_t map_pixel(const shape *g, int64_t y, int64_t x, int64_t place) {
    return (y * g->window + place / g->window) * g->map_width + x * g->window + place % g->window;
}

#define EACH_POOLED(g) \
    for (int64_t y = 0; y < (g)->post_height; y++) \
        for (int64_t x = 0; x < (g)->post_width; x++)

/* winners = where each window of `map` is largest, best = how large. */
NOINLINE void choose_winners(const shape *g, real *restrict winners, real *restrict best, const real *restrict map,
                             int64_t width) {
    EACH_POOLED(g) {
        int64_t pixel = (y * g->post_width + x) * width;
        for (int64_t i = 0; i < width; i += LANES) {
            int64_t some = width - i;
            vec highest = v_load_some(map + map_pixel(g, y, x, 0) * width + i, some), winner = v_set(0);
            for (int64_t place = 1; place < g->window * g->window; place++) {
                vec value = v_load_some(map + map_pixel(g, y, x, place) * width + i, some);
                winner = v_if_larger(value, highest, v_set((real)place), winner);
                highest = v_if_larger(value, highest, value, highest);
            }
            v_store_some(winners + pixel + i, winner, some);
            v_store_some(best + pixel + i, highest, some);
        }
    }
}

/* out = P(map): the winners. */
NOINLINE void pool(const shape *g, real *restrict out, const real *restrict map, const real *restrict winners,
                   int64_t width) {
    const int64_t places = g->window * g->window;
    EACH_POOLED(g) {
        int64_t pixel = (y * g->post_width + x) * width;
        for (int64_t i = 0; i < width; i += LANES) {
            int64_t some = width - i;
            vec pooled = v_set(0), winner = v_load_some(winners + pixel + i, some);
            for (int64_t place = 0; place < places; place++) {
                vec value = v_load_some(map + map_pixel(g, y, x, place) * width + i, some);
                pooled = v_if_equal(winner, v_set((real)place), value, pooled);
            }
            v_store_some(out + pixel + i, pooled, some);
        }
    }
}

/* map = the adjoint of P on source, whose pixels are `pitch` numbers apart. */
NOINLINE void unpool(const shape *g, real *restrict map, const real *restrict source, int64_t pitch,
                     const real *restrict winners, int64_t width) {
    const int64_t places = g->window * g->window;
    if (g->post_height * g->window < g->map_height || g->post_width * g->window < g->map_width) /* the rim */
        memset(map, 0, (size_t)(g->map_height * g->map_width * width) * sizeof *map);
    EACH_POOLED(g) {
        int64_t pixel = y * g->post_width + x;
        for (int64_t i = 0; i < width; i += LANES) {
            int64_t some = width - i;
            vec value = v_load_some(source + pixel * pitch + i, some);
            vec winner = v_load_some(winners + pixel * width + i, some);
            for (int64_t place = 0; place < places; place++)
                v_store_some(map + map_pixel(g, y, x, place) * width + i,
                             v_if_equal(winner, v_set((real)place), value, v_set(0)), some);
        }
    }
}
