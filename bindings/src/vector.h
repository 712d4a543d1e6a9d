/* The vectors that all kernels are written on: `vec` holds LANES numbers of type `real`.
 *
 * Each variant is the same kernels compiled on another of the three headers below. vector_scalar.h, where a vector is a
 * single number, says what every operation means; the others must give the same bits, which tests hold them to.
 */
#ifndef VECTOR_H
#define VECTOR_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))
#define PREFETCH(p) __builtin_prefetch(p)
#define PREFETCH_SOON(p) __builtin_prefetch(p, 0, 2) /* not now: into the second cache */
#else
#define INLINE static inline
#define NOINLINE static
#define PREFETCH(p) ((void)(p))
#define PREFETCH_SOON(p) ((void)(p))
#endif
#if defined(__GNUC__) && !defined(__clang__) /* clang unrolls loops of constant length by itself */
#define UNROLL _Pragma("GCC unroll 32")
#else
#define UNROLL
#endif

#if REAL_BITS == 32
typedef float real;
#else
typedef double real;
#endif

enum {
    CHAINS = 64 / sizeof(real), /* partial sums that a forward product keeps, see gemm.h */
    WIDTH = 2 * CHAINS          /* samples in a full tile */
};

#if defined(VARIANT_AVX512)
#include "vector_avx512.h"
#elif defined(VARIANT_AVX2)
#include "vector_avx2.h"
#else
#include "vector_scalar.h"
#endif

#if defined(__GNUC__)
INLINE int lowest_bit(uint64_t word) { return __builtin_ctzll(word); } /* its place; word is not 0 */
INLINE int count_bits(uint64_t word) { return __builtin_popcountll(word); }
#else
INLINE int lowest_bit(uint64_t word) {
    int place = 0;
    for (; !(word & 1); word >>= 1)
        place++;
    return place;
}
INLINE int count_bits(uint64_t word) {
    int count = 0;
    for (; word; word >>= 1)
        count += word & 1;
    return count;
}
#endif

/* What was loaded is used more than once: the compiler is not to load it every time. */
INLINE vec v_loaded(vec a) {
#if LANES > 1 && defined(__GNUC__)
    __asm__("" : "+v"(a));
#endif
    return a;
}

/* All LANES at p, or the first n of them, n > 0; missing lanes are 0. */
INLINE vec v_load_some(const real *p, int64_t n) { return n >= LANES ? v_load(p) : v_load_first(p, (int)n); }

INLINE void v_store_some(real *p, vec a, int64_t n) {
    if (n >= LANES)
        v_store(p, a);
    else
        v_store_first(p, a, (int)n);
}

/* A bit for each of n <= 64 numbers that is not 0. */
INLINE uint64_t nonzero_bits(const real *a, int64_t n) {
    uint64_t word = 0;
    for (int64_t i = 0; i < n; i += LANES)
        word |= (uint64_t)v_nonzero(v_load_some(a + i, n - i)) << i;
    return word;
}

#endif
