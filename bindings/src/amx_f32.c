/* Products of split factors by AMX: tdpbf16ps multiplies blocks of 16 rows x 16 pairs by 16 pairs x 16 samples.
 *
 * Tested on hardware (Emerald Rapids), and elsewhere through an emulation of its instructions in C (tests/shim/amx.h).
 */
#include "check.h"
#if EQK_HAS_BF16X3
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("amx-tile,amx-bf16,avx512f,avx512dq,avx512bw,avx512bf16,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC target("amx-tile,amx-bf16,avx512f,avx512dq,avx512bw,avx512bf16,avx2,fma")
#endif
#include "bf16x3.h"

#define WRITTEN __asm__ volatile("" ::: "memory")

/* Whole blocks in all tiles: palette 1, 16 rows of 64 bytes. */
static void configure(void) {
    static const struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shapes = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
    _tile_loadconfig(&shapes);
}

/* C of up to 2 x 2 blocks, in tiles 0..3, from rows of A in tiles 4 and 5 and states in 6 and 7: eight loads for twelve
 * products. Of the rows the first `rows` are wanted. */
INLINE void square(const int tall, const int wide, real *out, int64_t lanes, const word *a, int64_t length,
                   const word *high, const word *low, int64_t depth, int64_t rows, real alpha, int keep) {
    real sums[4][BLOCK_ROWS * LANES];
    const size_t width = BLOCK_PAIRS * sizeof(word), row = (size_t)lanes * sizeof(word);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
#define PRODUCTS \
    do { \
        _tile_dpbf16ps(0, 4, 6); \
        if (wide) \
            _tile_dpbf16ps(1, 4, 7); \
        if (tall) \
            _tile_dpbf16ps(2, 5, 6); \
        if (tall && wide) \
            _tile_dpbf16ps(3, 5, 7); \
    } while (0)
#define LOAD_WEIGHTS(from) \
    do { \
        _tile_loadd(4, from, width); \
        if (tall) \
            _tile_loadd(5, (from) + length, width); \
    } while (0)
#define LOAD_STATES(from) \
    do { \
        _tile_loadd(6, from, row); \
        if (wide) \
            _tile_loadd(7, (from) + LANES, row); \
    } while (0)
    for (int64_t k = 0; k < depth; k += BLOCK_DEPTH) {
        LOAD_WEIGHTS(a + BLOCK);
        LOAD_STATES(high);
        PRODUCTS;
        LOAD_WEIGHTS(a);
        PRODUCTS;
        LOAD_STATES(low);
        PRODUCTS;
        a += 2 * BLOCK, high += BLOCK_PAIRS * lanes, low += BLOCK_PAIRS * lanes;
    }
#undef PRODUCTS
#undef LOAD_WEIGHTS
#undef LOAD_STATES
    _tile_stored(0, sums[0], width);
    _tile_stored(1, sums[1], width);
    _tile_stored(2, sums[2], width);
    _tile_stored(3, sums[3], width);
    for (int64_t i = 0; i < (tall ? 2 : 1) * BLOCK_ROWS && i < rows; i++)
        for (int v = 0; v < (wide ? 2 : 1); v++) {
            vec sum = v_load(sums[i / BLOCK_ROWS * 2 + v] + i % BLOCK_ROWS * LANES);
            put_sum(out + i * lanes + v * LANES, sum, alpha, keep);
        }
}

static void multiply(real *out, int64_t lanes, const word *a, const word *s, int64_t rows, int64_t depth, real alpha,
                     int keep) {
    int64_t length = packed_numbers(BLOCK_ROWS, depth);
    const word *low = s + round_up(depth, BLOCK_DEPTH) / 2 * lanes;
    WRITTEN; /* compilers do not know that loading a tile reads memory */
    for (int64_t i = 0; i < rows; i += 2 * BLOCK_ROWS, out += 2 * BLOCK_ROWS * lanes, a += 2 * length) {
        int64_t some = rows - i;
        if (some > BLOCK_ROWS && lanes == 2 * LANES)
            square(1, 1, out, lanes, a, length, s, low, depth, some, alpha, keep);
        else if (some > BLOCK_ROWS)
            square(1, 0, out, lanes, a, length, s, low, depth, some, alpha, keep);
        else if (lanes == 2 * LANES)
            square(0, 1, out, lanes, a, length, s, low, depth, some, alpha, keep);
        else
            square(0, 0, out, lanes, a, length, s, low, depth, some, alpha, keep);
    }
}

/* The tiles are a thread's own: they are taken for a phase, and given back. */
static void tiled_free_phase(const JOB *job, int64_t index, int64_t place) {
    configure();
    free_phase(job, index, place);
    _tile_release();
}

static void tiled_nudged_phase(const JOB *job, int64_t index, int64_t place) {
    configure();
    nudged_phase(job, index, place);
    _tile_release();
}

const eqk_phases_f32 eqk_bf16x3_amx = {pack_weights, tiled_free_phase, tiled_nudged_phase};
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int eqk_nothing;
#endif
