/* Scalar functions on vectors: no libm, and NaN travels through. */
#include "coefficients.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

/* gain * the polynomial in unit * z; both are constants. */
INLINE vec polynomial(const real *highest_first, const int terms, vec z, const real unit, const real gain) {
    real power = gain;
    UNROLL for (int i = 1; i < terms; i++)
        power *= unit;
    vec p = v_set(highest_first[0] * power);
    UNROLL for (int i = 1; i < terms; i++)
        p = v_fma(p, z, v_set(highest_first[i] * (power /= unit)));
    return p;
}

/* v_max and v_min give back their second argument if either is NaN: the constant goes first. */
INLINE vec clip(vec x, real low, real high) { return v_min(v_set(high), v_max(v_set(low), x)); }

/* unit * tanh(unit * x), unit a power of two: tanh as one quotient of polynomials in x^2, to a few units in the last place.
 * The unit goes into the coefficients, to the same bits as if it multiplied x and the result. */
INLINE vec scaled_tanh(vec x, const real unit) {
    vec z, quotient;
    x = clip(x, -TANH_LIMIT / unit, TANH_LIMIT / unit);
    z = v_mul(x, x);
    quotient = v_div(v_mul(x, polynomial(TANH_ODD, COUNT(TANH_ODD), z, unit * unit, unit * unit)),
                     polynomial(TANH_EVEN, COUNT(TANH_EVEN), z, unit * unit, 1));
    return clip(quotient, -unit, unit); /* rounding may reach beyond */
}

INLINE vec tanh_of(vec x) { return scaled_tanh(x, 1); }
INLINE vec sigmoid_of(vec x) {
    const real half = (real)0.5;
    return v_add(v_set(half), scaled_tanh(x, half));
}

/* Among a number's bits, read as an integer, stands its exponent + BIAS, times EXPONENT. */
#define BIAS (REAL_BITS == 32 ? 127 : 1023)
#define EXPONENT (REAL_BITS == 32 ? 8388608.0 : 4503599627370496.0)

/* e^x for x <= 0 to a few units in the last place; for less than that of the least normal number, that one.
 * e^x = 2^n e^r, n whole, |r| <= ln 2 / 2, and e^r = (1 + tanh(r/2)) / (1 - tanh(r/2)). ln 2 is split so that n times its
 * high part is exact. */
INLINE vec exp_of_negative(vec x) {
    const double high = REAL_BITS == 32 ? 0.693359375 : 6.93147180369123816490e-01;
    const double low = REAL_BITS == 32 ? -2.12194440e-4 : 1.90821492927058770002e-10;
    const vec whole_numbers = v_set((real)(1.5 * EXPONENT)), one = v_set(1); /* a sum as large as that has no fraction */
    vec n, r, t;
    x = v_max(v_set((real)((1 - BIAS) * 0.6931471805599453)), x);
    x = v_min(v_set(0), x); /* above 0 beside a NaN, which hides the largest drive and makes all rates NaN */
    n = v_sub(v_add(v_mul(x, v_set((real)1.4426950408889634)), whole_numbers), whole_numbers);
    r = v_sub(v_sub(x, v_mul(n, v_set((real)high))), v_mul(n, v_set((real)low)));
    t = tanh_of(v_mul(v_set((real)0.5), r));
    n = v_of_bits(v_mul(v_add(n, v_set(BIAS)), v_set((real)EXPONENT))); /* 2^n */
    return v_mul(v_div(v_add(one, t), v_sub(one, t)), n);
}

/* The cube root of x > 0 to 4 %, of 0 some tiny number: a float's bits, read as an integer, are nearly its logarithm,
 * so a third of them, and two thirds of the exponent's offset, make a root. The 0.032 balances the error of that
 * reading over an octave. */
INLINE vec rough_cube_root(vec x) {
    const vec third = v_set((real)(1.0 / 3.0)), offset = v_set((real)((BIAS * 2 / 3.0 - 0.032) * EXPONENT));
    return v_of_bits(v_fma(v_bits(x), third, offset));
}

/* One step of Halley's method for s^3 + s - x = 0: it cubes the error. */
INLINE vec halley(vec s, vec x) {
    vec square = v_mul(s, s), three = v_set(3);
    vec slope = v_fma(three, square, v_set(1));
    vec excess = v_fma(s, square, v_sub(s, x));
    vec under = v_fnma(v_mul(v_mul(three, s), excess), v_set(1), v_mul(slope, slope));
    return v_sub(s, v_div(v_mul(excess, slope), under));
}

/* s of s + s^3 = x for |x| < 1e12 (float) or 1e100 (double). It starts within 12 %: x (r^2 + .87) / (r^2 + .87 + r^4), r
 * the rough cube root, tends to x for small x and to r for large. */
INLINE vec root_of_cubic(vec x) {
    vec size = v_abs(x), root = rough_cube_root(size), square = v_mul(root, root);
    vec shifted = v_add(square, v_set((real)0.87));
    vec s = v_div(v_mul(size, shifted), v_fma(square, square, shifted));
    UNROLL for (int i = 0; i < (REAL_BITS == 32 ? 2 : 3); i++)
        s = halley(s, size);
    return v_flip(s, x);
}
