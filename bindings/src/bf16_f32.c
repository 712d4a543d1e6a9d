/* Products of split factors by AVX512-BF16: vdpbf16ps multiplies and adds 16 pairs. */
#include "check.h"
#if EQK_HAS_BF16X3
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512bf16,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512bf16,avx2,fma")
#endif
#include "bf16x3.h"

enum { HALF = BLOCK_ROWS / 2 }; /* rows of sums: with two vectors each, half of the registers */

INLINE vec add_pairs(vec sum, __m512i a, __m512i b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }

/* HALF rows of which the first `rows` are wanted. */
INLINE void dot_pairs(const int vectors, real *out, int64_t lanes, const word *a, const word *high, const word *low,
                      int64_t pairs, int64_t rows, real alpha, int keep) {
    vec sum[HALF][2];
    UNROLL for (int i = 0; i < HALF; i++)
        UNROLL for (int v = 0; v < vectors; v++)
            sum[i][v] = v_set(0);
    for (int64_t first = 0; first < pairs; first += BLOCK_PAIRS, a += 2 * BLOCK)
        for (int64_t p = 0; p < BLOCK_PAIRS && first + p < pairs; p++, high += lanes, low += lanes) {
            __m512i s_high[2], s_low[2];
            UNROLL for (int v = 0; v < vectors; v++) {
                s_high[v] = _mm512_loadu_si512(high + v * LANES);
                s_low[v] = _mm512_loadu_si512(low + v * LANES);
            }
            UNROLL for (int i = 0; i < HALF; i++) {
                __m512i w_high = _mm512_set1_epi32((int)a[i * BLOCK_PAIRS + p]);
                __m512i w_low = _mm512_set1_epi32((int)a[BLOCK + i * BLOCK_PAIRS + p]);
                UNROLL for (int v = 0; v < vectors; v++) {
                    sum[i][v] = add_pairs(sum[i][v], w_low, s_high[v]);
                    sum[i][v] = add_pairs(sum[i][v], w_high, s_high[v]);
                    sum[i][v] = add_pairs(sum[i][v], w_high, s_low[v]);
                }
            }
        }
    for (int i = 0; i < HALF && i < rows; i++)
        UNROLL for (int v = 0; v < vectors; v++)
            put_sum(out + i * lanes + v * LANES, sum[i][v], alpha, keep);
}

static void multiply(real *out, int64_t lanes, const word *a, const word *s, int64_t rows, int64_t depth, real alpha,
                     int keep) {
    int64_t pairs = (depth + 1) / 2, length = packed_numbers(BLOCK_ROWS, depth);
    const word *low = s + round_up(depth, BLOCK_DEPTH) / 2 * lanes;
    for (int64_t i = 0; i < rows; i += HALF) {
        const word *block = a + i / BLOCK_ROWS * length + i % BLOCK_ROWS * BLOCK_PAIRS;
        if (lanes == 2 * LANES)
            dot_pairs(2, out + i * lanes, lanes, block, s, low, pairs, rows - i, alpha, keep);
        else
            dot_pairs(1, out + i * lanes, lanes, block, s, low, pairs, rows - i, alpha, keep);
    }
}

const eqk_phases_f32 eqk_bf16x3_avx512 = {pack_weights, free_phase, nudged_phase};
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int eqk_nothing;
#endif
