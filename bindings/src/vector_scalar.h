/* A vector of one lane: plain C99, and the meaning of every operation. */
#define LANES 1
typedef real vec;

#if REAL_BITS == 32
typedef int32_t whole;
#define MATH(name) name##f
#else
typedef int64_t whole;
#define MATH(name) name
#endif

INLINE vec v_set(real x) { return x; }
INLINE vec v_load(const real *p) { return *p; }
INLINE void v_store(real *p, vec a) { *p = a; }
INLINE vec v_load_first(const real *p, int n) { return n ? *p : 0; } /* the first n lanes, then zeros */
INLINE void v_store_first(real *p, vec a, int n) {
    if (n)
        *p = a;
}
INLINE vec v_add(vec a, vec b) { return a + b; }
INLINE vec v_sub(vec a, vec b) { return a - b; }
INLINE vec v_mul(vec a, vec b) { return a * b; }
INLINE vec v_div(vec a, vec b) { return a / b; }
INLINE vec v_fma(vec a, vec b, vec c) { return MATH(fma)(a, b, c); } /* a b + c, rounded once */
INLINE vec v_fnma(vec a, vec b, vec c) { return MATH(fma)(-a, b, c); }
INLINE vec v_sqrt(vec a) { return MATH(sqrt)(a); }
INLINE vec v_max(vec a, vec b) { return a > b ? a : b; } /* b if either is NaN */
INLINE vec v_min(vec a, vec b) { return a < b ? a : b; }
INLINE vec v_abs(vec a) { return MATH(fabs)(a); }
INLINE vec v_flip(vec a, vec sign) { return signbit(sign) ? -a : a; } /* -a where `sign` is negative */
INLINE vec v_keep_first(vec a, int n) { return n ? a : 0; } /* the first n lanes, then zeros */
INLINE vec v_from_second(vec a, vec b) { /* lanes 1, 2, ... of a, then the first of b */
    (void)a;
    return b;
}
INLINE vec v_if_larger(vec a, vec b, vec yes, vec no) { return a > b ? yes : no; }
INLINE vec v_if_equal(vec a, vec b, vec yes, vec no) { return a == b ? yes : no; }
INLINE unsigned v_nonzero(vec a) { return a != 0; }             /* a bit for each lane that is not 0 */
INLINE real v_largest(vec a) { return a; }                  /* of lanes that are not NaN */
INLINE real v_poison(vec a) { return a; }                   /* of lanes 0 or NaN: NaN if any is */
INLINE void v_transpose(vec *rows) { (void)rows; }
INLINE vec v_bits(vec a) { /* the bits of a, an integer, as a number */
    whole bits;
    memcpy(&bits, &a, sizeof a);
    return (vec)bits;
}
INLINE vec v_of_bits(vec a) { /* a number cut to an integer, as the bits of another; of NaN any */
    whole bits = a == a ? (whole)a : 0;
    memcpy(&a, &bits, sizeof a);
    return a;
}

/* Rows of the blocks of sums that fit the registers, largest first (gemm.h). */
enum { BLOCK_A = 4, BLOCK_B = 4, BLOCK_C = 2, FORWARD_A = 2, DOT_ROWS = 1 };
enum { CHUNK = 0, DEEP = 0, AHEAD = 0 }; /* see chunks.h */
enum { SPAN = 6, PAIRS = 1, WAIT = 4, BY_SAMPLES = 0, IN_BANDS = 0 }; /* see zeros.h, samples.h, bands.h */
enum { FILTERS_A = 4, FILTERS_B = 2, PIXELS = 2, ABREAST = 1 }; /* and of the blocks of a correlation (correlate.h) */
