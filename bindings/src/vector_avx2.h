/* 256-bit vectors: AVX2 and FMA. */
#include <immintrin.h>

#if REAL_BITS == 32
#define LANES 8
#define OP(name) _mm256_##name##_ps
typedef __m256 vec;
#else
#define LANES 4
#define OP(name) _mm256_##name##_pd
typedef __m256d vec;
#endif

static const int32_t v_ones[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

INLINE __m256i v_first(int n) { /* a mask of the first n lanes */
    return _mm256_loadu_si256((const __m256i *)(v_ones + 8 - n * (8 / LANES)));
}
INLINE vec v_set(real x) { return OP(set1)(x); }
INLINE vec v_load(const real *p) { return OP(loadu)(p); }
INLINE void v_store(real *p, vec a) { OP(storeu)(p, a); }
INLINE vec v_load_first(const real *p, int n) { return OP(maskload)(p, v_first(n)); }
INLINE void v_store_first(real *p, vec a, int n) { OP(maskstore)(p, v_first(n), a); }
INLINE vec v_add(vec a, vec b) { return OP(add)(a, b); }
INLINE vec v_sub(vec a, vec b) { return OP(sub)(a, b); }
INLINE vec v_mul(vec a, vec b) { return OP(mul)(a, b); }
INLINE vec v_div(vec a, vec b) { return OP(div)(a, b); }
INLINE vec v_fma(vec a, vec b, vec c) { return OP(fmadd)(a, b, c); }
INLINE vec v_fnma(vec a, vec b, vec c) { return OP(fnmadd)(a, b, c); }
INLINE vec v_sqrt(vec a) { return OP(sqrt)(a); }
INLINE vec v_max(vec a, vec b) { return OP(max)(a, b); }
INLINE vec v_min(vec a, vec b) { return OP(min)(a, b); }
INLINE vec v_abs(vec a) { return OP(andnot)(v_set((real)-0.0), a); }
INLINE vec v_flip(vec a, vec sign) { return OP(xor)(a, OP(and)(sign, v_set((real)-0.0))); }
#if REAL_BITS == 32 /* within each half: b after a, from byte n on */
#define ALIGN(b, a, n) _mm256_castsi256_ps(_mm256_alignr_epi8(_mm256_castps_si256(b), _mm256_castps_si256(a), n))
#else
#define ALIGN(b, a, n) _mm256_castsi256_pd(_mm256_alignr_epi8(_mm256_castpd_si256(b), _mm256_castpd_si256(a), n))
#endif
INLINE vec v_halves(vec a, vec b) { return OP(permute2f128)(a, b, 0x21); } /* the upper of a, the lower of b */
INLINE vec v_from_second(vec a, vec b) { return ALIGN(v_halves(a, b), a, REAL_BITS / 8); }
INLINE vec v_if_larger(vec a, vec b, vec yes, vec no) { return OP(blendv)(no, yes, OP(cmp)(a, b, _CMP_GT_OQ)); }
INLINE vec v_if_equal(vec a, vec b, vec yes, vec no) { return OP(blendv)(no, yes, OP(cmp)(a, b, _CMP_EQ_OQ)); }
#if REAL_BITS == 32
INLINE vec v_keep_first(vec a, int n) { return OP(and)(a, _mm256_castsi256_ps(v_first(n))); }
#else
INLINE vec v_keep_first(vec a, int n) { return OP(and)(a, _mm256_castsi256_pd(v_first(n))); }
#endif
INLINE unsigned v_nonzero(vec a) { return (unsigned)OP(movemask)(OP(cmp)(a, v_set(0), _CMP_NEQ_UQ)); }
INLINE real v_largest(vec a) {
    real lanes[LANES], largest;
    v_store(lanes, a);
    largest = lanes[0];
    for (int i = 1; i < LANES; i++)
        largest = lanes[i] > largest ? lanes[i] : largest;
    return largest;
}
INLINE real v_poison(vec a) {
    real lanes[LANES], sum = 0;
    v_store(lanes, a);
    for (int i = 0; i < LANES; i++)
        sum += lanes[i];
    return sum;
}
#if REAL_BITS == 32
INLINE vec v_bits(vec a) { return _mm256_cvtepi32_ps(_mm256_castps_si256(a)); }
INLINE vec v_of_bits(vec a) { return _mm256_castsi256_ps(_mm256_cvttps_epi32(a)); }
#else /* AVX2 cannot convert 64-bit integers */
INLINE vec v_bits(vec a) {
    int64_t bits[LANES];
    real numbers[LANES];
    memcpy(bits, &a, sizeof a);
    for (int i = 0; i < LANES; i++)
        numbers[i] = (real)bits[i];
    return v_load(numbers);
}
INLINE vec v_of_bits(vec a) {
    int64_t bits[LANES];
    real numbers[LANES];
    v_store(numbers, a);
    for (int i = 0; i < LANES; i++)
        bits[i] = numbers[i] == numbers[i] ? (int64_t)numbers[i] : 0;
    memcpy(&a, bits, sizeof a);
    return a;
}
#endif

/* rows[j] lane i = rows[i] lane j: within 128 bits first, then their halves. */
INLINE void v_transpose(vec *r) {
    enum { PART = LANES / 2 };
    vec t[LANES];
#if REAL_BITS == 32
    UNROLL for (int i = 0; i < LANES; i += 4) {
        __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(r[i], r[i + 1]));
        __m256d b = _mm256_castps_pd(_mm256_unpackhi_ps(r[i], r[i + 1]));
        __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(r[i + 2], r[i + 3]));
        __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(r[i + 2], r[i + 3]));
        t[i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
        t[i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
        t[i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
        t[i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
    }
#else
    UNROLL for (int i = 0; i < LANES; i += 2) {
        t[i] = _mm256_unpacklo_pd(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_pd(r[i], r[i + 1]);
    }
#endif
    UNROLL for (int c = 0; c < PART; c++) {
        r[c] = OP(permute2f128)(t[c], t[PART + c], 0x20);
        r[PART + c] = OP(permute2f128)(t[c], t[PART + c], 0x31);
    }
}

/* 6 rows x 2 vectors, a vector of columns and a weight take 15 of the 16 registers; totals wait in memory. */
enum { BLOCK_A = 6, BLOCK_B = 5, BLOCK_C = 2, FORWARD_A = 6, DOT_ROWS = 4 };
enum { CHUNK = 64, DEEP = 64, AHEAD = 0 }; /* rows of W, see chunks.h: measured on Zen 3 (32 KB and 512 KB of cache) */
enum { SPAN = 12, PAIRS = 0, WAIT = 8, BY_SAMPLES = 1, IN_BANDS = 1 }; /* 12 sums of one unit wait for no other */
enum { FILTERS_A = 8, FILTERS_B = 4, PIXELS = 4, ABREAST = 2 }; /* 4 filters x 2 vectors load less than 8 x 1 */
