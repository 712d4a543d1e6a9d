/* 512-bit vectors: AVX-512 F and DQ. */
#include <immintrin.h>

#if REAL_BITS == 32
#define LANES 16
#define OP(name) _mm512_##name##_ps
#define SHUFFLE _mm512_shuffle_f32x4
#define CMP _mm512_cmp_ps_mask
typedef __m512 vec;
typedef __mmask16 mask;
#else
#define LANES 8
#define OP(name) _mm512_##name##_pd
#define SHUFFLE _mm512_shuffle_f64x2
#define CMP _mm512_cmp_pd_mask
typedef __m512d vec;
typedef __mmask8 mask;
#endif

INLINE vec v_set(real x) { return OP(set1)(x); }
INLINE vec v_load(const real *p) { return OP(loadu)(p); }
INLINE void v_store(real *p, vec a) { OP(storeu)(p, a); }
INLINE vec v_load_first(const real *p, int n) { return OP(maskz_loadu)((mask)((1u << n) - 1), p); }
INLINE void v_store_first(real *p, vec a, int n) { OP(mask_storeu)(p, (mask)((1u << n) - 1), a); }
INLINE vec v_add(vec a, vec b) { return OP(add)(a, b); }
INLINE vec v_sub(vec a, vec b) { return OP(sub)(a, b); }
INLINE vec v_mul(vec a, vec b) { return OP(mul)(a, b); }
INLINE vec v_div(vec a, vec b) { return OP(div)(a, b); }
INLINE vec v_fma(vec a, vec b, vec c) { return OP(fmadd)(a, b, c); }
INLINE vec v_fnma(vec a, vec b, vec c) { return OP(fnmadd)(a, b, c); }
INLINE vec v_sqrt(vec a) { return OP(sqrt)(a); }
INLINE vec v_max(vec a, vec b) { return OP(max)(a, b); }
INLINE vec v_min(vec a, vec b) { return OP(min)(a, b); }
INLINE vec v_abs(vec a) { return OP(abs)(a); }
INLINE vec v_flip(vec a, vec sign) { return OP(xor)(a, OP(and)(sign, v_set((real)-0.0))); }
INLINE vec v_keep_first(vec a, int n) { return OP(maskz_mov)((mask)((1u << n) - 1), a); }
#if REAL_BITS == 32
#define ALIGN(b, a, n) _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(b), _mm512_castps_si512(a), n))
#else
#define ALIGN(b, a, n) _mm512_castsi512_pd(_mm512_alignr_epi64(_mm512_castpd_si512(b), _mm512_castpd_si512(a), n))
#endif
INLINE vec v_from_second(vec a, vec b) { return ALIGN(b, a, 1); }
INLINE vec v_if_larger(vec a, vec b, vec yes, vec no) { return OP(mask_mov)(no, CMP(a, b, _CMP_GT_OQ), yes); }
INLINE vec v_if_equal(vec a, vec b, vec yes, vec no) { return OP(mask_mov)(no, CMP(a, b, _CMP_EQ_OQ), yes); }
INLINE unsigned v_nonzero(vec a) { return CMP(a, v_set(0), _CMP_NEQ_UQ); }
INLINE real v_poison(vec a) { return OP(reduce_add)(a); }
INLINE real v_largest(vec a) { return OP(reduce_max)(a); }
#if REAL_BITS == 32
INLINE vec v_bits(vec a) { return _mm512_cvtepi32_ps(_mm512_castps_si512(a)); }
INLINE vec v_of_bits(vec a) { return _mm512_castsi512_ps(_mm512_cvttps_epi32(a)); }
#else
INLINE vec v_bits(vec a) { return _mm512_cvtepi64_pd(_mm512_castpd_si512(a)); }
INLINE vec v_of_bits(vec a) { return _mm512_castsi512_pd(_mm512_cvttpd_epi64(a)); }
#endif

/* rows[j] lane i = rows[i] lane j: within 128 bits first, then the 128-bit parts of every PART-th vector. */
INLINE void v_transpose(vec *r) {
    enum { PART = LANES / 4 };
    vec t[LANES];
#if REAL_BITS == 32
    UNROLL for (int i = 0; i < LANES; i += 4) {
        __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(r[i], r[i + 1]));
        __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(r[i], r[i + 1]));
        __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(r[i + 2], r[i + 3]));
        __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(r[i + 2], r[i + 3]));
        t[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        t[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        t[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        t[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
#else
    UNROLL for (int i = 0; i < LANES; i += 2) {
        t[i] = _mm512_unpacklo_pd(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_pd(r[i], r[i + 1]);
    }
#endif
    UNROLL for (int c = 0; c < PART; c++) {
        vec a = t[c], b = t[PART + c], d = t[2 * PART + c], e = t[3 * PART + c];
        vec even = SHUFFLE(a, b, 0x88), odd = SHUFFLE(a, b, 0xdd);
        vec even2 = SHUFFLE(d, e, 0x88), odd2 = SHUFFLE(d, e, 0xdd);
        r[c] = SHUFFLE(even, even2, 0x88);
        r[PART + c] = SHUFFLE(odd, odd2, 0x88);
        r[2 * PART + c] = SHUFFLE(even, even2, 0xdd);
        r[3 * PART + c] = SHUFFLE(odd, odd2, 0xdd);
    }
}

/* 14 rows x 2 vectors fill the 32 registers, 10 rows are ten classes; a forward block holds totals besides. */
enum { BLOCK_A = 14, BLOCK_B = 10, BLOCK_C = 4, FORWARD_A = 6, DOT_ROWS = 8 };
#if defined(INTEL)
/* Measured on Emerald Rapids: two multiply-adds of 512 bits a cycle and a first cache of 48 KB ask for wider spans, and what
 * lies beyond the second cache must be asked for in time. */
enum { CHUNK = 128, DEEP = 256, AHEAD = 1 }; /* see chunks.h */
enum { SPAN = 8, PAIRS = 1, WAIT = 4, BY_SAMPLES = 0, IN_BANDS = 0 }; /* see zeros.h, samples.h, bands.h */
#else
enum { CHUNK = 0, DEEP = 0, AHEAD = 0 };
enum { SPAN = 6, PAIRS = 1, WAIT = 4, BY_SAMPLES = 0, IN_BANDS = 0 };
#endif
enum { FILTERS_A = 16, FILTERS_B = 4, PIXELS = 6, ABREAST = 1 };
