/* Matrix products from blocks of sums in registers, in the shapes that the kernels need.
 *
 * backward  C = alpha A B (+ C), each sum one chain over k in order. A is read one number at a time, at any strides; B
 *           and C a vector of columns at a time.
 * forward   out += W s, with W (rows, depth) as it lies in memory. k is divided into blocks (chain_block), and a block
 *           into CHAINS interleaved partial sums, k mod CHAINS, which are added one after the other: the vectors of
 *           a single sample run along k, and the vectors of a tile across its samples, to the same bits.
 */

/* -- backward ------------------------------------------------------------------------------------------------------ */

/* sum[i][v] += sum_k a[i a_row + k a_step] b[k b_row + v LANES ...], k = 0..depth - 1, or those of `list` unless it is
 * NULL; `some` is how many columns the last vector has. With `ahead`, and rows of A that are neighbours, it asks for those
 * after. */
INLINE void accumulate_listed(const int rows, const int vectors, vec sum[][8], const real *a, ptrdiff_t a_row,
                              ptrdiff_t a_step, const real *b, ptrdiff_t b_row, int64_t depth, const int64_t *list,
                              const int partial, int64_t some, const int ahead) {
    for (int64_t j = 0; j < depth; j++) {
        int64_t k = list ? list[j] : j;
        vec column[8];
        if (ahead)
            PREFETCH(a + k * a_step + 2 * rows - 1);
        UNROLL for (int v = 0; v < vectors; v++)
            column[v] = partial ? v_load_first(b + k * b_row, (int)some) : v_load(b + k * b_row + v * LANES);
        UNROLL for (int i = 0; i < rows; i++) {
            vec weight = v_set(a[i * a_row + k * a_step]);
            UNROLL for (int v = 0; v < vectors; v++)
                sum[i][v] = v_fma(weight, column[v], sum[i][v]);
        }
    }
}

INLINE void accumulate(const int rows, const int vectors, vec sum[][8], const real *a, ptrdiff_t a_row, ptrdiff_t a_step,
                       const real *b, ptrdiff_t b_row, int64_t depth, const int partial, int64_t some) {
    accumulate_listed(rows, vectors, sum, a, a_row, a_step, b, b_row, depth, 0, partial, some, 0);
}

INLINE void clear_sums(const int rows, const int vectors, vec sum[][8]) {
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int v = 0; v < vectors; v++)
            sum[i][v] = v_set(0);
}

/* A block of C. If `listed`, the k are those of a list (list_chain in zeros.h), rows of A are neighbours, and 0 comes back
 * if a number of A that is left out is not finite. */
INLINE int block(const int rows, const int vectors, const int listed, real *c, ptrdiff_t c_row, const real *a,
                 ptrdiff_t a_row, ptrdiff_t a_step, const real *b, ptrdiff_t b_row, int64_t depth, real alpha, int keep,
                 const int partial, int64_t some, const int64_t *list) {
    vec sum[BLOCK_A][8], gain = v_set(alpha), poison = v_set(0);
    clear_sums(rows, vectors, sum);
    accumulate_listed(rows, vectors, sum, a, a_row, a_step, b, b_row, listed ? list[0] : depth, listed ? list + 1 : 0,
                      partial, some, 0);
    if (listed) {
        for (int64_t j = list[0]; j < depth; j++) /* weight - weight = 0 of all that is finite */
            for (int i = 0; i < rows; i += LANES) {
                vec weight = v_load_some(a + list[1 + j] * a_step + i, rows - i);
                poison = v_add(v_sub(weight, weight), poison);
            }
        if (v_poison(poison) != 0)
            return 0;
    }
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int v = 0; v < vectors; v++) {
            real *place = c + i * c_row + v * LANES;
            vec old = !keep ? v_set(0) : partial ? v_load_first(place, (int)some) : v_load(place);
            vec total = keep ? v_fma(gain, sum[i][v], old) : v_mul(gain, sum[i][v]);
            if (partial)
                v_store_first(place, total, (int)some);
            else
                v_store(place, total);
        }
    return 1;
}

/* Gives back how many rows are done: those before a block that is not finite. */
#define BLOCKS(height, vectors, partial, listed) \
    for (; rows - i >= height; i += height) \
        if (!block(height, vectors, listed, c + i * c_row, c_row, a + i * a_row, a_row, a_step, b, b_row, depth, alpha, \
                   keep, partial, some, list)) \
            return i;
#define COLUMN(name, vectors, partial, listed) \
    NOINLINE int64_t name(real *restrict c, ptrdiff_t c_row, const real *restrict a, ptrdiff_t a_row, ptrdiff_t a_step, \
                          const real *restrict b, ptrdiff_t b_row, int64_t rows, int64_t depth, real alpha, int keep, \
                          int64_t some, const int64_t *restrict list) { \
        int64_t i = 0; \
        (void)some; \
        BLOCKS(BLOCK_A, vectors, partial, listed) \
        BLOCKS(BLOCK_B, vectors, partial, listed) \
        BLOCKS(BLOCK_C, vectors, partial, listed) \
        BLOCKS(1, vectors, partial, listed) \
        return i; \
    }
COLUMN(column_of_two, 2, 0, 0)
COLUMN(column_of_one, 1, 0, 0)
COLUMN(column_of_some, 1, 1, 0)
COLUMN(listed_column_of_two, 2, 0, 1)
COLUMN(listed_column_of_one, 1, 0, 1)

/* C (rows, columns) = alpha A B (+ C if keep), A[i, k] = a[i a_row + k a_step]; C overlaps neither A nor B. */
NOINLINE void backward(real *restrict c, ptrdiff_t c_row, const real *restrict a, ptrdiff_t a_row, ptrdiff_t a_step,
                       const real *restrict b, ptrdiff_t b_row, int64_t rows, int64_t depth, int64_t columns, real alpha,
                       int keep) {
    while (rows == 1 && columns >= 8 * LANES) {
        block(1, 8, 0, c, c_row, a, a_row, a_step, b, b_row, depth, alpha, keep, 0, 0, 0);
        c += 8 * LANES, b += 8 * LANES, columns -= 8 * LANES;
    }
    while (columns > 0) {
        int64_t width = columns >= 2 * LANES ? 2 * LANES : columns >= LANES ? LANES : columns;
        if (width == 2 * LANES)
            column_of_two(c, c_row, a, a_row, a_step, b, b_row, rows, depth, alpha, keep, 0, 0);
        else if (width == LANES)
            column_of_one(c, c_row, a, a_row, a_step, b, b_row, rows, depth, alpha, keep, 0, 0);
        else
            column_of_some(c, c_row, a, a_row, a_step, b, b_row, rows, depth, alpha, keep, width, 0);
        c += width, b += width, columns -= width;
    }
}

/* Blocks of up to 32 steps of CHAINS: long enough to pay for adding the chains up, short enough for the first cache. */
INLINE int64_t chain_blocks(int64_t depth) { return depth < CHAINS ? 1 : (depth / CHAINS + 31) / 32; }

INLINE int64_t chain_block(int64_t depth, int64_t index, int64_t blocks) { /* where block `index` begins */
    return index == blocks ? depth : depth / CHAINS * index / blocks * CHAINS;
}

#include "chunks.h"

/* out (rows, lanes) = alpha W^T s (+ out if keep) for a tile s (depth, lanes), W (depth, rows), lanes a multiple of LANES;
 * `list` tells which rows of s are not zero (list_chain in zeros.h), or is NULL; `room` holds (rows, lanes). */
INLINE void backward_tile(real *restrict out, ptrdiff_t lanes, const real *restrict w, const real *restrict s,
                          int64_t rows, int64_t depth, real alpha, int keep, const int64_t *restrict list,
                          real *restrict room) {
    if (CHUNK != 0 && depth > DEEP) {
        backward_chunks(out, lanes, w, s, rows, depth, alpha, keep, list, room);
        return;
    }
    for (ptrdiff_t at = 0, width; list && at < lanes; at += width) {
        int64_t done;
        width = lanes - at >= 2 * LANES ? 2 * LANES : LANES;
        done = (width > LANES ? listed_column_of_two : listed_column_of_one)(
            out + at, lanes, w, 1, rows, s + at, lanes, rows, depth, alpha, keep, 0, list);
        backward(out + at + done * lanes, lanes, w + done, 1, rows, s + at, lanes, rows - done, depth, width, alpha, keep);
    }
    if (!list)
        backward(out, lanes, w, 1, rows, s, lanes, rows, depth, lanes, alpha, keep);
}

/* -- forward ------------------------------------------------------------------------------------------------------- */

enum { FORWARD_B = FORWARD_A - 1, LOW = CHUNK ? 24 : 0 }; /* so few rows are not worth copying those of s */

INLINE void clear_chains(const int rows, const int vectors, vec chain[][2]) {
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int v = 0; v < vectors; v++)
            chain[i][v] = v_set(0);
}

/* chain += a column of w times a row of s. */
INLINE void add_product(const int rows, const int vectors, vec chain[][2], const real *w, ptrdiff_t w_row, const real *s) {
    vec column[2];
    UNROLL for (int v = 0; v < vectors; v++)
        column[v] = v_load(s + v * LANES);
    UNROLL for (int i = 0; i < rows; i++) {
        vec weight = v_set(w[i * w_row]);
        UNROLL for (int v = 0; v < vectors; v++)
            chain[i][v] = v_fma(weight, column[v], chain[i][v]);
    }
}

INLINE void add_chains(const int rows, const int vectors, vec total[][2], vec chain[][2]) {
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int v = 0; v < vectors; v++)
            total[i][v] = v_add(total[i][v], chain[i][v]);
}

INLINE void add_totals(const int rows, const int vectors, real *out, ptrdiff_t lanes, vec total[][2]) {
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int v = 0; v < vectors; v++) {
            real *place = out + i * lanes + v * LANES;
            v_store(place, v_add(v_load(place), total[i][v]));
        }
}

/* `ordered`: the rows of s lie in the order in which they are met, see chunks.h. */
INLINE int forward_block(const int rows, const int vectors, const int ordered, real *out, ptrdiff_t lanes, const real *w,
                         ptrdiff_t w_row, const real *s, int64_t depth, const int64_t *list) {
    vec total[FORWARD_A][2], chain[FORWARD_A][2];
    int64_t blocks = chain_blocks(depth);
    const real *met = s;
    (void)list;
    clear_chains(rows, vectors, total);
    for (int64_t index = 0; index < blocks; index++) {
        int64_t begin = chain_block(depth, index, blocks), end = chain_block(depth, index + 1, blocks);
        int64_t chains = end - begin < CHAINS ? end - begin : CHAINS;
        for (int64_t first = begin; first < begin + chains; first++) {
            clear_chains(rows, vectors, chain);
            if (ordered)
                prefetch_rows(rows, w + rows * w_row + begin, w_row, end - begin, first - begin);
            for (int64_t k = first; k < end; k += CHAINS, met += vectors * LANES)
                add_product(rows, vectors, chain, w + k, w_row, ordered ? met : s + k * lanes);
            add_chains(rows, vectors, total, chain);
        }
    }
    add_totals(rows, vectors, out, lanes, total);
    return 1;
}

/* The same of those rows of s alone that are in `list` (list_chains in zeros.h), unless a weight is not finite: then 0.
 * Each is tested, as weight - weight = 0, a few between two chains: the adders idle there. */
INLINE int listed_block(const int rows, const int vectors, const int ordered, real *out, ptrdiff_t lanes, const real *w,
                        ptrdiff_t w_row, const real *s, int64_t depth, const int64_t *list) {
    vec total[FORWARD_A][2], chain[FORWARD_A][2], poison[2] = {v_set(0), v_set(0)};
    int64_t chains = chain_blocks(depth) * (depth < CHAINS ? depth : CHAINS), tested = 0;
    const int64_t share = (depth / (chains * LANES) + 1) * LANES;
    const real *met = s;
    clear_chains(rows, vectors, total);
    for (; chains > 0; chains--) {
        for (int64_t end = tested + share; tested < end && tested < depth; tested += LANES) {
            int64_t k = tested < depth - LANES ? tested : depth - LANES;
            UNROLL for (int i = 0; i < rows; i++) {
                vec weight = v_load(w + i * w_row + k);
                if (AHEAD)
                    PREFETCH(w + (rows + i) * w_row + k);
                poison[i % 2] = v_add(v_sub(weight, weight), poison[i % 2]);
            }
        }
        clear_chains(rows, vectors, chain);
        for (int64_t count = *list++; count > 0; count--, list++, met += vectors * LANES)
            add_product(rows, vectors, chain, w + *list, w_row, ordered ? met : s + *list * lanes);
        add_chains(rows, vectors, total, chain);
    }
    if (v_poison(v_add(poison[0], poison[1])) != 0)
        return 0;
    add_totals(rows, vectors, out, lanes, total);
    return 1;
}

/* Gives back how many rows are done: those before a block that is not finite. Single rows would wait for their sums: as many
 * blocks are a row lower as leave none. */
#define FORWARD_BLOCKS(height, end, vectors, ordered, make) \
    for (; end - i >= height; i += height) \
        if (!make(height, vectors, ordered, out + i * lanes, lanes, w + i * w_row, w_row, s, depth, list)) \
            return i;
#define FORWARD(name, vectors, ordered, make) \
    NOINLINE int64_t name(real *restrict out, ptrdiff_t lanes, const real *restrict w, ptrdiff_t w_row, \
                          const real *restrict s, int64_t rows, int64_t depth, const int64_t *restrict list) { \
        int64_t i = 0, lower = (FORWARD_A - rows % FORWARD_A) % FORWARD_A * FORWARD_B; \
        lower = lower <= rows ? lower : 0; \
        FORWARD_BLOCKS(FORWARD_B, lower, vectors, ordered, make) \
        FORWARD_BLOCKS(FORWARD_A, rows, vectors, ordered, make) \
        FORWARD_BLOCKS(1, rows, vectors, ordered, make) \
        return i; \
    }
FORWARD(forward_two, 2, CHUNK != 0, forward_block)
FORWARD(forward_one, 1, CHUNK != 0, forward_block)
FORWARD(low_two, 2, 0, forward_block)
FORWARD(low_one, 1, 0, forward_block)
FORWARD(listed_two, 2, CHUNK != 0, listed_block)
FORWARD(listed_one, 1, CHUNK != 0, listed_block)

/* out (rows, lanes) += W s for a tile s (depth, lanes), lanes a multiple of LANES; `list` tells which rows of s are not
 * zero, or is NULL; `room` holds (depth, lanes). */
INLINE void forward_tile(real *restrict out, ptrdiff_t lanes, const real *restrict w, ptrdiff_t w_row,
                         const real *restrict s, int64_t rows, int64_t depth, const int64_t *restrict list,
                         real *restrict room) {
    for (ptrdiff_t at = 0, width; at < lanes; at += width) {
        const real *source = s + at, *rest;
        int64_t done = 0, left;
        width = lanes - at >= 2 * LANES ? 2 * LANES : LANES;
        if (list) {
            source = CHUNK ? in_order(room, s + at, lanes, width, depth, list) : source;
            done = (width > LANES ? listed_two : listed_one)(out + at, lanes, w, w_row, source, rows, depth, list);
        }
        left = rows - done, rest = w + done * w_row;
        if (left == 0)
            continue;
        if (left < LOW) {
            (width > LANES ? low_two : low_one)(out + at + done * lanes, lanes, rest, w_row, s + at, left, depth, 0);
            continue;
        }
        source = CHUNK ? in_order(room, s + at, lanes, width, depth, 0) : source;
        (width > LANES ? forward_two : forward_one)(out + at + done * lanes, lanes, rest, w_row, source, left, depth, 0);
    }
}

enum { PARTS = CHAINS / LANES }; /* vectors that hold one row's chains */

/* The chains of `rows` rows over k = begin..end - 1. */
INLINE void dot_rows(const int rows, vec chains[][PARTS], const real *w, ptrdiff_t w_row, const real *s, int64_t begin,
                     int64_t end) {
    vec sum[8][PARTS];
    int64_t k = begin;
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int p = 0; p < PARTS; p++)
            sum[i][p] = v_set(0);
    for (; k + CHAINS <= end; k += CHAINS)
        UNROLL for (int p = 0; p < PARTS; p++) {
            vec x = v_load(s + k + p * LANES);
            UNROLL for (int i = 0; i < rows; i++)
                sum[i][p] = v_fma(v_load(w + i * w_row + k + p * LANES), x, sum[i][p]);
        }
    UNROLL for (int p = 0; p < PARTS; p++)
        if (k + p * LANES < end) {
            int64_t some = end - k - p * LANES;
            vec x = v_load_some(s + k + p * LANES, some);
            UNROLL for (int i = 0; i < rows; i++)
                sum[i][p] = v_fma(v_load_some(w + i * w_row + k + p * LANES, some), x, sum[i][p]);
        }
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int p = 0; p < PARTS; p++)
            chains[i][p] = sum[i][p];
}

/* out (rows) += W s for a single sample s (depth): forward_tile to the same bits. */
NOINLINE void forward_single(real *restrict out, const real *restrict w, ptrdiff_t w_row, const real *restrict s,
                             int64_t rows, int64_t depth) {
    int64_t blocks = chain_blocks(depth);
    for (int64_t i = 0; i < rows; i += LANES) {
        int64_t count = rows - i < LANES ? rows - i : LANES;
        vec total = v_set(0);
        for (int64_t index = 0; index < blocks; index++) {
            int64_t begin = chain_block(depth, index, blocks), end = chain_block(depth, index + 1, blocks), r = 0;
            vec chains[LANES][PARTS];
            const real *row = w + i * w_row;
            for (; count - r >= DOT_ROWS; r += DOT_ROWS)
                dot_rows(DOT_ROWS, chains + r, row + r * w_row, w_row, s, begin, end);
            for (; count - r >= 2; r += 2)
                dot_rows(2, chains + r, row + r * w_row, w_row, s, begin, end);
            for (; r < count; r++)
                dot_rows(1, chains + r, row + r * w_row, w_row, s, begin, end);
            for (; r < LANES; r++)
                UNROLL for (int p = 0; p < PARTS; p++)
                    chains[r][p] = v_set(0);
            UNROLL for (int p = 0; p < PARTS; p++) { /* lanes become rows, and the chains add up */
                vec lane[LANES];
                UNROLL for (int j = 0; j < LANES; j++)
                    lane[j] = chains[j][p];
                v_transpose(lane);
                UNROLL for (int j = 0; j < LANES; j++)
                    total = v_add(total, lane[j]);
            }
        }
        v_store_some(out + i, v_add(v_load_some(out + i, count), total), count);
    }
}

/* -- between samples-first and features-first ---------------------------------------------------------------------- */

INLINE void transpose_square(real *restrict out, ptrdiff_t out_row, const real *restrict source, ptrdiff_t source_row) {
    vec square[LANES];
    UNROLL for (int r = 0; r < LANES; r++)
        square[r] = v_load(source + r * source_row);
    v_transpose(square);
    UNROLL for (int r = 0; r < LANES; r++)
        v_store(out + r * out_row, square[r]);
}

/* out[j, i] = source[i, j] for i < rows, j < columns: whole lines of `out` at a time, since its rows, some kilobytes apart,
 * displace each other. */
NOINLINE void transpose(real *restrict out, ptrdiff_t out_row, const real *restrict source, ptrdiff_t source_row,
                        int64_t rows, int64_t columns) {
    int64_t whole_rows = rows / LANES * LANES, whole_columns = columns / LANES * LANES;
    for (int64_t i = 0; i < whole_rows; i += CHAINS)
        for (int64_t j = 0; j < whole_columns; j += LANES)
            for (int64_t k = i; k < i + CHAINS && k < whole_rows; k += LANES)
                transpose_square(out + j * out_row + k, out_row, source + k * source_row + j, source_row);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = i < whole_rows ? whole_columns : 0; j < columns; j++)
            out[j * out_row + i] = source[i * source_row + j];
}
