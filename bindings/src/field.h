/* FitzHugh-Nagumo field: reaction and diffusion of both species, several time steps in one pass over memory.
 *
 * The rows of a tile of columns stream through a chain of line buffers, a few at a time: the shift register of a
 * stencil machine. Level 0 holds rows as they are in memory, level l the same rows l steps later; a row of level l is
 * computed as soon as three rows of level l - 1 are there, from the cache, and only the last level is written back. A
 * tile is loaded with as many columns and rows around it as there are steps, so tiles and threads need nothing from
 * each other, and the boundary is only a matter of which cell is loaded. Every cell is the same sum in the same order
 * wherever tiles end: results do not depend on tiles, steps a pass, or threads.
 */
enum {
    COLUMNS = 4096 / sizeof(real), /* a tile's row: all levels fit the second cache */
    MARGIN = EQK_FIELD_STEPS,      /* columns on either side of a tile: whole vectors, and as many as there are steps */
    PAD = 16,                      /* numbers before the first and after the last row, for their neighbours */
    ROWS = 4,                      /* rows of a level made in a turn, while the level below is still in the first cache */
    RING = 8                       /* rows kept of a level: a power of two, at least the ROWS + 2 that are read */
};

INLINE int64_t field_stride(int64_t width) {
    int64_t columns = width < COLUMNS ? width : COLUMNS;
    return (columns + MARGIN - 1) / MARGIN * MARGIN + 2 * MARGIN;
}

/* Numbers of working memory: PAD, then levels x RING rows x 2 species, then PAD. */
static int64_t field_size(int64_t width, int64_t steps) {
    return (steps + 1) * RING * 2 * field_stride(width) + 2 * PAD;
}

typedef struct {
    vec diffusion_u, diffusion_v, reaction_u, reaction_v, alpha, beta;
} field_constants;

/* One row of both species, n cells, a multiple of LANES, one step later. */
INLINE void field_row(real *restrict out_u, real *restrict out_v, const real *north_u, const real *u, const real *south_u,
                      const real *north_v, const real *v, const real *south_v, int64_t n, const field_constants *c) {
    vec four = v_set(4);
    for (int64_t j = 0; j < n; j += LANES) {
        vec a = v_load(u + j), b = v_load(v + j);
        vec lap_a = v_add(v_add(v_load(north_u + j), v_load(south_u + j)), v_add(v_load(u + j - 1), v_load(u + j + 1)));
        vec lap_b = v_add(v_add(v_load(north_v + j), v_load(south_v + j)), v_add(v_load(v + j - 1), v_load(v + j + 1)));
        vec force_a = v_sub(v_fnma(v_mul(a, a), a, a), b);
        vec force_b = v_sub(v_fnma(c->alpha, b, a), c->beta);
        lap_a = v_fnma(four, a, lap_a), lap_b = v_fnma(four, b, lap_b);
        v_store(out_u + j, v_add(a, v_fma(c->diffusion_u, lap_a, v_mul(c->reaction_u, force_a))));
        v_store(out_v + j, v_add(b, v_fma(c->diffusion_v, lap_b, v_mul(c->reaction_v, force_b))));
    }
}

/* out = cells first, first + 1, ... of an endless row. */
static void field_load(real *restrict out, int64_t count, const real *restrict row, int64_t first, int64_t width,
                       int mirror) {
    int64_t low = first < 0 ? -first : 0, high = width - first;
    low = low > count ? count : low;
    high = high > count ? count : high < low ? low : high;
    if (high > low)
        memcpy(out + low, row + first + low, (size_t)(high - low) * sizeof *out);
    for (int64_t j = 0; j < count; j++) {
        if (j == low)
            j = high;
        if (j < count)
            out[j] = row[source(first + j, width, mirror)];
    }
}

INLINE real *field_place(real *work, int64_t stride, int64_t level, int64_t row, int species) {
    return work + PAD + ((level * RING + (row & (RING - 1))) * 2 + species) * stride;
}

static void field_advance(real *after, const real *before, const eqk_field *f, int64_t rows, int64_t width,
                          int64_t steps, int mirror, int64_t first, int64_t last, real *largest, real *work) {
    field_constants c = {v_set((real)(f->Du * f->dt)), v_set((real)(f->Dv * f->dt_v)), v_set((real)f->dt),
                         v_set((real)(f->eps * f->dt_v)), v_set((real)f->alpha), v_set((real)f->beta)};
    int64_t reach = rows > 1 ? 1 : 0; /* a single row is its own neighbour above and below: one dimension */
    int64_t stride = field_stride(width);
    vec peak = v_set(0), poison = v_set(0);
    memset(work, 0, (size_t)field_size(width, steps) * sizeof *work);
    for (int64_t left = 0; left < width; left += COLUMNS) {
        int64_t count = width - left < COLUMNS ? width - left : COLUMNS;
        int64_t n = (count + MARGIN - 1) / MARGIN * MARGIN + 2 * MARGIN;
        for (int64_t top = first - reach * steps; top < last + reach * steps; top += ROWS) {
            for (int64_t i = top; i < top + ROWS && i < last + reach * steps; i++)
                for (int species = 0; species < 2; species++)
                    field_load(field_place(work, stride, 0, i, species) + MARGIN - steps, count + 2 * steps,
                               before + (species * rows + source(i, rows, mirror)) * width, left - steps, width, mirror);
            for (int64_t level = 1; level <= steps; level++) {
                int64_t more = reach * (steps - level), begin = top - reach * level, end = begin + ROWS;
                begin = begin < first - more ? first - more : begin;
                end = end > last + more ? last + more : end;
                for (int64_t i = begin; i < end; i++) {
                    real *u = field_place(work, stride, level, i, 0), *v = field_place(work, stride, level, i, 1);
                    int64_t below = level - 1;
                    field_row(u, v, field_place(work, stride, below, i - reach, 0),
                              field_place(work, stride, below, i, 0), field_place(work, stride, below, i + reach, 0),
                              field_place(work, stride, below, i - reach, 1), field_place(work, stride, below, i, 1),
                              field_place(work, stride, below, i + reach, 1), n, &c);
                    if (level < steps)
                        continue;
                    for (int species = 0; species < 2; species++) {
                        const real *done = field_place(work, stride, level, i, species) + MARGIN;
                        real *out = after + (species * rows + i) * width + left;
                        for (int64_t j = 0; j < count; j += LANES) {
                            vec value = v_load_some(done + j, count - j);
                            v_store_some(out + j, value, count - j);
                            peak = v_max(v_abs(value), peak);
                            poison = v_fma(value, v_set(0), poison);
                        }
                    }
                }
            }
        }
    }
    *largest = v_largest(peak) + v_poison(poison);
}
