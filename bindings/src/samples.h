/* Products of a tile sample by sample (BY_SAMPLES): a row of its states is seldom zero in all lanes, but half of its numbers
 * are. What is left of a sample meets rows of W, of which a chunk is packed for all samples; see zeros.h. Each sum
 * is one chain over the rows in order, as in backward_tile, to the same bits.
 */

/* Whether to leave out all zeros of a tile s (depth, lanes) takes less than to leave out its rows of zeros, so that `count`
 * are left: measured, in steps of a vector of sums. */
INLINE int go_by_samples(const real *s, int64_t count, int64_t depth, ptrdiff_t lanes) {
    double left = BY_SAMPLES ? count_left(s, depth * lanes) : -1;
    return left >= 0 && 1.125 * left + 4 * (double)depth < (double)(count * lanes);
}

/* out (rows, lanes) = alpha W^T s (+ out if keep), W (depth, rows), unless a weight is not finite: then 0, and out is to be
 * computed otherwise. `room` holds (rows, lanes) and a listing. */
static int backward_samples(real *restrict out, ptrdiff_t lanes, const real *restrict w, const real *restrict s,
                            int64_t rows, int64_t depth, real alpha, int keep, real *restrict room) {
    side samples = {s, 0, lanes, depth, 0, lanes}, columns = {w, 0, rows, depth, 0, rows};
    listing l = listing_in(room + round_up(rows, CHAINS) * lanes, &samples, &columns, 1, depth, GROUP);
    const int64_t chunks = chunks_in(rows, SPAN);
    real *place = keep ? room : out;
    vec poison = v_set(0);
    list_units(&l, 0, lanes);
    for (int64_t i = 0; i < chunks; i++) {
        const stretch c = chunk_of(rows, chunks, i);
        const int64_t pitch = c.wide * LANES;
        for (int64_t block = 0; block < l.blocks; block++) {
            uint64_t live = pack_chunk(&l, 0, c, block, &poison);
            for (int64_t j = 0; j < lanes;)
                j += sum_units(&l, block, j, lanes - j, live, c.wide, l.sums + j * pitch, pitch, 1);
        }
        transpose(place + c.at * lanes, lanes, l.sums, pitch, lanes, c.some);
    }
    if (v_poison(poison) == 0)
        scale_sums(out, place, rows * lanes, alpha, keep);
    return v_poison(poison) == 0;
}
