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
    ROWS = 2,                      /* rows of a level made in a turn: as many as field_rows takes at once */
    RING = 4                       /* rows kept of a level: a power of two, at least the ROWS + 2 that are read */
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

/* `count` neighbouring rows of both species, n cells, a multiple of LANES, one step later; given are the rows from the one
 * north of them to the one south. These are places of u: v lies `stride` behind. Both species and two rows at once: what a
 * cell needs of its neighbours is then mostly in registers. */
INLINE void field_rows(const int count, real *const *to, real *const *from, int64_t stride, int64_t n,
                       const field_constants *constants) {
    const field_constants c = *constants; /* copies stay in registers: what is stored cannot change them */
    vec own[2][2], four = v_set(4);
    real *out[2], *given[4];
    UNROLL for (int r = 0; r < count; r++)
        out[r] = to[r];
    UNROLL for (int r = 0; r < count + 2; r++)
        given[r] = from[r];
    UNROLL for (int s = 0; s < 2; s++)
        UNROLL for (int r = 0; r < count; r++)
            own[s][r] = v_load(given[r + 1] + s * stride);
    for (int64_t j = 0; j < n; j += LANES) {
        vec lap[2][2], ahead[2][2];
        UNROLL for (int s = 0; s < 2; s++) {
            const int64_t at = s * stride + j;
            vec column[4];
            column[0] = v_load(given[0] + at);
            UNROLL for (int r = 0; r < count; r++)
                column[r + 1] = own[s][r];
            column[count + 1] = v_load(given[count + 1] + at);
            UNROLL for (int r = 1; r <= count; r++) {
                const real *row = given[r] + at;
                ahead[s][r - 1] = v_load(row + LANES);
                vec sides = v_add(v_load(row - 1), v_load_next(row, column[r], ahead[s][r - 1]));
                lap[s][r - 1] = v_fnma(four, column[r], v_add(v_add(column[r - 1], column[r + 1]), sides));
            }
        }
        UNROLL for (int r = 0; r < count; r++) {
            vec u = own[0][r], v = own[1][r];
            vec force_u = v_sub(v_fnma(v_mul(u, u), u, u), v), force_v = v_sub(v_fnma(c.alpha, v, u), c.beta);
            v_store(out[r] + j, v_fma(c.reaction_u, force_u, v_fma(c.diffusion_u, lap[0][r], u)));
            v_store(out[r] + stride + j, v_fma(c.reaction_v, force_v, v_fma(c.diffusion_v, lap[1][r], v)));
            own[0][r] = ahead[0][r], own[1][r] = ahead[1][r];
        }
    }
}

NOINLINE void field_one_row(real *const *out, real *const *given, int64_t stride, int64_t n, const field_constants *c) {
    field_rows(1, out, given, stride, n, c);
}

NOINLINE void field_two_rows(real *const *out, real *const *given, int64_t stride, int64_t n, const field_constants *c) {
    field_rows(2, out, given, stride, n, c);
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

/* Where a row of a level keeps u; v follows one stride behind. */
INLINE real *field_place(real *work, int64_t stride, int64_t level, int64_t row) {
    return work + PAD + (level * RING + (row & (RING - 1))) * 2 * stride;
}

INLINE void field_ask_for(const real *row, int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; j += CHAINS)
        PREFETCH(row + j);
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
                    field_load(field_place(work, stride, 0, i) + species * stride + MARGIN - steps, count + 2 * steps,
                               before + (species * rows + source(i, rows, mirror)) * width, left - steps, width, mirror);
            for (int64_t level = 1; level <= steps; level++) {
                int64_t more = reach * (steps - level), begin = top - reach * level, end = begin + ROWS;
                /* What the next turn loads and stores comes meanwhile from memory, which would else stand idle. */
                int64_t from = left + count * (level - 1) / steps, to = left + count * level / steps;
                for (int64_t i = top + ROWS; i < top + 2 * ROWS; i++)
                    for (int species = 0; species < 2; species++) {
                        int64_t goal = source(i - reach * steps, rows, mirror);
                        field_ask_for(before + (species * rows + source(i, rows, mirror)) * width, from, to);
                        field_ask_for(after + (species * rows + goal) * width, from, to);
                    }
                begin = begin < first - more ? first - more : begin;
                end = end > last + more ? last + more : end;
                real *out[ROWS], *given[ROWS + 2];
                for (int r = 0; r < ROWS; r++)
                    out[r] = field_place(work, stride, level, begin + r);
                for (int r = 0; r < ROWS + 2; r++)
                    given[r] = field_place(work, stride, level - 1, begin + reach * (r - 1));
                if (end - begin == ROWS && reach)
                    field_two_rows(out, given, stride, n, &c);
                else if (end > begin)
                    field_one_row(out, given, stride, n, &c);
                for (int64_t i = begin; level == steps && i < end; i++)
                    for (int species = 0; species < 2; species++) {
                        const real *done = field_place(work, stride, level, i) + species * stride + MARGIN;
                        real *place = after + (species * rows + i) * width + left;
                        for (int64_t j = 0; j < count; j += LANES) {
                            vec value = v_load_some(done + j, count - j);
                            v_store_some(place + j, value, count - j);
                            peak = v_max(v_abs(value), peak);
                            poison = v_fma(value, v_set(0), poison);
                        }
                    }
            }
        }
    }
    *largest = v_largest(peak) + v_poison(poison);
}
