// The fused settle of layered networks: a block takes a few samples through all steps of a phase without leaving the chip.
//
// Same moves, names and orders as kernel/cpu/chain.py; eqkernel.relaxation spells the phases out. Three moves on one
// channel of one layer:
//     refresh_up      up   = W s_below + b
//     refresh_down    down = gamma W^T s_above
//     relax           s moves towards rho(up + down + lateral + nudge)
//
// A channel is something that settles. Channel 0 is the free state, the + state or the mean; channel 1 the - state or
// the difference. A tile of LANES samples lies in shared memory, features first:
//     channel 0, channel 1   state, up, down   rows of layers 1..L each
//     drive                  two sections of the widest layer: drives being put together
//     nudge, target          n_widest rows, n_L rows: the nudge at beta = 1, and what the output should be
//     weights                those of layers 2..L and the laterals, if they fit
// The up of layer 1, W x + b, never changes: dense.cu computes it for the whole batch.
#define BLOCK 256
#include "neurons.cuh"
#include "phase.cuh"

struct alignas(LANES * sizeof(real)) Lanes { // one feature of the samples of a tile
    real of[LANES];
};
__device__ __forceinline__ real* flat(Lanes* p) { return (real*)p; }
__device__ __forceinline__ const real* flat(const Lanes* p) { return (const real*)p; }

struct Tile {
    const int* plan;
    const real* theta;
    Lanes* memory;
    int last, top, rows, widest, channels;
};

__device__ __forceinline__ int of(const Tile& t, int layer, int what) { return t.plan[layer * COLUMNS + what]; }
__device__ __forceinline__ Lanes* piece(const Tile& t, int channel, int section, int layer) {
    return t.memory + (SECTIONS * channel + section) * t.rows + of(t, layer, ROW);
}
__device__ __forceinline__ Lanes* drive_of(const Tile& t, int which) {
    return t.memory + SECTIONS * t.channels * t.rows + which * t.widest;
}
__device__ __forceinline__ Lanes* nudge_of(const Tile& t) { return drive_of(t, 2); }
__device__ __forceinline__ Lanes* target_of(const Tile& t) { return drive_of(t, 3); }

// -- products --------------------------------------------------------------------------------------------------------

// out[i] = bias[i] + sum_k W[i, k] s[k]: a warp a row, its lanes along k. No bias for a difference.
__device__ void weigh_rows(Lanes* out, const real* W, const real* bias, const Lanes* s, int n, int depth) {
    const int lane = threadIdx.x % WARP;
    for (int i = threadIdx.x / WARP; i < n; i += BLOCK / WARP) {
        Lanes sum = {};
        for (int k = lane; k < depth; k += WARP) {
            const real w = W[i * depth + k];
            const Lanes x = s[k];
#pragma unroll
            for (int b = 0; b < LANES; b++) sum.of[b] += w * x.of[b];
        }
#pragma unroll
        for (int b = 0; b < LANES; b++) sum.of[b] = warp_sum(sum.of[b]) + (bias ? bias[i] : (real)0);
        if (lane == 0) out[i] = sum;
    }
}

// out[j] = gain sum_i W[i, j] s[i], added to out if `keep`: a thread a column, neighbours read neighbouring weights.
__device__ void weigh_columns(Lanes* out, const real* W, const Lanes* s, real gain, int n, int depth, bool keep) {
    for (int j = threadIdx.x; j < n; j += BLOCK) {
        Lanes sum = {};
        for (int i = 0; i < depth; i++) {
            const real w = W[i * n + j];
            const Lanes x = s[i];
#pragma unroll
            for (int b = 0; b < LANES; b++) sum.of[b] += w * x.of[b];
        }
        const Lanes old = keep ? out[j] : Lanes{};
#pragma unroll
        for (int b = 0; b < LANES; b++) sum.of[b] = old.of[b] + gain * sum.of[b];
        out[j] = sum;
    }
}

// -- the moves -------------------------------------------------------------------------------------------------------

__device__ void refresh_up(const Tile& t, int channel, int layer, bool biased) {
    weigh_rows(piece(t, channel, UP, layer), t.theta + of(t, layer, WEIGHT),
               biased ? t.theta + of(t, layer, BIAS) : nullptr, piece(t, channel, STATE, layer - 1),
               of(t, layer, SIZE), of(t, layer - 1, SIZE));
}

__device__ void refresh_down(const Tile& t, int channel, int layer, real gamma) {
    weigh_columns(piece(t, channel, DOWN, layer), t.theta + of(t, layer + 1, WEIGHT), piece(t, channel, STATE, layer + 1),
                  gamma, of(t, layer, SIZE), of(t, layer + 1, SIZE), false);
}

// What is added to `up`: `down` itself, or drive `which` = down + lateral + nudge * (the nudge at beta = 1).
__device__ const Lanes* complete_drive(const Tile& t, int channel, int layer, real nudge, int which) {
    const Lanes* down = piece(t, channel, DOWN, layer);
    const bool nudged = nudge != 0 && layer == t.top, lateral = of(t, layer, LATERAL) >= 0;
    if (!nudged && !lateral) return down;
    Lanes* total = drive_of(t, which);
    const int n = of(t, layer, SIZE);
    for (int i = threadIdx.x; i < n; i += BLOCK) {
        Lanes sum = down[i];
        if (nudged) {
            const Lanes pull = nudge_of(t)[i];
#pragma unroll
            for (int b = 0; b < LANES; b++) sum.of[b] += nudge * pull.of[b];
        }
        total[i] = sum;
    }
    // W is symmetric; as its transpose it is read by columns, as the thread of row i has just written total[i].
    if (lateral)
        weigh_columns(total, t.theta + of(t, layer, LATERAL), piece(t, channel, STATE, layer), (real)1, n, n, true);
    __syncthreads();
    return total;
}

// state += step (rho(up + more) - state); the largest change, of this thread's elements, as bits
__device__ bits relax(const Tile& t, int channel, int layer, real nudge, real step) {
    const real* more = flat(complete_drive(t, channel, layer, nudge, 0));
    const real* up = flat(piece(t, channel, UP, layer));
    real* state = flat(piece(t, channel, STATE, layer));
    const int neuron = of(t, layer, NEURON);
    bits largest = 0;
    for (int e = threadIdx.x; e < of(t, layer, SIZE) * LANES; e += BLOCK) {
        approach(state[e], rate_of(up[e] + more[e], neuron), step, largest);
    }
    return largest;
}

// The same of the difference about a mean drive, and with `both` of the mean about its own; without cancellation.
__device__ bits relax_difference(const Tile& t, int layer, real nudge, real step, bool both) {
    const real* more = flat(complete_drive(t, 1, layer, nudge, 0));
    const real* rest = both ? flat(complete_drive(t, 0, layer, 0, 1)) : nullptr;
    const real* up = flat(piece(t, 1, UP, layer));
    const real* middle = flat(piece(t, 0, UP, layer));
    real* difference = flat(piece(t, 1, STATE, layer));
    real* state = flat(piece(t, 0, STATE, layer));
    const int neuron = of(t, layer, NEURON);
    bits largest = 0;
    for (int e = threadIdx.x; e < of(t, layer, SIZE) * LANES; e += BLOCK) {
        const real c = up[e] + more[e], m = both ? middle[e] + rest[e] : middle[e];
        if (both) approach(state[e], mean_of(m, c, neuron), step, largest);
        approach(difference[e], difference_of(m, c, neuron), step, largest);
    }
    return largest;
}

// The readout of a channel: the state of layer L = softmax(W s_top + b), a warp a sample.
__device__ void read_out(const Tile& t, int channel) {
    refresh_up(t, channel, t.last, true);
    __syncthreads();
    const Lanes* up = piece(t, channel, UP, t.last);
    Lanes* out = piece(t, channel, STATE, t.last);
    const int lane = threadIdx.x % WARP, b = threadIdx.x / WARP, n = of(t, t.last, SIZE);
    if (b < LANES) {
        real highest = up[0].of[b], total = 0;
        for (int i = lane; i < n; i += WARP) highest = larger(highest, up[i].of[b]);
        highest = warp_max(highest);
        for (int i = lane; i < n; i += WARP) total += out[i].of[b] = exp_of_negative(up[i].of[b] - highest);
        total = warp_sum(total);
        for (int i = lane; i < n; i += WARP) out[i].of[b] /= total;
    }
    __syncthreads();
}

// The nudge at beta = 1 from a channel's own output: t - s, or W^T (t - p) below a readout.
__device__ void aim(const Tile& t, int channel) {
    const real* target = flat(target_of(t));
    const real* output = flat(piece(t, channel, STATE, t.last));
    real* error = t.top < t.last ? flat(drive_of(t, 0)) : flat(nudge_of(t));
    for (int e = threadIdx.x; e < of(t, t.last, SIZE) * LANES; e += BLOCK) error[e] = target[e] - output[e];
    __syncthreads();
    if (t.top == t.last) return;
    weigh_columns(nudge_of(t), t.theta + of(t, t.last, WEIGHT), drive_of(t, 0), (real)1, of(t, t.top, SIZE),
                  of(t, t.last, SIZE), false);
    __syncthreads();
}

// -- steps -----------------------------------------------------------------------------------------------------------

__device__ void refresh(const Tile& t, int form, int layer, real gamma, bool up, bool down) {
    for (int channel = form == RUN_DIFFERENCE; channel < (form == RUN_FREE || form == RUN_STATE ? 1 : 2); channel++) {
        if (up && layer > 1) refresh_up(t, channel, layer, has_states(form) || channel == 0);
        if (down && layer < t.top) refresh_down(t, channel, layer, gamma);
    }
    __syncthreads();
}

__device__ bits relax_all(const Tile& t, int form, int layer, real beta, real step, int live) {
    bits largest = 0;
    if (has_states(form)) {
        for (int channel = 0; channel < (form == RUN_STATES ? 2 : 1); channel++) {
            if (live && layer == t.top) {
                if (t.top < t.last) read_out(t, channel);
                aim(t, channel);
            }
            largest = max(largest, relax(t, channel, layer, channel ? -beta : beta, step));
            __syncthreads();
        }
    } else {
        largest = relax_difference(t, layer, beta + beta, step, form == RUN_MEAN_DIFFERENCE);
        __syncthreads();
    }
    return largest;
}

// The i-th layer of a step, i = 1..top. The free phase begins at the input's side, the nudged one at the cost's.
__device__ __forceinline__ int visited(int order, int i, int top, int form, bool forward) {
    if (order != EVEN_ODD) return forward ? i : top + 1 - i;
    const int first = form == RUN_FREE || top % 2 == 1 ? 1 : 2, count = (top - first) / 2 + 1;
    return i <= count ? first + 2 * (i - 1) : 3 - first + 2 * (i - 1 - count);
}

__device__ void settle(const Tile& t, Course& course, int form, int order, real gamma, real beta, real step, int live) {
    while (course.goes_on()) {
        bits largest = 0;
        const bool forward = order != SWEEP || (course.taken % 2 == 0) == (form == RUN_FREE);
        // Synchronous order refreshes every drive before any state moves; the others go layer by layer.
        for (int half = 0; half < (order == SYNCHRONOUS ? 2 : 1); half++)
            for (int i = 1; i <= t.top; i++) {
                const int layer = visited(order, i, t.top, form, forward);
                // A half-sweep leaves out the layer it starts from, but the first takes every layer, and each those
                // with lateral connections, whose own state drives them.
                const bool still = order == SWEEP && layer == (forward ? 1 : t.top);
                if (still && course.taken > 0 && of(t, layer, LATERAL) < 0) continue;
                if (half == 0) refresh(t, form, layer, gamma, order != SWEEP || forward, order != SWEEP || !forward);
                if (half == 1 || order != SYNCHRONOUS)
                    largest = max(largest, relax_all(t, form, layer, beta, step, live));
            }
        course.count(largest);
    }
}

// 0, or NaN if this thread finds a state of the last layer that is NaN or infinite
__device__ real not_finite(const Tile& t) {
    const real* state = flat(piece(t, 0, STATE, t.last));
    real bad = 0;
    for (int e = threadIdx.x; e < of(t, t.last, SIZE) * LANES; e += BLOCK) bad = larger(bad, state[e] - state[e]);
    return bad;
}

// -- kernels ---------------------------------------------------------------------------------------------------------

// Copies samples first.. of source (batch, n) to features first; spare lanes repeat the last sample, which settles as
// its original does and so changes neither a residual nor an early stop.
__device__ void load(real* out, const real* from, int first, int batch, int n) {
    for (int e = threadIdx.x; e < n * LANES; e += BLOCK)
        out[e] = from[(long long)min(first + e % LANES, batch - 1) * n + e / LANES];
}

// Writes section STATE of a channel as blocks (batch, n_l), one layer after the other.
__device__ void store(const Tile& t, int channel, real* out, int batch, int first) {
    for (int layer = 1; layer <= t.last; layer++) {
        const int n = of(t, layer, SIZE);
        const real* state = flat(piece(t, channel, STATE, layer));
        real* to = out + (long long)batch * of(t, layer, ROW);
        for (int e = threadIdx.x; e < n * LANES; e += BLOCK)
            if (first + e % LANES < batch) to[(long long)(first + e % LANES) * n + e / LANES] = state[e];
    }
}

// The tile of a block, with theta moved to shared memory if `staged`: layers 2..L have all their weights there, from
// `inner` on, which is where they begin in the network's buffer.
__device__ Tile begin(const int* plan, int layers, const real* theta, int inner, int staged, Lanes* memory, int channels) {
    Tile t = {plan, theta, memory, layers - 1, 0, 0, 0, channels};
    t.top = of(t, t.last, NEURON) == SOFTMAX ? t.last - 1 : t.last;
    t.rows = of(t, t.last, ROW) + of(t, t.last, SIZE);
    for (int layer = 1; layer <= t.last; layer++) t.widest = max(t.widest, of(t, layer, SIZE));
    if (staged) {
        real* copy = flat(target_of(t) + of(t, t.last, SIZE));
        for (int i = threadIdx.x; i < staged; i += BLOCK) copy[i] = theta[inner + i];
        t.theta = copy - inner;
    }
    return t;
}

// Free phase from rest. input (batch, n_1) is W x + b of layer 1; writes states, report (blocks, 3), and for the nudged
// phase everything that the tile of each block holds to kept (blocks, 3 rows, LANES).
extern "C" __global__ void __launch_bounds__(BLOCK, RESIDENT)
free_tiles(const int* plan, int layers, const real* theta, int inner, int staged, const real* input, real* states,
           real* kept, real* report, int batch, int order, int steps, real gamma, real step, real tolerance) {
    extern __shared__ Lanes tile[];
    real* memory = flat(tile);
    const Tile t = begin(plan, layers, theta, inner, staged, tile, 1);
    const int first = blockIdx.x * LANES, size = SECTIONS * t.rows * LANES;
    for (int e = threadIdx.x; e < size; e += BLOCK) memory[e] = 0;
    __syncthreads();
    load(flat(piece(t, 0, UP, 1)), input, first, batch, of(t, 1, SIZE));
    __syncthreads();
    Course course(RUN_FREE, steps, 0, tolerance);
    settle(t, course, RUN_FREE, order, gamma, 0, step, 0);
    if (t.top < t.last) read_out(t, 0);
    course.end(report + 3 * blockIdx.x, not_finite(t));
    store(t, 0, states, batch, first);
    for (int e = threadIdx.x; e < size; e += BLOCK) kept[(long long)blockIdx.x * size + e] = memory[e];
}

// Nudged phase from what free_tiles kept. target (batch, n_L); writes the mean m = (s+ + s-)/2 and the difference
// d = (s+ - s-)/(2 beta) of each layer, as blocks. A softmax readout gets the free p and the error t - p.
extern "C" __global__ void __launch_bounds__(BLOCK, RESIDENT)
nudged_tiles(const int* plan, int layers, const real* theta, int inner, int staged, const real* kept, const real* target,
             real* means, real* differences, real* report, int batch, int form, int order, int steps,
             real gamma, real beta, real step, int live, real tolerance) {
    extern __shared__ Lanes tile[];
    real* memory = flat(tile);
    const Tile t = begin(plan, layers, theta, inner, staged, tile, 2);
    const int first = blockIdx.x * LANES, size = SECTIONS * t.rows * LANES;
    kept += (long long)blockIdx.x * size;
    for (int e = threadIdx.x; e < size; e += BLOCK) {
        memory[e] = kept[e];
        memory[size + e] = form == RUN_STATES ? kept[e] : 0;
    }
    load(flat(target_of(t)), target, first, batch, of(t, t.last, SIZE));
    __syncthreads();
    aim(t, 0);
    if (form == RUN_DIFFERENCE) { // the mean drive stays that of the free state: kept in channel 0's `up`
        for (int layer = 1; layer <= t.last; layer++) {
            const real* rest = flat(complete_drive(t, 0, layer, 0, 0));
            real* up = flat(piece(t, 0, UP, layer));
            for (int e = threadIdx.x; e < of(t, layer, SIZE) * LANES; e += BLOCK) up[e] += rest[e];
            __syncthreads();
        }
    }
    Course course(form, steps, beta, tolerance);
    settle(t, course, form, order, gamma, beta, step, live);
    course.end(report + 3 * blockIdx.x, 0);

    const int readout = of(t, t.last, ROW) * LANES, states = t.rows * LANES;
    real* mean = memory;
    real* difference = memory + size;
    for (int e = threadIdx.x; e < states; e += BLOCK) {
        const real free = kept[e];
        if (t.top < t.last && e >= readout) {
            mean[e] = free;
            difference[e] = flat(target_of(t))[e - readout] - free;
        } else {
            finish(form, beta, free, mean[e], difference[e]);
        }
    }
    __syncthreads();
    store(t, 0, means, batch, first);
    store(t, 1, differences, batch, first);
}
