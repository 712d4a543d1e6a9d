/* How products of a tile meet their factors where they come slower than they are multiplied (CHUNK of the variant's
 * header is not 0): to the bits of the same products in gemm.h without it.
 *
 * forward   The rows of s of one chain are CHAINS rows apart, some kilobytes, and would share a few sets of the first
 *           cache: they are copied side by side, in the order in which they are met. The next rows of W are asked for.
 * backward  Rows of W are some kilobytes apart too. CHUNK of them at a time meet all blocks of sums, from the second cache;
 *           sums wait in memory between two chunks, and stay one chain.
 *
 * AHEAD: forward products that leave out rows, and backward ones, ask for their next weights too.
 */

/* Copies `width` lanes of the rows of s, chain by chain of a forward product, or those of them that are listed. */
static const real *in_order(real *restrict panel, const real *restrict s, ptrdiff_t lanes, ptrdiff_t width, int64_t depth,
                            const int64_t *list) {
    const int64_t blocks = chain_blocks(depth);
    real *place = panel;
    for (int64_t index = 0; index < blocks; index++) {
        int64_t begin = chain_block(depth, index, blocks), end = chain_block(depth, index + 1, blocks);
        for (int64_t first = begin; first < begin + CHAINS && first < end; first++) {
            int64_t count = list ? *list++ : (end - first + CHAINS - 1) / CHAINS;
            for (int64_t j = 0; j < count; j++, place += width) {
                const real *row = s + (list ? *list++ : first + j * CHAINS) * lanes;
                for (ptrdiff_t b = 0; b < width; b += LANES)
                    v_store(place + b, v_load(row + b));
            }
        }
    }
    return panel;
}

/* Asks for chain `index`'s share of `rows` rows of a block of W. */
INLINE void prefetch_rows(const int rows, const real *w, ptrdiff_t w_row, int64_t length, int64_t index) {
    const int64_t share = (length + CHAINS - 1) / CHAINS;
    for (int i = 0; i < rows; i++)
        for (int64_t k = 0; k < share; k += CHAINS)
            PREFETCH(w + i * w_row + index * share + k);
}

/* Whether rows list[0].. of W, which a product leaves out, are finite. */
static int are_finite(const real *restrict w, int64_t columns, int64_t depth, const int64_t *restrict list) {
    vec poison[2] = {v_set(0), v_set(0)};
    for (int64_t j = list[0]; j < depth; j++) {
        const real *row = w + list[1 + j] * columns;
        for (int64_t i = 0; i < columns; i += 2 * LANES)
            UNROLL for (int v = 0; v < 2; v++)
                if (i + v * LANES < columns) {
                    vec weight = v_load_some(row + i + v * LANES, columns - i - v * LANES);
                    poison[v] = v_add(v_sub(weight, weight), poison[v]); /* weight - weight = 0 of all that is finite */
                }
    }
    return v_poison(v_add(poison[0], poison[1])) == 0;
}

/* sums (+)= the rows of W of one chunk, each times its row of s; they begin at 0 if `fresh`. */
INLINE void carry_block(const int rows, const int vectors, real *sums, ptrdiff_t lanes, const real *w, int64_t columns,
                        const real *s, int64_t depth, const int64_t *list, int fresh) {
    vec sum[BLOCK_A][8];
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int v = 0; v < vectors; v++)
            sum[i][v] = fresh ? v_set(0) : v_load(sums + i * lanes + v * LANES);
    accumulate_listed(rows, vectors, sum, w, 1, columns, s, lanes, depth, list, 0, 0, AHEAD);
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int v = 0; v < vectors; v++)
            v_store(sums + i * lanes + v * LANES, sum[i][v]);
}

#define CARRY(name, vectors, terms) \
    NOINLINE void name(real *restrict sums, ptrdiff_t lanes, const real *restrict w, int64_t columns, \
                       const real *restrict s, int64_t depth, const int64_t *restrict list, int fresh) { \
        int64_t i = 0; \
        for (; columns - i >= BLOCK_A; i += BLOCK_A) \
            carry_block(BLOCK_A, vectors, sums + i * lanes, lanes, w + i, columns, s, depth, terms, fresh); \
        for (; columns - i >= BLOCK_C; i += BLOCK_C) \
            carry_block(BLOCK_C, vectors, sums + i * lanes, lanes, w + i, columns, s, depth, terms, fresh); \
        for (; i < columns; i++) \
            carry_block(1, vectors, sums + i * lanes, lanes, w + i, columns, s, depth, terms, fresh); \
        (void)list; \
    }
CARRY(carry_two, 2, 0)
CARRY(carry_one, 1, 0)
CARRY(carry_listed_two, 2, list)
CARRY(carry_listed_one, 1, list)

/* out = alpha sums (+ out if keep), whole vectors; without `keep` they may lie in the same place. */
static void scale_sums(real *out, const real *sums, int64_t count, real alpha, int keep) {
    vec gain = v_set(alpha);
    for (int64_t i = 0; (keep || alpha != 1) && i < count; i += LANES) {
        vec sum = v_load(sums + i);
        v_store(out + i, keep ? v_fma(gain, sum, v_load(out + i)) : v_mul(gain, sum));
    }
}

/* backward_tile (gemm.h), in chunks; `room` holds (rows, lanes). */
static void backward_chunks(real *restrict out, ptrdiff_t lanes, const real *restrict w, const real *restrict s,
                            int64_t rows, int64_t depth, real alpha, int keep, const int64_t *list, real *restrict room) {
    const int listed = list && are_finite(w, rows, depth, list);
    const int64_t met = listed ? list[0] : depth;
    real *sums = keep ? room : out;
    for (int64_t k = 0; k == 0 || k < met; k += CHUNK) {
        int64_t some = met - k < CHUNK ? met - k : CHUNK;
        for (ptrdiff_t at = 0, width; at < lanes; at += width) {
            width = lanes - at >= 2 * LANES ? 2 * LANES : LANES;
            if (listed)
                (width > LANES ? carry_listed_two : carry_listed_one)(sums + at, lanes, w, rows, s + at, some, list + 1 + k,
                                                                      k == 0);
            else
                (width > LANES ? carry_two : carry_one)(sums + at, lanes, w + k * rows, rows, s + k * lanes + at, some, 0,
                                                        k == 0);
        }
    }
    scale_sums(out, sums, rows * lanes, alpha, keep);
}
