// The fused settle of networks with one hidden layer below a narrow output: a block takes a sample through all steps of a
// phase in registers.
//
// The moves, orders and forms of fused.cu, for two layers that both move, of dense connections and biases. A thread has
// UNITS hidden units with their columns of W, the weights of layer 2, from the first step to the last. Every warp has all
// outputs, one a lane (spare lanes repeat the last), and computes them to the same bits. So a step has one barrier:
//     refresh_down    down = gamma W^T s_2    each lane passes its output on to its warp
//     refresh_up      up   = W s_1 + b        sums over all threads, folded in each warp and then gathered by all
// The launcher defines OUTPUTS, the size of layer 2, UNITS, and BLOCK, threads for all hidden units. Units that are not there
// have no weights, and rest where no drive holds them.
#include "neurons.cuh"
#include "phase.cuh"

#define WARPS (BLOCK / WARP)

struct Weights { // of a thread
    real of[UNITS][OUTPUTS], bias, input[UNITS]; // input: W x + b of its hidden units, or their whole mean drive
    int hidden, output, n;                       // the neurons of both layers, and the size of the hidden one
};

struct Channel { // of a thread; fused.cu says which channel is what
    real state[UNITS], down[UNITS], output, up;
};

template <int FORM> struct Runs { // the channels that settle
    static constexpr int FIRST = FORM == RUN_DIFFERENCE, LAST = FORM != RUN_FREE && FORM != RUN_STATE;
    static constexpr int COUNT = LAST - FIRST + 1;
};

__device__ __forceinline__ int lane() { return threadIdx.x % WARP; }
__device__ __forceinline__ int output() { return min(lane(), OUTPUTS - 1); }
__device__ __forceinline__ int hidden(int unit) { return unit * BLOCK + threadIdx.x; }

// -- sums over a warp ------------------------------------------------------------------------------------------------

// Sums each of N values over the lanes of a warp; value[0] is then the sum of value place_of<N>(), where that is not -1.
// Lanes that are APART = 16, 8, .. 1 from one another share what they still hold: each passes half of it on.
template <int N> __device__ __forceinline__ void fold(real (&value)[N]) {
    int held = N;
#pragma unroll
    for (int apart = WARP / 2; apart; apart /= 2) {
        const int half = (held + 1) / 2;
        const bool upper = lane() & apart;
#pragma unroll
        for (int h = 0; h < (N + 1) / 2; h++) {
            if (h >= half) continue;
            const real other = h + half < held ? value[(h + half) % N] : (real)0;
            const real passed = __shfl_xor_sync(0xffffffffu, upper ? value[h] : other, apart);
            value[h] = (upper ? other : value[h]) + passed;
        }
        held = half;
    }
}
template <int N> __device__ __forceinline__ int place_of() {
    int place = 0, held = N, mine = N;
#pragma unroll
    for (int apart = WARP / 2; apart; apart /= 2) {
        const int half = (held + 1) / 2;
        if (lane() & apart) place += half, mine -= half;
        else mine = min(mine, half);
        held = half;
    }
    return mine > 0 ? place : -1;
}

#define SUMS (WARPS * 2 * OUTPUTS) // of all warps, for two channels
__device__ __forceinline__ real* sums() {
    __shared__ real memory[2 * SUMS];
    return memory;
}

// -- the moves -------------------------------------------------------------------------------------------------------

template <int FORM> __device__ __forceinline__ void refresh_down(const Weights& w, Channel (&c)[2], real gamma) {
#pragma unroll
    for (int k = Runs<FORM>::FIRST; k <= Runs<FORM>::LAST; k++) {
        real sum[UNITS] = {};
#pragma unroll
        for (int i = 0; i < OUTPUTS; i++) {
            const real s = __shfl_sync(0xffffffffu, c[k].output, i);
#pragma unroll
            for (int u = 0; u < UNITS; u++) sum[u] += w.of[u][i] * s;
        }
#pragma unroll
        for (int u = 0; u < UNITS; u++) c[k].down[u] = gamma * sum[u];
    }
}

// mine: where in `sums` this thread writes, or -1; turn: 0 and SUMS by turns, so that no warp writes what a slower one
// still reads.
template <int FORM> __device__ __forceinline__ void refresh_up(const Weights& w, Channel (&c)[2], int mine, int& turn) {
    constexpr int N = Runs<FORM>::COUNT * OUTPUTS;
    real sum[N] = {};
#pragma unroll
    for (int u = 0; u < UNITS; u++)
#pragma unroll
        for (int n = 0; n < N; n++) sum[n] += w.of[u][n % OUTPUTS] * c[Runs<FORM>::FIRST + n / OUTPUTS].state[u];
    fold(sum);
    if (mine >= 0) sums()[turn + mine] = sum[0];
    __syncthreads(); // all sums are written
    const real* all = sums() + turn + output();
#pragma unroll
    for (int k = 0; k < Runs<FORM>::COUNT; k++) {
        Channel& to = c[Runs<FORM>::FIRST + k];
        to.up = has_states(FORM) || Runs<FORM>::FIRST + k == 0 ? w.bias : 0; // no bias for a difference
#pragma unroll
        for (int warp = 0; warp < WARPS; warp++) to.up += all[warp * 2 * OUTPUTS + k * OUTPUTS];
    }
    turn ^= SUMS;
}

// The states of a unit move, given the drives of both channels.
template <int FORM>
__device__ __forceinline__ void relax(real& state, real& other, real drive, real other_drive, int neuron, real step,
                                      bits& largest) {
    if (has_states(FORM)) {
        approach(state, rate_of(drive, neuron), step, largest);
        if (FORM == RUN_STATES) approach(other, rate_of(other_drive, neuron), step, largest);
    } else {
        if (FORM == RUN_MEAN_DIFFERENCE) approach(state, mean_of(drive, other_drive, neuron), step, largest);
        approach(other, difference_of(drive, other_drive, neuron), step, largest);
    }
}

template <int FORM>
__device__ __forceinline__ void relax_hidden(const Weights& w, Channel (&c)[2], real step, bits& largest) {
    with_neuron(w.hidden, [&](auto neuron) {
#pragma unroll
        for (int u = 0; u < UNITS; u++) {
            const real drive = w.input[u] + c[0].down[u];
            const real other = FORM == RUN_STATES ? w.input[u] + c[1].down[u] : c[1].down[u];
            relax<FORM>(c[0].state[u], c[1].state[u], drive, other, neuron.code, step, largest);
        }
    });
}

// -- phases ----------------------------------------------------------------------------------------------------------

template <int FORM>
__device__ __forceinline__ void settle(const Weights& w, Channel (&c)[2], Course& course, int order, real gamma, real beta,
                                       real step, int live, real target) {
    const real nudge = has_states(FORM) ? beta : 0, other_nudge = has_states(FORM) ? -beta : beta + beta;
    const int place = place_of<Runs<FORM>::COUNT * OUTPUTS>(), mine = place < 0 ? -1 : threadIdx.x / WARP * 2 * OUTPUTS + place;
    real pull = target - c[0].output, other_pull = pull; // the nudge at beta = 1
    int turn = 0;
#pragma unroll 1
    while (course.goes_on()) {
        bits largest = 0;
        // The free phase begins at the input's side, the nudged one at the cost's; half-sweeps take turns.
        const bool upwards = order == SYNCHRONOUS || (FORM == RUN_FREE) == (order != SWEEP || course.taken % 2 == 0);
        // A half-sweep leaves out the layer it starts from, but the first takes it with the drive that is there.
#pragma unroll 1
        for (int i = order == SWEEP && course.taken > 0; i < 2; i++) {
            const bool fresh = order != SWEEP || i > 0;
            if ((i == 0) == upwards) {
                if (fresh) refresh_down<FORM>(w, c, gamma);
                // Synchronous order refreshes both drives before any state moves.
                if (order == SYNCHRONOUS) refresh_up<FORM>(w, c, mine, turn);
                relax_hidden<FORM>(w, c, step, largest);
            } else {
                if (fresh && order != SYNCHRONOUS) refresh_up<FORM>(w, c, mine, turn);
                if (live) pull = target - c[0].output, other_pull = target - c[1].output;
                relax<FORM>(c[0].output, c[1].output, c[0].up + nudge * pull, c[1].up + other_nudge * other_pull, w.output,
                            step, largest);
            }
        }
        course.count(largest);
    }
}

// input: W x + b of the hidden layer, of the sample of this block
__device__ __forceinline__ Weights begin(const int* plan, const real* theta, const real* input) {
    const int* one = plan + COLUMNS;
    const int* two = one + COLUMNS;
    Weights w;
    w.n = one[SIZE], w.hidden = one[NEURON], w.output = two[NEURON];
    w.bias = theta[two[BIAS] + output()];
#pragma unroll
    for (int u = 0; u < UNITS; u++) {
        const bool there = hidden(u) < w.n;
        w.input[u] = there ? input[hidden(u)] : (real)0;
#pragma unroll
        for (int i = 0; i < OUTPUTS; i++) w.of[u][i] = there ? theta[two[WEIGHT] + i * w.n + hidden(u)] : (real)0;
    }
    return w;
}

__device__ __forceinline__ real state_of(const Channel& c, int unit) { return unit < 0 ? c.output : c.state[max(unit, 0)]; }

// Calls f(unit, at) for all that this thread writes of a sample, its hidden units and maybe an output, unit -1: element `at`
// of n + OUTPUTS.
template <class F> __device__ __forceinline__ void each_own(int n, F f) {
#pragma unroll
    for (int u = 0; u < UNITS; u++)
        if (hidden(u) < n) f(u, hidden(u));
    if (threadIdx.x < OUTPUTS) f(-1, n + threadIdx.x);
}

// Where element `at` of a sample lies in blocks (batch, n) and (batch, OUTPUTS), one after the other
__device__ __forceinline__ long long in_blocks(int at, int n, int batch) {
    const long long sample = blockIdx.x;
    return at < n ? sample * n + at : (long long)batch * n + sample * OUTPUTS + at - n;
}

// Free phase from rest. input (batch, n) is W x + b of layer 1; writes states, report (batch, 3), and for the nudged phase
// kept (batch, SECTIONS, n + OUTPUTS).
extern "C" __global__ void __launch_bounds__(BLOCK, 1)
free_sample(const int* plan, const real* theta, const real* input, real* states, real* kept, real* report, int batch,
            int order, int steps, real gamma, real step, real tolerance) {
    const int n = plan[COLUMNS + SIZE], rows = n + OUTPUTS;
    const Weights w = begin(plan, theta, input + (long long)blockIdx.x * n);
    Channel c[2] = {};
    const real rest = rate_of(0, w.hidden);
#pragma unroll
    for (int u = 0; u < UNITS; u++) c[0].state[u] = hidden(u) < n ? (real)0 : rest;
    Course course(RUN_FREE, steps, 0, tolerance);
    settle<RUN_FREE>(w, c, course, order, gamma, 0, step, 0, 0);
    course.end(report + 3 * blockIdx.x, 0);
    kept += (long long)blockIdx.x * SECTIONS * rows;
    each_own(n, [&](int u, int at) {
        states[in_blocks(at, n, batch)] = kept[STATE * rows + at] = state_of(c[0], u);
        kept[UP * rows + at] = u < 0 ? c[0].up : w.input[max(u, 0)];
        kept[DOWN * rows + at] = u < 0 ? (real)0 : c[0].down[max(u, 0)];
    });
}

template <int FORM>
__device__ __forceinline__ void nudge(const int* plan, const real* theta, const real* kept, const real* target, real* means,
                                      real* differences, real* report, int batch, int order, int steps, real gamma,
                                      real beta, real step, int live, real tolerance) {
    const int n = plan[COLUMNS + SIZE], rows = n + OUTPUTS;
    kept += (long long)blockIdx.x * SECTIONS * rows;
    Weights w = begin(plan, theta, kept + UP * rows);
    Channel c[2] = {};
    const real rest = rate_of(0, w.hidden);
#pragma unroll
    for (int u = 0; u < UNITS; u++) {
        const bool there = hidden(u) < n;
        c[0].state[u] = there ? kept[hidden(u)] : rest;
        c[0].down[u] = there ? kept[DOWN * rows + hidden(u)] : (real)0;
    }
    c[0].output = kept[n + output()], c[0].up = kept[UP * rows + n + output()];
    if (FORM == RUN_STATES) c[1] = c[0];
    if (FORM == RUN_DIFFERENCE) // the mean drive stays that of the free state
#pragma unroll
        for (int u = 0; u < UNITS; u++) w.input[u] += c[0].down[u], c[0].down[u] = 0;
    Course course(FORM, steps, beta, tolerance);
    settle<FORM>(w, c, course, order, gamma, beta, step, live, target[blockIdx.x * OUTPUTS + output()]);
    course.end(report + 3 * blockIdx.x, 0);
    each_own(n, [&](int u, int at) {
        real mean = state_of(c[0], u), difference = state_of(c[1], u);
        finish(FORM, beta, kept[at], mean, difference);
        means[in_blocks(at, n, batch)] = mean;
        differences[in_blocks(at, n, batch)] = difference;
    });
}

// Nudged phase from what free_sample kept. target (batch, OUTPUTS); writes the mean m = (s+ + s-)/2 and the difference
// d = (s+ - s-)/(2 beta) of each layer, as blocks.
extern "C" __global__ void __launch_bounds__(BLOCK, 1)
nudged_sample(const int* plan, const real* theta, const real* kept, const real* target, real* means, real* differences,
              real* report, int batch, int form, int order, int steps, real gamma, real beta, real step, int live,
              real tolerance) {
#define NUDGE(FORM)                                                                                                    \
    case FORM:                                                                                                         \
        return nudge<FORM>(plan, theta, kept, target, means, differences, report, batch, order, steps, gamma, beta, step,  \
                           live, tolerance)
    switch (form) {
        NUDGE(RUN_STATE);
        NUDGE(RUN_STATES);
        NUDGE(RUN_DIFFERENCE);
        NUDGE(RUN_MEAN_DIFFERENCE);
    }
}
