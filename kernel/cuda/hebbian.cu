// The Hebbian contrast and the optimiser's step in one kernel, for every connection of a layered network in one launch.
//
//     trace = sum_b  d_post[b] m_pre[b]^T + m_post[b] d_pre[b]^T
//
// The clamped input has d_pre = 0, and from layer to layer a feed-forward schedule has the first product alone. m and d
// are the mean and the difference of the nudged states, so the difference is formed before the product and nothing
// cancels. A bias is the weight of one more input that is always 1 and never differs: the last column of the product. The
// trace stays in registers until the optimiser has used it.
#include "neurons.cuh"
#include "gemm.cuh"

// One row of `table` a matrix: where its weights and its biases begin in theta (biases: -1 if it has none), its sizes,
// where the states of its two ends begin in mean and difference (pre: -1 for the clamped input x), whether its
// presynaptic end differs too (0: no; 1: unless feed_forward; 2: yes), and which of `scales` turns the trace into the
// gradient.
enum { WEIGHT, BIAS, N_PRE, N_POST, PRE, POST, BOTH, SCALE, COLUMNS };

struct Rule { // as Optimiser.hyper() gives it; decay is decoupled and spares biases
    int rule;
    real rate, decay, hyper[7];
};

// One step of the optimiser on a weight and its moments, given its gradient.
__device__ __forceinline__ void learn(real& theta, real& first, real& second, real gradient, real decay, const Rule& o) {
    const real kept = ((real)1 - o.rate * decay) * theta;
    if (o.rule == GRADIENT) {
        theta = gradient;
    } else if (o.rule == SGD) {
        theta = kept - o.rate * gradient;
    } else if (o.rule == MOMENTUM) {
        first = o.hyper[0] * first + gradient;
        theta = kept - o.rate * first;
    } else { // Adam
        first = o.hyper[0] * first + o.hyper[1] * gradient;
        second = o.hyper[2] * second + o.hyper[3] * gradient * gradient;
        theta = kept - o.rate * (o.hyper[5] * first / (sqrt(o.hyper[6] * second) + o.hyper[4]));
    }
}

// The same of `count` weights from `at` on
__device__ __forceinline__ void
learn_some(real* theta, real* first, real* second, int at, const real* sum, int count, bool together, real scale, real decay,
           const Rule& o) {
    const bool velocity = o.rule == MOMENTUM || o.rule == ADAM;
    Vector weight = load_some(theta + at, count, together), one = {}, two = {};
    if (velocity) one = load_some(first + at, count, together);
    if (o.rule == ADAM) two = load_some(second + at, count, together);
#pragma unroll
    for (int w = 0; w < WIDE; w++) learn(weight.of[w], one.of[w], two.of[w], scale * sum[w], decay, o);
    store_some(theta + at, weight, count, together);
    if (velocity) store_some(first + at, one, count, together);
    if (o.rule == ADAM) store_some(second + at, two, count, together);
}

__device__ const real OF_BIAS[2] = {0, 1};

// pre (batch, n) and one more input, `value` in every sample
struct WithBias {
    static constexpr bool IN_MEMORY = true;
    const real* pre;
    int n, rows, value;
    __device__ __forceinline__ bool along_depth() const { return false; }
    __device__ __forceinline__ const real* where(int i, int k) const {
        return i < n ? pre + (long long)k * n + i : OF_BIAS + value;
    }
    __device__ __forceinline__ long long apart(int i, int, int dk) const { return i < n ? (long long)dk * n : 0; }
    __device__ __forceinline__ real at(int i, int k) const { return *where(i, k); }
};

// x (batch, n_0); mean and difference hold blocks (batch, n_l) of layers 1..L. With rule GRADIENT theta receives the
// gradient. The grid is (tiles across, tiles down, matrices) of the largest matrix.
extern "C" __global__ void __launch_bounds__(GEMM_THREADS, GEMM_BLOCKS)
update(const int* table, const real* scales, real* theta, real* first, real* second, const real* x, const real* mean,
       const real* difference, int batch, int feed_forward, int rule, real rate, real decay,
       real h0, real h1, real h2, real h3, real h4, real h5, real h6) {
    const int* row = table + blockIdx.z * COLUMNS;
    const int n_pre = row[N_PRE], n_post = row[N_POST], top = blockIdx.y * TILE, left = blockIdx.x * TILE;
    const bool biased = row[BIAS] >= 0;
    if (top >= n_post || left >= n_pre + biased) return;
    real sum[PART_ROWS][PART_COLUMNS] = {};
    for (int half = 0; half <= (row[BOTH] > feed_forward); half++) {
        const real* post = half ? mean : difference;
        const real* pre = row[PRE] < 0 ? x : (half ? difference : mean) + (long long)batch * row[PRE];
        multiply(sum, Matrix{post + (long long)batch * row[POST], n_post, 1, n_post},
                 WithBias{pre, n_pre, n_pre + biased, !half}, top, left, batch);
    }

    const Rule o = {rule, rate, decay, {h0, h1, h2, h3, h4, h5, h6}};
    const real scale = scales[row[SCALE]];
#pragma unroll
    for (int r = 0; r < PART_ROWS; r++)
#pragma unroll
        for (int c = 0; c < PART_COLUMNS; c += WIDE) {
            const Piece p = piece(top + row_of(r), left + column_of(c), n_post, n_pre);
            if (p.count > 0)
                learn_some(theta, first, second, row[WEIGHT] + p.at, &sum[r][c], p.count, p.together, scale, decay, o);
            if (!biased || p.i >= n_post) continue;
#pragma unroll
            for (int w = 0; w < WIDE; w++)
                if (p.j + w == n_pre)
                    learn_some(theta, first, second, row[BIAS] + p.i, &sum[r][c + w], 1, false, scale, 0, o);
        }
}
