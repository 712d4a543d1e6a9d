/* The optimiser's step on weights whose gradient is known. */

INLINE real *moment(real *moments, int64_t at) { return moments ? moments + at : 0; }

/* What a rule makes of the gradient g of `some` weights: their move at rate 1. Their moments begin at m + at, v + at. */
INLINE vec direction(const int rule, vec g, real *m, real *v, int64_t at, const vec *c, int64_t some) {
    vec mean, square;
    if (rule == EQK_MOMENTUM) {
        g = v_fma(c[0], v_load_some(m + at, some), g);
        v_store_some(m + at, g, some);
    }
    if (rule != EQK_ADAM)
        return g;
    mean = v_fma(c[0], v_load_some(m + at, some), v_mul(c[1], g));
    square = v_fma(c[2], v_load_some(v + at, some), v_mul(v_mul(c[3], g), g));
    v_store_some(m + at, mean, some);
    v_store_some(v + at, square, some);
    return v_div(v_mul(c[5], mean), v_add(v_sqrt(v_mul(c[6], square)), c[4]));
}

INLINE void learn_vector(const int rule, real *w, real *m, real *v, int64_t at, const real *gradient, const vec *c,
                         vec rate, vec keep, int64_t some) {
    vec g = v_load(gradient);
    if (rule != EQK_GRADIENT) {
        vec move = direction(rule, g, m, v, at, c, some);
        g = v_fnma(rate, move, v_mul(keep, v_load_some(w + at, some)));
    }
    v_store_some(w + at, g, some);
}

INLINE void learn_by(const int rule, real *restrict w, real *restrict m, real *restrict v, ptrdiff_t stride,
                     const real *restrict gradient, ptrdiff_t pitch, int64_t rows, int64_t count, const eqk_optimiser *o,
                     real decay) {
    vec rate = v_set((real)o->rate), keep = v_set(1 - (real)o->rate * decay), c[7];
    for (int i = 0; i < 7; i++)
        c[i] = v_set((real)o->constants[i]);
    for (int64_t row = 0; row < rows; row++, gradient += pitch) {
        int64_t i = 0, at = row * stride;
        for (; i + LANES <= count; i += LANES)
            learn_vector(rule, w, m, v, at + i, gradient + i, c, rate, keep, LANES);
        if (i < count)
            learn_vector(rule, w, m, v, at + i, gradient + i, c, rate, keep, count - i);
    }
}

INLINE void step_rows(const JOB *job, int64_t at, ptrdiff_t stride, const real *restrict gradient, ptrdiff_t pitch,
                    int64_t rows, int64_t count, real decay) {
    const eqk_optimiser *o = &job->optimiser;
    real *w = job->parameters + at, *m = moment(job->first, at), *v = moment(job->second, at);
    switch (o->rule) {
    case EQK_GRADIENT: learn_by(EQK_GRADIENT, w, m, v, stride, gradient, pitch, rows, count, o, decay); break;
    case EQK_SGD: learn_by(EQK_SGD, w, m, v, stride, gradient, pitch, rows, count, o, decay); break;
    case EQK_MOMENTUM: learn_by(EQK_MOMENTUM, w, m, v, stride, gradient, pitch, rows, count, o, decay); break;
    default: learn_by(EQK_ADAM, w, m, v, stride, gradient, pitch, rows, count, o, decay);
    }
}

/* One optimiser step on `rows` rows, `stride` apart, of `count` weights, which begin at `at`, given their gradient in
 * rows of whole vectors, `pitch` apart. */
NOINLINE void learn(const JOB *job, int64_t at, ptrdiff_t stride, const real *restrict gradient, ptrdiff_t pitch,
                    int64_t rows, int64_t count, real decay) {
    step_rows(job, at, stride, gradient, pitch, rows, count, decay);
}

/* The same of rows of 2 LANES, of which the compiler makes no loop: a twentieth of an update of one sample. */
NOINLINE void learn_pairs(const JOB *job, int64_t at, ptrdiff_t stride, const real *restrict gradient, int64_t rows) {
    step_rows(job, at, stride, gradient, 2 * LANES, rows, 2 * LANES, (real)job->optimiser.decay);
}
