/* Floats as sums of two bfloat16: x = high + low + rest, high = x rounded to bfloat16, low = x - high rounded likewise.
 *
 * Rounded to nearest, high errs by at most u = 2^-8 of x and low by u^2, so that
 *
 *     w s ~ w_high s_high + w_high s_low + w_low s_high      within 3 u^2 = 3 2^-16 of |w s|:
 *
 * w_low s_low, and the two rests, are left out. Below 2^-126 the instructions take numbers for zero.
 *
 * Both kinds of instructions multiply pairs of numbers, those of k = 2 p and 2 p + 1 side by side in a word of 32 bits:
 *
 *     a matrix   blocks of 16 rows x 16 pairs, first the high parts, then the low ones; along k first, then the rows
 *     states     row p, lane b: the pair of sample b; all high parts, then all low ones
 *
 * both filled up with zeros to whole blocks.
 */
typedef uint32_t word; /* a pair, that of the even k in the lower half */
enum { BLOCK = BLOCK_ROWS * BLOCK_PAIRS };

/* The numbers of half a register of bfloat16, as floats. */
INLINE vec widened(__m256i half) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16)); }

/* a, then b, in two parts. */
INLINE void split(vec a, vec b, __m512i *high, __m512i *low) {
    *high = (__m512i)_mm512_cvtne2ps_pbh(b, a);
    a = v_sub(a, widened(_mm512_castsi512_si256(*high)));
    b = v_sub(b, widened(_mm512_extracti64x4_epi64(*high, 1)));
    *low = (__m512i)_mm512_cvtne2ps_pbh(b, a);
}

/* Lane i: the pair a_i, b_i, in two parts. */
INLINE void split_pairs(vec a, vec b, __m512i *high, __m512i *low) {
    static const uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                       8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    split(a, b, high, low);
    *high = _mm512_permutexvar_epi16(_mm512_loadu_si512(order), *high);
    *low = _mm512_permutexvar_epi16(_mm512_loadu_si512(order), *low);
}

/* The states s (depth, lanes) of a tile. */
static void split_states(word *out, const real *s, int64_t depth, int64_t lanes) {
    int64_t pairs = round_up(depth, BLOCK_DEPTH) / 2;
    for (int64_t p = 0; p < pairs; p++)
        for (int64_t b = 0; b < lanes; b += LANES) {
            vec even = 2 * p < depth ? v_load(s + 2 * p * lanes + b) : v_set(0);
            vec odd = 2 * p + 1 < depth ? v_load(s + (2 * p + 1) * lanes + b) : v_set(0);
            __m512i high, low;
            split_pairs(even, odd, &high, &low);
            _mm512_storeu_si512(out + p * lanes + b, high);
            _mm512_storeu_si512(out + (pairs + p) * lanes + b, low);
        }
}

/* The first n of LANES numbers, zeros beyond; n may be negative. */
INLINE vec first_of(const real *p, int64_t n) { return n <= 0 ? v_set(0) : v_load_some(p, n); }

/* Rows first..first + 15 of W (rows, depth), whose blocks begin at `out`. */
static void pack_rows(word *out, const real *w, int64_t rows, int64_t depth, int64_t first) {
    for (int64_t k = 0; k < depth; k += BLOCK_DEPTH, out += 2 * BLOCK)
        for (int64_t i = 0; i < BLOCK_ROWS; i++) {
            int64_t some = first + i < rows ? depth - k : 0;
            const real *row = w + (first + i) * depth + k;
            __m512i high, low;
            split(first_of(row, some), first_of(row + LANES, some - LANES), &high, &low);
            _mm512_storeu_si512(out + i * BLOCK_PAIRS, high);
            _mm512_storeu_si512(out + BLOCK + i * BLOCK_PAIRS, low);
        }
}

/* The same of the transpose of W (depth, rows). */
static void pack_columns(word *out, const real *w, int64_t rows, int64_t depth, int64_t first) {
    for (int64_t k = 0; k < depth; k += BLOCK_DEPTH, out += 2 * BLOCK) {
        vec highs[BLOCK_PAIRS], lows[BLOCK_PAIRS];
        for (int64_t p = 0; p < BLOCK_PAIRS; p++) {
            const real *row = w + (k + 2 * p) * rows + first;
            int64_t even = k + 2 * p < depth ? rows - first : 0, odd = k + 2 * p + 1 < depth ? rows - first : 0;
            __m512i high, low;
            split_pairs(first_of(row, even), first_of(row + rows, odd), &high, &low);
            highs[p] = _mm512_castsi512_ps(high), lows[p] = _mm512_castsi512_ps(low);
        }
        v_transpose(highs);
        v_transpose(lows);
        for (int64_t i = 0; i < BLOCK_ROWS; i++) {
            _mm512_storeu_ps((float *)out + i * BLOCK_PAIRS, highs[i]);
            _mm512_storeu_ps((float *)out + BLOCK + i * BLOCK_PAIRS, lows[i]);
        }
    }
}
