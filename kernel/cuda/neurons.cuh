// The arithmetic of the neuron models; kernel/neurons.py is the table, kernel/reference/neurons.py the equations.
//
// `real` is float or double. The launcher writes real, the codes of the neurons and the coefficients of tanh before this
// text, from that table. Comparisons are written so that a NaN passes through: a diverged state must show.

#define WARP 32

__device__ __forceinline__ real clip(real x, real low, real high) { return x < low ? low : x > high ? high : x; }
__device__ __forceinline__ real size_of(real x) { return fabs(x); }
// The larger of two, NaN if either is.
__device__ __forceinline__ real larger(real a, real b) { return a != a || a > b ? a : b; }

// tanh x = x odd(x^2) / even(x^2), the Pade approximant of `tanh_coefficients`.
__device__ __forceinline__ real tanh_of(real x) {
    const real odd[] = TANH_ODD, even[] = TANH_EVEN; // highest power first; constants once the loops are unrolled
    x = clip(x, -TANH_LIMIT, TANH_LIMIT);
    const real z = x * x;
    real p = odd[0], q = even[0];
#pragma unroll
    for (int i = 1; i < (int)(sizeof odd / sizeof(real)); i++) p = p * z + odd[i];
#pragma unroll
    for (int i = 1; i < (int)(sizeof even / sizeof(real)); i++) q = q * z + even[i];
    return clip(x * p / q, (real)-1, (real)1); // rounding may reach beyond
}

__device__ __forceinline__ real sigmoid(real x) { return (real)0.5 + (real)0.5 * tanh_of((real)0.5 * x); }

__device__ __forceinline__ float power_of_two(float n) { return __int_as_float(((int)n + 127) << 23); }
__device__ __forceinline__ double power_of_two(double n) { return __longlong_as_double(((long long)n + 1023) << 52); }

// e^x for x <= 0, and that of the least normal number for less: 2^n e^r, see kernel/cpu/arithmetic.py.
__device__ __forceinline__ real exp_of_negative(real x) {
    const bool single = sizeof(real) == 4;
    const real high = single ? 0.693359375 : 6.93147180369123816490e-01;
    const real low = single ? -2.12194440e-4 : 1.90821492927058770002e-10;
    const real whole_numbers = single ? 12582912.0 : 6755399441055744.0; // a sum as large as that has no fraction
    const real lowest = (single ? -126 : -1022) * 0.6931471805599453;
    x = x < lowest ? lowest : x;
    const real n = x * (real)1.4426950408889634 + whole_numbers - whole_numbers;
    const real t = tanh_of((real)0.5 * (x - n * high - n * low));
    return ((real)1 + t) / ((real)1 - t) * power_of_two(n);
}

// The cube root of x > 0 to 4 %: a third of its bits, read as an integer (see kernel/cpu/cubic.py).
__device__ __forceinline__ float rough_cube_root(float x) {
    return __int_as_float((int)((float)__float_as_int(x) * (1 / 3.f) + CUBE_OFFSET_FLOAT));
}
__device__ __forceinline__ double rough_cube_root(double x) {
    return __longlong_as_double((long long)((double)__double_as_longlong(x) / 3 + CUBE_OFFSET_DOUBLE));
}

// s of s + s^3 = x: a start within 12 %, then Halley's method, which cubes the error.
__device__ __forceinline__ real root_of_cubic(real x) {
    const real size = size_of(x), root = rough_cube_root(size), square = root * root;
    const real shifted = square + (real)0.87;
    real s = size * shifted / (shifted + square * square);
#pragma unroll
    for (int i = 0; i < (sizeof(real) == 4 ? 2 : 3); i++) {
        const real slope = (real)3 * (s * s) + (real)1, excess = s * (s * s) + (s - size);
        s -= excess * slope / (slope * slope - (real)3 * s * excess);
    }
    return x < 0 ? -s : s;
}

// rho(d)
__device__ __forceinline__ real rate_of(real d, int neuron) {
    switch (neuron) {
    case HARD_SIGMOID: return clip(d, 0, 1);
    case SIGMOID: return sigmoid(d);
    case TANH: return tanh_of(d);
    case FHN: return root_of_cubic(d);
    default: return d;
    }
}

__device__ __forceinline__ real difference_of_tanh(real m, real c) {
    const real half = (real)0.5 * c;
    return tanh_of(c) * ((real)1 - tanh_of(m + half) * tanh_of(m - half));
}

// rho(m + c/2) - rho(m - c/2) without cancellation, however small c.
__device__ __forceinline__ real difference_of(real m, real c, int neuron) {
    switch (neuron) {
    case HARD_SIGMOID: {
        const real half = (real)0.5 * size_of(c);
        const real rise = clip((real)1 - m, -half, half) + clip(m, -half, half);
        return c < 0 ? -rise : rise;
    }
    case SIGMOID: return (real)0.5 * difference_of_tanh((real)0.5 * m, (real)0.5 * c);
    case TANH: return difference_of_tanh(m, c);
    case FHN: {
        const real half = (real)0.5 * c, p = root_of_cubic(m + half), q = root_of_cubic(m - half);
        return c / ((real)1 + (p * p + p * q + q * q));
    }
    default: return c;
    }
}

// (rho(m + c/2) + rho(m - c/2)) / 2
__device__ __forceinline__ real mean_of(real m, real c, int neuron) {
    if (neuron == LINEAR) return m;
    const real half = (real)0.5 * c;
    return (real)0.5 * (rate_of(m + half, neuron) + rate_of(m - half, neuron));
}

// Calls f with the neuron as a constant, so that what f does for many states is decided once.
template <int NEURON> struct Neuron {
    static constexpr int code = NEURON;
};
template <class F> __device__ __forceinline__ void with_neuron(int neuron, F f) {
    switch (neuron) {
    case HARD_SIGMOID: return f(Neuron<HARD_SIGMOID>{});
    case SIGMOID: return f(Neuron<SIGMOID>{});
    case TANH: return f(Neuron<TANH>{});
    case FHN: return f(Neuron<FHN>{});
    default: return f(Neuron<LINEAR>{});
    }
}

// Over the lanes of a warp; every lane gets the result.
__device__ __forceinline__ real warp_sum(real x) {
    for (int other = WARP / 2; other; other /= 2) x += __shfl_xor_sync(0xffffffffu, x, other);
    return x;
}
__device__ __forceinline__ real warp_max(real x) {
    for (int other = WARP / 2; other; other /= 2) x = larger(x, __shfl_xor_sync(0xffffffffu, x, other));
    return x;
}
