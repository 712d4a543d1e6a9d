// FitzHugh-Nagumo field, several steps of time in one pass over memory: kernel/reference/field.py has the equations.
//
// A warp marches down a strip of the grid, WIDE columns a lane, and keeps of every step the last two rows in registers.
// Each row that it loads gives one row of the first step, that one of the second, and so on; what comes out at the end
// is `STEPS` rows behind. Neighbours across are lanes, neighbours above and below registers: nothing waits for a barrier.
// Of a strip the outermost EDGE lanes are loaded for their neighbours' sake only, and so are STEPS rows above and below;
// strips overlap as loaded and meet as written. Beyond a boundary lie images of the grid, which stay images (of a line,
// above and below, itself). Every cell is the same sum in the same order, whatever its strip.
#include "neurons.cuh"
#include "vector.cuh"
#include "diffusion.cuh"

#define FIELD_THREADS 32
#define ALL 0xffffffffu
#define EDGE ((STEPS + WIDE - 1) / WIDE)
#define INNER ((WARP - 2 * EDGE) * WIDE)

struct Row { // a lane's cells of a row, both species
    Vector u, v;
};
struct Rates {
    real Du_dt, Dv_dt, dt, eps_dt, alpha, beta;
};

__device__ __forceinline__ real laplacian(const Vector& above, const Vector& here, const Vector& below, int c) {
    const real left = c > 0 ? here.of[max(c - 1, 0)] : __shfl_up_sync(ALL, here.of[WIDE - 1], 1);
    const real right = c < WIDE - 1 ? here.of[min(c + 1, WIDE - 1)] : __shfl_down_sync(ALL, here.of[0], 1);
    return (above.of[c] + below.of[c]) + (left + right) - (real)4 * here.of[c];
}

// The row `here` a step later
__device__ __forceinline__ Row stepped(const Row& above, const Row& here, const Row& below, const Rates& r) {
    Row next;
#pragma unroll
    for (int c = 0; c < WIDE; c++) {
        const real u = here.u.of[c], v = here.v.of[c];
        next.u.of[c] = u + (r.Du_dt * laplacian(above.u, here.u, below.u, c) + r.dt * (u - u * u * u - v));
        next.v.of[c] = v + (r.Dv_dt * laplacian(above.v, here.v, below.v, c) + r.eps_dt * (u - r.alpha * v - r.beta));
    }
    return next;
}

struct Grid {
    const real* state;
    int rows, width, mirror;
    int x;         // the first of the lane's columns
    bool together; // whether they lie together in memory, from `begin` on, at a multiple of 16 bytes
    int begin;
};

// `source`, whose divisions nearly no cell needs
__device__ __forceinline__ int cell(int i, int n, int mirror) { return i >= 0 && i < n ? i : source(i, n, mirror); }

__device__ __forceinline__ Row row_at(const Grid& g, int y) {
    const real* u = g.state + (long long)cell(y, g.rows, g.mirror) * g.width;
    const real* v = u + (long long)g.rows * g.width;
    if (g.together) return {load(u + g.begin), load(v + g.begin)};
    Row row;
#pragma unroll
    for (int c = 0; c < WIDE; c++) {
        const int x = cell(g.x + c, g.width, g.mirror);
        row.u.of[c] = u[x], row.v.of[c] = v[x];
    }
    return row;
}

// state, after (2, rows, width); the grid is (strips, rows / height). With `measure`, largest (1), at least 0 before,
// becomes the largest |u| or |v| if that is larger, as the bits of a positive number: they order as the numbers do, and
// those of a NaN are above all.
extern "C" __global__ void __launch_bounds__(FIELD_THREADS, 6 * RESIDENT)
advance(real* after, const real* state, bits* largest, int rows, int width, int height, int mirror, int measure,
        real Du_dt, real Dv_dt, real dt, real eps_dt, real alpha, real beta) {
    const Rates rates = {Du_dt, Dv_dt, dt, eps_dt, alpha, beta};
    const int lane = threadIdx.x, left = blockIdx.x * INNER - EDGE * WIDE, x = left + lane * WIDE;
    const int top = blockIdx.y * height, count = min(height, rows - top) + 2 * STEPS;
    const int begin = cell(x, width, mirror);
    const Grid grid = {state, rows, width, mirror, x, width % WIDE == 0 && (!mirror || begin == x), begin};

    Row last[STEPS][2] = {}; // of each step the row before the last and the last, or the other way round
    Row ahead[2] = {row_at(grid, top - STEPS), row_at(grid, top - STEPS + 1)}; // on their way
    bits most = 0;
    for (int r = 0; r < count; r += 2) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            Row row = ahead[half];
            if (r + half + 2 < count) ahead[half] = row_at(grid, top - STEPS + r + half + 2);
#pragma unroll
            for (int s = 0; s < STEPS; s++) {
                const Row next = stepped(last[s][half], last[s][1 - half], row, rates);
                last[s][half] = row;
                row = next;
            }
            const int y = top - 2 * STEPS + r + half;
            if (y < top || r + half >= count || lane < EDGE || lane >= WARP - EDGE) continue;
            real* u = after + (long long)y * width;
            real* v = u + (long long)rows * width;
            if (width % WIDE == 0) {
                if (x < width) store(u + x, row.u), store(v + x, row.v);
            } else {
#pragma unroll
                for (int c = 0; c < WIDE; c++)
                    if (x + c < width) u[x + c] = row.u.of[c], v[x + c] = row.v.of[c];
            }
            if (!measure) continue;
#pragma unroll
            for (int c = 0; c < WIDE; c++)
                if (x + c < width)
                    most = max(most, max(as_bits(size_of(row.u.of[c])), as_bits(size_of(row.v.of[c]))));
        }
    }
    if (!measure) return;
    for (int other = WARP / 2; other; other /= 2) most = max(most, __shfl_xor_sync(ALL, most, other));
    if (lane == 0) atomicMax(largest, most);
}
