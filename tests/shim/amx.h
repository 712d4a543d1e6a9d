/* The tile instructions of AMX in C, for tests on processors without them: forced in (-include) before precision.c and
 * amx_f32.c, whose text stays as it is. Semantics, and what is a fault: Intel 64 and IA-32 SDM, volume 2 (LDTILECFG,
 * TILELOADD, TILESTORED, TDPBF16PS) and volume 1, chapter 18. A fault ends the process.
 */
#define _DEFAULT_SOURCE
#include <cpuid.h>
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SHARED __attribute__((weak, visibility("hidden"))) /* one for both files */

SHARED int amx_permitted;
SHARED __thread struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} amx_shape;
SHARED __thread uint8_t amx_tile[8][16][64];

#define FAULT_UNLESS(condition) \
    do { \
        if (!(condition)) \
            abort(); \
    } while (0)
#define IN_USE(tile) (amx_shape.palette == 1 && (tile) < 8 && amx_shape.rows[tile] && amx_shape.bytes[tile])

/* cpuid of a processor that has AMX-BF16 and AMX-TILE besides what this one has. */
__attribute__((unused)) static int amx_cpuid(unsigned leaf, unsigned subleaf, unsigned *a, unsigned *b, unsigned *c,
                                             unsigned *d) {
    int known = __get_cpuid_count(leaf, subleaf, a, b, c, d);
    if (leaf == 7 && subleaf == 0)
        *d |= 1u << 22 | 1u << 24;
    return known;
}

/* Linux lends the registers to who asks with ARCH_REQ_XCOMP_PERM for feature 18. */
__attribute__((unused)) static long amx_syscall(long number, long code, long feature) {
    if (number != SYS_arch_prctl || code != 0x1023 || feature != 18)
        return -1;
    amx_permitted = 1;
    return 0;
}

__attribute__((unused)) static void amx_loadconfig(const void *config) {
    FAULT_UNLESS(amx_permitted);
    memcpy(&amx_shape, config, sizeof amx_shape);
    FAULT_UNLESS(sizeof amx_shape == 64 && amx_shape.palette == 1 && amx_shape.start == 0);
    for (int i = 0; i < 14; i++)
        FAULT_UNLESS(amx_shape.reserved[i] == 0);
    for (int i = 0; i < 16; i++) {
        FAULT_UNLESS(i < 8 || (!amx_shape.rows[i] && !amx_shape.bytes[i]));
        FAULT_UNLESS(amx_shape.rows[i] <= 16 && amx_shape.bytes[i] <= 64);
        FAULT_UNLESS(!amx_shape.rows[i] == !amx_shape.bytes[i]);
    }
    memset(amx_tile, 0, sizeof amx_tile);
}

__attribute__((unused)) static void amx_release(void) { memset(&amx_shape, 0, sizeof amx_shape); }

__attribute__((unused)) static void amx_zero(int tile) {
    FAULT_UNLESS(IN_USE(tile));
    memset(amx_tile[tile], 0, sizeof amx_tile[tile]);
}

__attribute__((unused)) static void amx_loadd(int tile, const void *base, ptrdiff_t stride) {
    FAULT_UNLESS(IN_USE(tile));
    memset(amx_tile[tile], 0, sizeof amx_tile[tile]);
    for (int r = 0; r < amx_shape.rows[tile]; r++)
        memcpy(amx_tile[tile][r], (const char *)base + r * stride, amx_shape.bytes[tile]);
}

__attribute__((unused)) static void amx_stored(int tile, void *base, ptrdiff_t stride) {
    FAULT_UNLESS(IN_USE(tile));
    for (int r = 0; r < amx_shape.rows[tile]; r++)
        memcpy((char *)base + r * stride, amx_tile[tile][r], amx_shape.bytes[tile]);
}

/* Denormals are taken, and given, for zero. */
#define FLUSHED(x) ((x) < 0x1p-126f && (x) > -0x1p-126f ? 0 : (x))

static float amx_number(const uint8_t *bfloat16) {
    uint32_t bits = (uint32_t)bfloat16[0] << 16 | (uint32_t)bfloat16[1] << 24;
    float x;
    memcpy(&x, &bits, sizeof x);
    return FLUSHED(x);
}

/* c (M x N floats) += a (M x K pairs) b (K x N pairs): sums of even and of odd places apart, from 0, then both. */
#ifndef __clang__
__attribute__((optimize("O2"), target("fma")))
#endif
__attribute__((unused)) static void amx_dpbf16ps(int c, int a, int b) {
    int rows = amx_shape.rows[c], depth = amx_shape.rows[b], columns = amx_shape.bytes[c] / 4;
    float y[16][2][16], out[16];
    FAULT_UNLESS(IN_USE(a) && IN_USE(b) && IN_USE(c) && a != b && b != c && a != c);
    FAULT_UNLESS(rows == amx_shape.rows[a] && amx_shape.bytes[c] == amx_shape.bytes[b]);
    FAULT_UNLESS(amx_shape.bytes[a] % 4 == 0 && amx_shape.bytes[b] % 4 == 0 && amx_shape.bytes[a] / 4 == depth);
    for (int k = 0; k < depth; k++)
        for (int half = 0; half < 2; half++)
            for (int n = 0; n < columns; n++)
                y[k][half][n] = amx_number(amx_tile[b][k] + 4 * n + 2 * half);
    for (int m = 0; m < rows; m++) {
        float sum[2][16] = {{0}};
        for (int k = 0; k < depth; k++)
            for (int half = 0; half < 2; half++) {
                float x = amx_number(amx_tile[a][m] + 4 * k + 2 * half);
                for (int n = 0; n < columns; n++) {
                    float total = fmaf(x, y[k][half][n], sum[half][n]);
                    sum[half][n] = FLUSHED(total);
                }
            }
        memcpy(out, amx_tile[c][m], sizeof out);
        for (int n = 0; n < columns; n++) {
            float both = sum[0][n] + sum[1][n], total = FLUSHED(out[n]) + FLUSHED(both);
            out[n] = FLUSHED(total);
        }
        memcpy(amx_tile[c][m], out, sizeof out);
    }
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig amx_loadconfig
#define _tile_release amx_release
#define _tile_zero amx_zero
#define _tile_loadd amx_loadd
#define _tile_stored amx_stored
#define _tile_dpbf16ps amx_dpbf16ps
#define __get_cpuid_count amx_cpuid
#define syscall amx_syscall
