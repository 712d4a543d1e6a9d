// The Hebbian contrast and the optimiser's step in one kernel, for every connection of a layered network in one launch.
//
//     trace = sum_b  d_post[b] m_pre[b]^T + m_post[b] d_pre[b]^T          (the clamped input has d_pre = 0)
//
// m and d are the mean and the difference of the nudged states, so the difference is formed before the product and
// nothing cancels. A bias is the weight of one more input that is always 1 and never differs: the last column of the
// product. The trace stays in registers until the optimiser has used it.
#include "neurons.cuh"
#include "gemm.cuh"

// One row of `table` a matrix: where its weights and its biases begin in theta (biases: -1 if it has none), its sizes,
// where the states of its two ends begin in mean and difference (pre: -1 for the clamped input x), whether its
// presynaptic end differs too, and which of `scales` turns the trace into the gradient.
enum { WEIGHT, BIAS, N_PRE, N_POST, PRE, POST, BOTH, SCALE, COLUMNS };

struct Rule { // as Optimiser.hyper() gives it; decay is decoupled and spares biases
    int rule;
    real rate, decay, hyper[7];
};

// One step of the optimiser on theta[at], given its gradient.
__device__ __forceinline__ void learn(real* theta, real* first, real* second, int at, real gradient, real decay, const Rule& o) {
    const real kept = ((real)1 - o.rate * decay) * theta[at];
    if (o.rule == GRADIENT) {
        theta[at] = gradient;
    } else if (o.rule == SGD) {
        theta[at] = kept - o.rate * gradient;
    } else if (o.rule == MOMENTUM) {
        const real velocity = o.hyper[0] * first[at] + gradient;
        first[at] = velocity;
        theta[at] = kept - o.rate * velocity;
    } else { // Adam
        const real mean = o.hyper[0] * first[at] + o.hyper[1] * gradient;
        const real square = o.hyper[2] * second[at] + o.hyper[3] * gradient * gradient;
        first[at] = mean;
        second[at] = square;
        theta[at] = kept - o.rate * (o.hyper[5] * mean / (sqrt(o.hyper[6] * square) + o.hyper[4]));
    }
}

// pre (batch, n) and one more input, `value` in every sample
struct WithBias {
    const real* pre;
    int n, rows;
    real value;
    __device__ __forceinline__ bool along_depth() const { return false; }
    __device__ __forceinline__ real at(int i, int k) const { return i < n ? pre[(long long)k * n + i] : value; }
};

// x (batch, n_0); mean and difference hold blocks (batch, n_l) of layers 1..L. With rule GRADIENT theta receives the
// gradient. The grid is (tiles across, tiles down, matrices) of the largest matrix.
extern "C" __global__ void __launch_bounds__(GEMM_THREADS, 2)
update(const int* table, const real* scales, real* theta, real* first, real* second, const real* x, const real* mean,
       const real* difference, int batch, int rule, real rate, real decay,
       real h0, real h1, real h2, real h3, real h4, real h5, real h6) {
    const int* row = table + blockIdx.z * COLUMNS;
    const int n_pre = row[N_PRE], n_post = row[N_POST], top = blockIdx.y * TILE, left = blockIdx.x * TILE;
    const bool biased = row[BIAS] >= 0;
    if (top >= n_post || left >= n_pre + biased) return;
    real sum[PART][PART] = {};
    for (int half = 0; half <= row[BOTH]; half++) {
        const real* post = half ? mean : difference;
        const real* pre = row[PRE] < 0 ? x : (half ? difference : mean) + (long long)batch * row[PRE];
        multiply(sum, Matrix{post + (long long)batch * row[POST], n_post, 1, n_post},
                 WithBias{pre, n_pre, n_pre + biased, (real)!half}, top, left, batch);
    }

    const Rule o = {rule, rate, decay, {h0, h1, h2, h3, h4, h5, h6}};
    const real scale = scales[row[SCALE]];
#pragma unroll
    for (int r = 0; r < PART; r++)
#pragma unroll
        for (int c = 0; c < PART; c++) {
            const int i = top + threadIdx.x / SIDE + SIDE * r, j = left + threadIdx.x % SIDE + SIDE * c;
            if (i >= n_post) continue;
            if (j < n_pre) learn(theta, first, second, row[WEIGHT] + i * n_pre + j, scale * sum[r][c], decay, o);
            else if (biased && j == n_pre) learn(theta, first, second, row[BIAS] + i, scale * sum[r][c], 0, o);
        }
}
