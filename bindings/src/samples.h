/* Products of a tile sample by sample (BY_SAMPLES): a row of its states is seldom zero in all lanes, but half of its numbers
 * are. What is left of a sample meets rows of W, of which a chunk is copied together for all samples; see zeros.h. Each sum
 * is one chain over the rows in order, as in backward_tile, to the same bits.
 */

/* Whether leaving out all zeros of a tile, of which `numbers` are left, takes less than leaving out its rows of zeros:
 * measured, in steps of a vector of sums. */
INLINE int are_worth_it(int64_t numbers, int64_t count, int64_t depth, ptrdiff_t lanes) {
    return BY_SAMPLES && 9 * numbers / 8 + 4 * depth < count * lanes;
}

/* Rows of W, `columns` long, side by side in rows of `vectors` vectors; what is not finite poisons. */
INLINE vec copy_rows(real *restrict chunk, const real *restrict w, int64_t columns, int64_t count, int64_t vectors,
                     int64_t rows, vec poison) {
    for (int64_t k = 0; k < rows; k++, w += columns, chunk += vectors * LANES)
        for (int64_t i = 0; i < count; i += LANES) {
            vec weight = v_load_some(w + i, count - i);
            poison = v_add(v_sub(weight, weight), poison);
            v_store(chunk + i, weight);
        }
    return poison;
}

/* out (rows, lanes) = alpha W^T s (+ out if keep), W (depth, rows), unless a weight is not finite: then 0, and out is to be
 * computed otherwise. `room` holds (rows, lanes) and a listing. */
static int backward_samples(real *restrict out, ptrdiff_t lanes, const real *restrict w, const real *restrict s,
                            int64_t rows, int64_t depth, real alpha, int keep, real *restrict room) {
    side samples = {s, 0, lanes, depth, 0, lanes}, columns = {w, 0, rows, depth, 0, rows};
    listing l = listing_in(room + round_up(rows, CHAINS) * lanes, &samples, &columns, 1, depth);
    const int64_t vectors = (rows + LANES - 1) / LANES, chunks = (vectors + SPAN - 1) / SPAN;
    real *place = keep ? room : out;
    vec poison = v_set(0);
    list_units(&l, 0, lanes);
    for (int64_t c = 0; c < chunks; c++) {
        int64_t first = vectors * c / chunks, wide = vectors * (c + 1) / chunks - first, at = first * LANES;
        int64_t pitch = wide * LANES, some = rows - at < pitch ? rows - at : pitch;
        for (int64_t block = 0; block < l.blocks; block++) {
            int64_t k = block * WORD;
            poison = copy_rows(l.chunk, w + k * rows + at, rows, some, wide, in_block(depth, block), poison);
            for (int64_t j = 0; j < lanes;)
                j += sum_units(&l, block, j, lanes - j, ~(uint64_t)0, wide, l.sums + j * pitch, 1);
        }
        transpose(place + at * lanes, lanes, l.sums, pitch, lanes, some);
    }
    if (v_poison(poison) == 0)
        scale_sums(out, place, rows * lanes, alpha, keep);
    return v_poison(poison) == 0;
}
