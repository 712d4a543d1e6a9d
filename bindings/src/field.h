/* FitzHugh-Nagumo field: reaction and diffusion of both species, several time steps in one pass over memory.
 *
 *     u' = u + (Du dt lap u + dt (u - u^3 - v))          lap s = (north + south) + (west + east) - 4 s
 *     v' = v + (Dv dt lap v + eps dt (u - alpha v - beta))
 *
 * Nine multiplications and eight additions a cell, which a processor does side by side. (One of each could be saved with
 * the four times s and the decay taken into a single factor of s, but that factor's rounding would be the same error in
 * every step: twenty times the error of float32 after 20,000 steps, for a twentieth of the time.)
 *
 * The rows of a tile of columns stream through a chain of line buffers, two at a time: the shift register of a
 * stencil machine. Level 0 holds rows as they are in memory, level l the same rows l steps later. In turn t level 0
 * loads rows r and r + 1, r = r_0 + 2 t, and level l makes rows r - l and r - l + 1, from the pair that level l - 1 has
 * made in this turn and the one of the turn before, in whose place it puts them: nobody else needs that pair. So the pair
 * of level l lies in slot t - l of a ring of slots, and what is read and written is mostly in the first cache. Only the
 * last level goes back to memory.
 *
 * A tile is loaded with as many columns and rows around it as there are steps, so tiles and threads need nothing from
 * each other, and the boundary is only a matter of which cell is loaded. What is wrong
 * beyond the outermost column moves inwards by one a level, and reaches no cell of the tile; a level leaves out the whole
 * vectors that it has come through. Every cell is the same sum in the same order wherever tiles end: results do not
 * depend on tiles, steps a pass, or threads.
 */
enum {
    COLUMNS = 4096 / sizeof(real), /* a tile's row: all slots fit the second cache */
    MARGIN = EQK_FIELD_STEPS,      /* columns on either side of a tile: whole vectors, and as many as there are steps */
    PAD = 16,                      /* numbers before the first and after the last row, for their neighbours */
    PAIR = 2,                      /* rows of a slot */
    SHARE = EQK_FIELD_STEPS / 8    /* levels that fetch one row: PAIR rows of two species come, and as many go */
};

INLINE int64_t field_stride(int64_t width) {
    int64_t columns = width < COLUMNS ? width : COLUMNS;
    return (columns + MARGIN - 1) / MARGIN * MARGIN + 2 * MARGIN;
}

/* Numbers of working memory: PAD, then a slot of PAIR rows x 2 species for each level, then PAD. */
static int64_t field_size(int64_t width, int64_t steps) {
    return (steps + 1) * PAIR * 2 * field_stride(width) + 2 * PAD;
}

typedef struct {
    vec diffusion_u, diffusion_v, reaction_u, reaction_v, alpha, beta;
} field_constants;

/* `count` rows of n cells, 1 or 2, one step later, n in whole vectors: from the rows at in[0] to in[count + 1], north to
 * south, to those at out[0] and out[1], which may be in[0] and in[1]. These are places of u: v lies `stride` behind. The
 * cells before and the vectors after a row are read too. Both species and two rows at once: what a cell needs of its
 * neighbours is then mostly in registers. West is loaded, before its row is overwritten, and east shifted in from the next
 * vector: units that shift are also those that add and multiply, while those that load have time.
 *
 * A SHARE-th of a row at `soon` is asked for meanwhile, bit by bit: all at once would hold up what the caches do. */
INLINE void field_rows(const int count, real *const *out, const real *const *in, ptrdiff_t stride, int64_t n,
                       const real *soon, const field_constants *constants) {
    const field_constants c = *constants; /* copies: a store might be to the original, as far as a compiler knows */
    const real *from[PAIR + 2];
    real *to[PAIR];
    vec west[2][PAIR], here[2][PAIR], four = v_set(4);
    UNROLL for (int r = 0; r < count + 2; r++)
        from[r] = in[r];
    UNROLL for (int r = 0; r < count; r++) {
        to[r] = out[r];
        UNROLL for (int s = 0; s < 2; s++) {
            west[s][r] = v_load(from[r + 1] + s * stride - 1);
            here[s][r] = v_load(from[r + 1] + s * stride);
        }
    }
    for (int64_t j = 0; j < n; j += LANES) {
        vec laplacian[2][PAIR], next[2][PAIR];
        PREFETCH_SOON(soon + j / SHARE);
        UNROLL for (int s = 0; s < 2; s++) {
            vec column[PAIR + 2];
            column[0] = v_load(from[0] + s * stride + j);
            column[count + 1] = v_load(from[count + 1] + s * stride + j);
            UNROLL for (int r = 0; r < count; r++)
                column[r + 1] = here[s][r];
            UNROLL for (int r = 0; r < count; r++) {
                const real *ahead = from[r + 1] + s * stride + j + LANES;
                next[s][r] = v_load(ahead);
                vec across = v_add(west[s][r], v_from_second(here[s][r], next[s][r]));
                laplacian[s][r] = v_fnma(four, here[s][r], v_add(v_add(column[r], column[r + 2]), across));
                west[s][r] = v_load(ahead - 1);
            }
        }
        UNROLL for (int r = 0; r < count; r++) {
            vec u = here[0][r], v = here[1][r];
            vec force_u = v_sub(v_fnma(v_mul(u, u), u, u), v), force_v = v_sub(v_fnma(c.alpha, v, u), c.beta);
            v_store(to[r] + j, v_fma(c.reaction_u, force_u, v_fma(c.diffusion_u, laplacian[0][r], u)));
            v_store(to[r] + stride + j, v_fma(c.reaction_v, force_v, v_fma(c.diffusion_v, laplacian[1][r], v)));
            here[0][r] = next[0][r], here[1][r] = next[1][r];
        }
    }
}

NOINLINE void field_pair(real *const *out, const real *const *in, ptrdiff_t stride, int64_t n, const real *soon,
                         const field_constants *c) {
    field_rows(2, out, in, stride, n, soon, c);
}

NOINLINE void field_row(real *const *out, const real *const *in, ptrdiff_t stride, int64_t n, const real *soon,
                        const field_constants *c) {
    field_rows(1, out, in, stride, n, soon, c);
}

/* Cells first, first + 1, ... of an endless row, one by one. */
INLINE void field_edge(real *out, int64_t count, const real *row, int64_t first, int64_t width, int mirror) {
    int64_t period = mirror ? 2 * width : width, cell = (first % period + period) % period;
    for (int64_t j = 0; j < count; j++) {
        out[j] = row[cell < width ? cell : 2 * width - 1 - cell];
        cell = cell + 1 < period ? cell + 1 : 0;
    }
}

/* out = cells first, first + 1, ... of an endless row: what lies within it is copied. */
static void field_load(real *restrict out, int64_t count, const real *restrict row, int64_t first, int64_t width,
                       int mirror) {
    int64_t low = first < 0 ? -first : 0, high = width - first;
    low = low > count ? count : low;
    high = high > count ? count : high < low ? low : high;
    if (high > low)
        memcpy(out + low, row + first + low, (size_t)(high - low) * sizeof *out);
    field_edge(out, low, row, first, width, mirror);
    field_edge(out + high, count - high, row, first + high, width, mirror);
}

/* What level `level` asks for of the rows that the next turn loads, and then of those it stores: a SHARE-th of one. */
INLINE const real *field_soon(const real *after, const real *before, int64_t rows, int64_t width, int64_t steps,
                              int mirror, int64_t top, int64_t left, int64_t count, int64_t level) {
    int64_t line = (level - 1) / SHARE, row = top + PAIR + line % PAIR, species = line / PAIR % 2;
    int stored = line >= 2 * PAIR;
    row = species * rows + source(stored ? row - steps : row, rows, mirror);
    return (stored ? after : before) + row * width + left + (level - 1) % SHARE * count / SHARE;
}

/* Where u of a row, 0 or 1, of a level's pair lies; v lies a stride behind. */
#define FIELD_ROW(level, row) field_place(work, stride, (turn + steps + 1 - (level)) % (steps + 1), row)
INLINE real *field_place(real *work, int64_t stride, int64_t slot, int64_t row) {
    return work + PAD + (slot * PAIR + row) * 2 * stride;
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
        int64_t begin = first - reach * steps, end = last + reach * steps;
        for (int64_t turn = 0; begin + PAIR * turn < end; turn++) {
            int64_t top = begin + PAIR * turn;
            for (int64_t i = top; i < top + PAIR && i < end; i++)
                for (int species = 0; species < 2; species++)
                    field_load(FIELD_ROW(0, i - top) + species * stride + MARGIN - steps, count + 2 * steps,
                               before + (species * rows + source(i, rows, mirror)) * width, left - steps, width, mirror);
            for (int64_t level = 1; level <= steps && level * reach <= turn; level++) {
                int64_t skip = (MARGIN - steps + level) / LANES * LANES, columns = n - 2 * skip;
                const real *soon = field_soon(after, before, rows, width, steps, mirror, top, left, count, level);
                real *out[PAIR] = {FIELD_ROW(level, 0) + skip, FIELD_ROW(level, 1) + skip};
                const real *north = FIELD_ROW(level - 1, 0) + skip, *south = FIELD_ROW(level - 1, 1) + skip;
                if (reach) { /* the second row of an odd last pair is made of what was there, and is not used */
                    const real *in[PAIR + 2] = {out[0], out[1], north, south};
                    field_pair(out, in, stride, columns, soon, &c);
                } else {
                    const real *in[PAIR + 1] = {north, north, north};
                    field_row(out, in, stride, columns, soon, &c);
                }
            }
            for (int64_t i = top - reach * steps; steps * reach <= turn && i < top - reach * steps + PAIR && i < last; i++)
                for (int species = 0; species < 2; species++) {
                    const real *done = FIELD_ROW(steps, i - top + reach * steps) + species * stride + MARGIN;
                    real *to = after + (species * rows + i) * width + left;
                    for (int64_t j = 0; j < count; j += LANES) {
                        vec value = v_load_some(done + j, count - j);
                        v_store_some(to + j, value, count - j);
                        peak = v_max(v_abs(value), peak);
                        poison = v_fma(value, v_set(0), poison);
                    }
                }
        }
    }
    *largest = v_largest(peak) + v_poison(poison);
}
