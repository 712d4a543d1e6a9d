/* Loops over arrays, element by element. */

NOINLINE void copy(real *restrict out, const real *restrict a, int64_t n) { memcpy(out, a, (size_t)n * sizeof *out); }

/* out = a + gain b; out may be a or b. */
NOINLINE void combine(real *out, const real *a, real gain, const real *b, int64_t n) {
    vec g = v_set(gain);
    for (int64_t i = 0; i < n; i += LANES)
        v_store_some(out + i, v_fma(g, v_load_some(b + i, n - i), v_load_some(a + i, n - i)), n - i);
}

/* Whether n numbers are finite. */
static int all_finite(const real *a, int64_t n) {
    vec poison = v_set(0);
    for (int64_t i = 0; i < n; i += LANES) {
        vec value = v_load_some(a + i, n - i);
        poison = v_add(v_sub(value, value), poison);
    }
    return v_poison(poison) == 0;
}
