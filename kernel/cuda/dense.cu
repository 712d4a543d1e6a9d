// Dense connection, Phi = post . (W pre): the verbs of kernel/reference/dense.py.
//
// pre (batch, n_pre), post (batch, n_post), weight (n_post, n_pre). `scale` is 1, or 1/2 where the connection is lateral.
#include "neurons.cuh"
#include "gemm.cuh"

// drive (batch, n_post) += scale * pre W^T: dPhi/dpost
extern "C" __global__ void __launch_bounds__(GEMM_THREADS, GEMM_BLOCKS)
drive_post(real* drive, const real* pre, const real* weight, real scale, int batch, int n_pre, int n_post) {
    const int top = blockIdx.y * TILE, left = blockIdx.x * TILE;
    real sum[PART_ROWS][PART_COLUMNS] = {};
    multiply(sum, Matrix{pre, batch, n_pre, 1}, Matrix{weight, n_post, n_pre, 1}, top, left, n_pre);
    add(drive, sum, top, left, batch, n_post, scale);
}

// drive (batch, n_post) = pre W^T + bias, of a layer above a clamped input
extern "C" __global__ void __launch_bounds__(GEMM_THREADS, GEMM_BLOCKS)
input_drive(real* drive, const real* pre, const real* weight, const real* bias, int batch, int n_pre, int n_post) {
    const int top = blockIdx.y * TILE, left = blockIdx.x * TILE;
    real sum[PART_ROWS][PART_COLUMNS] = {};
    multiply(sum, Matrix{pre, batch, n_pre, 1}, Matrix{weight, n_post, n_pre, 1}, top, left, n_pre);
#pragma unroll
    for (int r = 0; r < PART_ROWS; r++)
#pragma unroll
        for (int c = 0; c < PART_COLUMNS; c += WIDE) {
            const Piece p = piece(top + row_of(r), left + column_of(c), batch, n_post);
            if (p.count == 0) continue;
            Vector whole = load_some(bias + p.j, p.count, p.together && aligned(bias));
#pragma unroll
            for (int w = 0; w < WIDE; w++) whole.of[w] += sum[r][c + w];
            store_some(drive + (long long)p.i * n_post + p.j, whole, p.count, p.together && aligned(drive));
        }
}

// drive (batch, n_pre) += scale * post W: dPhi/dpre
extern "C" __global__ void __launch_bounds__(GEMM_THREADS, GEMM_BLOCKS)
drive_pre(real* drive, const real* post, const real* weight, real scale, int batch, int n_pre, int n_post) {
    const int top = blockIdx.y * TILE, left = blockIdx.x * TILE;
    real sum[PART_ROWS][PART_COLUMNS] = {};
    multiply(sum, Matrix{post, batch, n_post, 1}, Matrix{weight, n_pre, 1, n_pre}, top, left, n_post);
    add(drive, sum, top, left, batch, n_pre, scale);
}

// trace (n_post, n_pre) += scale * post^T pre: sum_B dPhi/dW
extern "C" __global__ void __launch_bounds__(GEMM_THREADS, GEMM_BLOCKS)
hebbian(real* trace, const real* pre, const real* post, real scale, int batch, int n_pre, int n_post) {
    const int top = blockIdx.y * TILE, left = blockIdx.x * TILE;
    real sum[PART_ROWS][PART_COLUMNS] = {};
    multiply(sum, Matrix{post, n_post, 1, n_post}, Matrix{pre, n_pre, 1, n_pre}, top, left, batch);
    add(trace, sum, top, left, n_post, n_pre, scale);
}

// energy (batch) -= scale * post . (W pre): a warp a sample
extern "C" __global__ void __launch_bounds__(256)
energy(real* energy, const real* pre, const real* post, const real* weight, real scale, int batch, int n_pre, int n_post) {
    const int lane = threadIdx.x % WARP, sample = (blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    if (sample >= batch) return;
    pre += (long long)sample * n_pre;
    post += (long long)sample * n_post;
    real total = 0;
    for (int i = 0; i < n_post; i++) {
        real part = 0;
        for (int j = lane; j < n_pre; j += WARP) part += weight[(long long)i * n_pre + j] * pre[j];
        total += post[i] * part;
    }
    total = warp_sum(total);
    if (lane == 0) energy[sample] -= scale * total;
}
