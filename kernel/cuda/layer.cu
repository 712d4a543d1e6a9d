// One layer of a large network relaxed in one launch: the products over its neighbours, and in their epilogue leak and
// activation. Blocks of a layer see only other layers, or old states, so launches in order are all the barriers needed.
//
// States are (rows, n); rows is the batch, or twice it where a + and a - state settle together, the + states first. A new
// state goes to `next`, as laterals, and in synchronous order neighbours, must see the old one.
#include "neurons.cuh"
#include "gemm.cuh"
#include "tensor.cuh"

// What a launch makes of the drive c = up + down + lateral + nudge:
#define RELAX 0            // next = state + step (rho(c) - state)
#define DIFFERENCE 1       // next = state + step (rho(m + c/2) - rho(m - c/2) - state), m = middle
#define STORE 2            // next = c
#define MEAN_DIFFERENCE 3  // with c = middle and m the drive, both: next a mean, other_next a difference

struct Element { // of a block's tile, thread by thread
    int i, j, at;
    bool inside;
};
__device__ __forceinline__ Element element(int r, int c, int top, int left, int rows, int n) {
    const int i = top + threadIdx.x / SIDE + SIDE * r, j = left + threadIdx.x % SIDE + SIDE * c;
    return {i, j, i * n + j, i < rows && j < n};
}

// up (rows, n) = below W^T + bias if n_below > 0, down = gamma above V if n_above > 0; else they are as they were.
// lateral (n, n) of the old state if has_lateral; pull (rows, n) times nudge, or - nudge beyond the batch.
// most (1): the largest change of this step so far, as bits.
extern "C" __global__ void __launch_bounds__(GEMM_THREADS, RESIDENT)
relax_layer(int mode, real* next, const real* state, real* other_next, const real* other, const real* middle, real* up,
            real* down, const real* below, const real* W, const real* bias, const real* above, const real* V,
            const real* lateral, const real* pull, bits* most, int rows, int batch, int n, int n_below, int n_above,
            int has_lateral, int has_bias, real gamma, real nudge, real step, int neuron) {
    const int top = blockIdx.y * TILE, left = blockIdx.x * TILE;
    real total[PART][PART] = {};
    for (int part = 0; part < 3; part++) {
        const int depth = part == 0 ? n_below : part == 1 ? n_above : has_lateral ? n : 0;
        real* kept = part == 0 ? up : down;
        real sum[PART][PART] = {};
        if (depth > 0) {
            // W is (n, n_below), V (n_above, n), and a lateral symmetric: read as (n, n).
            const real* from = part == 0 ? below : part == 1 ? above : state;
            const real* weight = part == 0 ? W : part == 1 ? V : lateral;
            const bool across = part == 1;
            const Matrix B = {weight, n, across ? 1 : depth, across ? n : 1};
            product(sum, Matrix{from, rows, depth, 1}, B, top, left, depth);
        }
#pragma unroll
        for (int r = 0; r < PART; r++)
#pragma unroll
            for (int c = 0; c < PART; c++) {
                const Element e = element(r, c, top, left, rows, n);
                if (!e.inside) continue;
                if (part == 2) total[r][c] += sum[r][c];
                else if (depth > 0) {
                    const real drive = part == 1 ? gamma * sum[r][c] : sum[r][c] + (has_bias ? bias[e.j] : (real)0);
                    kept[e.at] = drive;
                    total[r][c] += drive;
                } else total[r][c] += kept[e.at];
            }
    }
    real largest = 0;
#pragma unroll
    for (int r = 0; r < PART; r++)
#pragma unroll
        for (int c = 0; c < PART; c++) {
            const Element e = element(r, c, top, left, rows, n);
            if (!e.inside) continue;
            real drive = total[r][c];
            if (nudge != 0) drive += (e.i < batch ? nudge : -nudge) * pull[e.at];
            if (mode == STORE) {
                next[e.at] = drive;
                continue;
            }
            const real m = mode == MEAN_DIFFERENCE ? drive : mode == DIFFERENCE ? middle[e.at] : (real)0;
            const real d = mode == MEAN_DIFFERENCE ? middle[e.at] : drive;
            const real aim = mode == RELAX ? rate_of(d, neuron)
                             : mode == DIFFERENCE ? difference_of(m, d, neuron) : mean_of(m, d, neuron);
            const real change = step * (aim - state[e.at]);
            next[e.at] = state[e.at] + change;
            largest = larger(largest, size_of(change));
            if (mode == MEAN_DIFFERENCE) {
                const real differs = step * (difference_of(m, d, neuron) - other[e.at]);
                other_next[e.at] = other[e.at] + differs;
                largest = larger(largest, size_of(differs));
            }
        }
    largest = warp_max(largest);
    if (threadIdx.x % WARP == 0) atomicMax(most, as_bits(largest)); // positive numbers order as their bits
}
