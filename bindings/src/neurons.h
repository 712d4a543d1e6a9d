/* Neuron models: rate, relax, difference (see eqkernel.reference.neurons), on flat arrays such as pieces of a tile. */
#include "arithmetic.h"

#include "../include/eqkernel.h"

INLINE vec rate_of(vec d, const int neuron) {
    switch (neuron) {
    case EQK_HARD_SIGMOID: return clip(d, 0, 1);
    case EQK_SIGMOID: return sigmoid_of(d);
    case EQK_TANH: return tanh_of(d);
    case EQK_FHN: return root_of_cubic(d);
    default: return d;
    }
}

INLINE vec tanh_difference(vec m, vec c) {
    vec half = v_mul(v_set((real)0.5), c);
    vec product = v_mul(tanh_of(v_add(m, half)), tanh_of(v_sub(m, half)));
    return v_mul(tanh_of(c), v_sub(v_set(1), product));
}

/* rho(m + c/2) - rho(m - c/2) without cancellation. */
INLINE vec difference_of(vec m, vec c, const int neuron) {
    vec half = v_set((real)0.5);
    switch (neuron) {
    case EQK_HARD_SIGMOID: { /* |c|, less what either end cuts off */
        vec reach = v_mul(half, v_abs(c)), least = v_sub(v_set(0), reach);
        vec above = v_min(reach, v_max(least, v_sub(v_set(1), m))), below = v_min(reach, v_max(least, m));
        return v_if_equal(c, c, v_flip(v_add(above, below), c), c); /* a NaN in c would not show in reach */
    }
    case EQK_SIGMOID: return v_mul(half, tanh_difference(v_mul(half, m), v_mul(half, c)));
    case EQK_TANH: return tanh_difference(m, c);
    case EQK_FHN: {
        vec h = v_mul(half, c), p = root_of_cubic(v_add(m, h)), q = root_of_cubic(v_sub(m, h));
        return v_div(c, v_add(v_set(1), v_fma(p, p, v_fma(p, q, v_mul(q, q)))));
    }
    default: return c;
    }
}

/* The mean of rho(m + c/2) and rho(m - c/2). */
INLINE vec mean_of(vec m, vec c, const int neuron) {
    vec half = v_set((real)0.5), h = v_mul(half, c);
    if (neuron == EQK_LINEAR)
        return m;
    return v_mul(half, v_add(rate_of(v_add(m, h), neuron), rate_of(v_sub(m, h), neuron)));
}

/* Calls that a loop should be compiled for, one neuron at a time. */
#define FOR_NEURON(neuron, call) \
    switch (neuron) { \
    case EQK_HARD_SIGMOID: { enum { RHO = EQK_HARD_SIGMOID }; call; } break; \
    case EQK_SIGMOID: { enum { RHO = EQK_SIGMOID }; call; } break; \
    case EQK_TANH: { enum { RHO = EQK_TANH }; call; } break; \
    case EQK_FHN: { enum { RHO = EQK_FHN }; call; } break; \
    default: { enum { RHO = EQK_LINEAR }; call; } break; \
    }

enum { TO_RATE, TO_DIFFERENCE, TO_MEAN, TO_STATE };

/* state += step (what `kind` says - state); gives back the largest change, NaN if a state became NaN or infinite.
 * TO_RATE: the drive is a + b. TO_DIFFERENCE and TO_MEAN: a + b is the difference of the drives, m their mean. TO_STATE:
 * a says it. */
INLINE real move(const int kind, const int neuron, real *restrict state, const real *restrict m, const real *restrict a,
                 const real *restrict b, int64_t n, real step) {
    vec largest = v_set(0), poison = v_set(0), h = v_set(step);
    for (int64_t i = 0; i < n; i += LANES) {
        int64_t some = n - i;
        vec drive = v_load_some(a + i, some), old = v_load_some(state + i, some), goal = drive;
        if (kind != TO_STATE)
            drive = v_add(drive, v_load_some(b + i, some));
        if (kind == TO_RATE)
            goal = rate_of(drive, neuron);
        else if (kind == TO_DIFFERENCE)
            goal = difference_of(v_load_some(m + i, some), drive, neuron);
        else if (kind == TO_MEAN)
            goal = mean_of(v_load_some(m + i, some), drive, neuron);
        vec way = v_sub(goal, old);
        if (some < LANES) /* lanes that are not there change nothing */
            way = v_keep_first(way, (int)some);
        v_store_some(state + i, v_fma(h, way, old), some);
        largest = v_max(v_abs(way), largest);
        poison = v_fma(way, v_set(0), poison);
    }
    return step * v_largest(largest) + v_poison(poison);
}

NOINLINE real relax_towards(real *state, const real *drive, const real *more, int64_t n, real step, int neuron) {
    FOR_NEURON(neuron, return move(TO_RATE, RHO, state, 0, drive, more, n, step));
    return 0;
}

NOINLINE real relax_difference(real *state, const real *mean, const real *drive, const real *more, int64_t n, real step,
                               int neuron) {
    FOR_NEURON(neuron, return move(TO_DIFFERENCE, RHO, state, mean, drive, more, n, step));
    return 0;
}

NOINLINE real relax_mean(real *state, const real *mean, const real *drive, const real *more, int64_t n, real step,
                         int neuron) {
    FOR_NEURON(neuron, return move(TO_MEAN, RHO, state, mean, drive, more, n, step));
    return 0;
}

/* current += step (state - current), as an adaptation current does. */
NOINLINE real follow(real *current, const real *state, int64_t n, real step) {
    return move(TO_STATE, EQK_LINEAR, current, 0, state, 0, n, step);
}

/* out = softmax of drive over its n rows, for each of `lanes` samples. */
NOINLINE void softmax_rows(real *restrict out, const real *restrict drive, int64_t n, int64_t lanes) {
    for (int64_t b = 0; b < lanes; b += LANES) {
        int64_t some = lanes - b;
        vec highest = v_load_some(drive + b, some), total = v_set(0);
        for (int64_t i = 1; i < n; i++)
            highest = v_max(highest, v_load_some(drive + i * lanes + b, some));
        for (int64_t i = 0; i < n; i++) {
            vec e = exp_of_negative(v_sub(v_load_some(drive + i * lanes + b, some), highest));
            v_store_some(out + i * lanes + b, e, some);
            total = v_add(total, e);
        }
        for (int64_t i = 0; i < n; i++)
            v_store_some(out + i * lanes + b, v_div(v_load_some(out + i * lanes + b, some), total), some);
    }
}
