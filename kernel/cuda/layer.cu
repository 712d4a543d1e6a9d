// One layer of a large network relaxed in one launch: the products over its neighbours, and in their epilogue leak and
// activation. Blocks of a layer see only other layers, or old states, so launches in order are all the barriers needed.
//
// States are (rows, n); rows is the batch, or twice it where a + and a - state settle together, the + states first. A new
// state goes to `next`, as laterals, and in synchronous order neighbours, must see the old one.
#include "neurons.cuh"
#include "gemm.cuh"
#include "moves.cuh"

// up (rows, n) = below W^T + bias if n_below > 0, down = gamma above V if n_above > 0; else they are as they were.
// lateral (n, n) of the old state if has_lateral; pull (rows, n) times nudge, or - nudge beyond the batch.
// most (1): the largest change of this step so far, as bits.
extern "C" __global__ void __launch_bounds__(GEMM_THREADS, GEMM_BLOCKS)
relax_layer(int mode, real* next, const real* state, real* other_next, const real* other, const real* middle, real* up,
            real* down, const real* below, const real* W, const real* bias, const real* above, const real* V,
            const real* lateral, const real* pull, bits* most, int rows, int batch, int n, int n_below, int n_above,
            int has_lateral, int has_bias, real gamma, real nudge, real step, int neuron) {
    const int top = blockIdx.y * TILE, left = blockIdx.x * TILE;
    real sum[PART_ROWS][PART_COLUMNS] = {};
#pragma unroll 1
    for (int part = 0; part < 3; part++) {
        const int depth = part == 0 ? n_below : part == 1 ? n_above : has_lateral ? n : 0;
        if (depth == 0) continue;
        // W is (n, n_below), V (n_above, n), and a lateral symmetric: read as (n, n).
        const real* from = part == 0 ? below : part == 1 ? above : state;
        const real* weight = part == 0 ? W : part == 1 ? V : lateral;
        const bool across = part == 1;
        const Matrix B = {weight, n, across ? 1 : depth, across ? n : 1};
        multiply(sum, Matrix{from, rows, depth, 1}, B, top, left, depth);
        if (part == 2) break;
        each_piece(sum, [&](Vector drive, int i, int j) {
            const Piece p = piece(top + i, left + j, rows, n);
            if (p.count == 0) return;
            Vector more = {};
            if (part == 0 && has_bias) more = load_some(bias + p.j, p.count, p.together);
#pragma unroll
            for (int w = 0; w < WIDE; w++) drive.of[w] = part == 1 ? gamma * drive.of[w] : drive.of[w] + more.of[w];
            store_some((part == 0 ? up : down) + p.at, drive, p.count, p.together);
        });
#pragma unroll
        for (int r = 0; r < PART_ROWS; r++)
#pragma unroll
            for (int c = 0; c < PART_COLUMNS; c++) sum[r][c] = 0;
    }
    real largest = 0;
    each_piece(sum, [&](Vector drive, int i, int j) {
        const Piece p = piece(top + i, left + j, rows, n);
        if (p.count == 0) return;
        const auto at = [&](const real* array) { return load_some(array + p.at, p.count, p.together); };
        const Vector one = at(up), two = at(down), pulled = nudge != 0 ? at(pull) : Vector{};
        const real by = p.i < batch ? nudge : -nudge;
#pragma unroll
        for (int w = 0; w < WIDE; w++) drive.of[w] += one.of[w] + two.of[w] + by * pulled.of[w];
        Vector now = mode == STORE ? Vector{} : at(state), differs = mode == MEAN_DIFFERENCE ? at(other) : Vector{};
        const Vector about = mode == RELAX || mode == STORE ? Vector{} : at(middle);
        largest = larger(largest, move(mode, neuron, step, drive, about, now, differs, p.count));
        store_some(next + p.at, now, p.count, p.together);
        if (mode == MEAN_DIFFERENCE) store_some(other_next + p.at, differs, p.count, p.together);
    });
    largest = warp_max(largest);
    if (threadIdx.x % WARP == 0) atomicMax(most, as_bits(largest)); // positive numbers order as their bits
}
