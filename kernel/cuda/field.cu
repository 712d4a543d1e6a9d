// FitzHugh-Nagumo field, several steps of time in one pass over memory: kernel/reference/field.py has the equations.
//
// A block loads an EDGE x EDGE square of both species into shared memory, of which each step can renew all but the
// outermost cells; after `steps` steps it writes back the square that is left, `steps` cells in from every side. Squares
// overlap as loaded and meet as written, so blocks need nothing from each other. Beyond a boundary lie images of the
// grid, which stay images. Every cell is the same sum in the same order, whatever its block.
#include "neurons.cuh"
#include "diffusion.cuh"

#define EDGE 40
#define FIELD_THREADS 256
#define CELLS (EDGE * EDGE)

// state, after (2, rows, width); reach is 1, or 0 for a line of one row. c: Du dt, Dv dt_v, dt, eps dt_v, alpha, beta.
// largest (1), at least 0 before, becomes the largest |u| or |v| if that is larger, as the bits of a positive number.
extern "C" __global__ void __launch_bounds__(FIELD_THREADS)
advance(real* after, const real* state, bits* largest, int rows, int width, int steps, int mirror,
        real Du_dt, real Dv_dt, real dt, real eps_dt, real alpha, real beta) {
    extern __shared__ real memory[]; // two copies, each of both species
    const int reach = rows > 1 ? 1 : 0, high = reach ? EDGE : 1;
    const int inner = EDGE - 2 * steps, left = blockIdx.x * inner - steps, top = reach ? blockIdx.y * inner - steps : 0;
    for (int i = threadIdx.x; i < high * EDGE; i += FIELD_THREADS) {
        const int y = source(top + i / EDGE, rows, mirror), x = source(left + i % EDGE, width, mirror);
        memory[i] = state[(long long)y * width + x];
        memory[CELLS + i] = state[(long long)(rows + y) * width + x];
    }
    __syncthreads();
    real* now = memory;
    real* next = memory + 2 * CELLS;
    for (int step = 1; step <= steps; step++) {
        const int across = EDGE - 2 * step, down = reach ? across : 1;
        for (int i = threadIdx.x; i < across * down; i += FIELD_THREADS) {
            const int at = (reach * step + i / across) * EDGE + step + i % across, row = reach * EDGE;
            const real u = now[at], v = now[CELLS + at];
            const real lap_u = (now[at - row] + now[at + row]) + (now[at - 1] + now[at + 1]) - (real)4 * u;
            const real lap_v = (now[CELLS + at - row] + now[CELLS + at + row]) +
                               (now[CELLS + at - 1] + now[CELLS + at + 1]) - (real)4 * v;
            next[at] = u + (Du_dt * lap_u + dt * (u - u * u * u - v));
            next[CELLS + at] = v + (Dv_dt * lap_v + eps_dt * (u - alpha * v - beta));
        }
        __syncthreads();
        real* last = now;
        now = next;
        next = last;
    }
    real most = 0;
    const int tall = reach ? inner : 1;
    for (int i = threadIdx.x; i < inner * tall; i += FIELD_THREADS) {
        const int dy = i / inner, dx = i % inner, at = (reach * steps + dy) * EDGE + steps + dx;
        const int y = (reach ? blockIdx.y * inner : 0) + dy, x = blockIdx.x * inner + dx;
        if (y >= rows || x >= width) continue;
        after[(long long)y * width + x] = now[at];
        after[(long long)(rows + y) * width + x] = now[CELLS + at];
        most = larger(most, larger(size_of(now[at]), size_of(now[CELLS + at])));
    }
    most = warp_max(most);
    if (threadIdx.x % WARP == 0) atomicMax(largest, as_bits(most)); // positive numbers order as their bits; NaN is above
}
