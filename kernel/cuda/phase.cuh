// What the fused settles of fused.cu and shallow.cu share: the plan, how a phase goes on and ends, and what it leaves.
// A block has BLOCK threads.

enum { SIZE, WEIGHT, BIAS, LATERAL, NEURON, ROW, COLUMNS }; // of the plan, one row a layer; LATERAL -1: there is none
enum { STATE, UP, DOWN, SECTIONS };                         // of what is kept between phases

__device__ __forceinline__ constexpr bool has_states(int form) {
    return form == RUN_FREE || form == RUN_STATE || form == RUN_STATES;
}

// A state moves a step towards `aim`; the largest change so far, as bits: they order as positive numbers do, NaN on top.
__device__ __forceinline__ void approach(real& state, real aim, real step, bits& largest) {
    const real change = step * (aim - state);
    state += change;
    largest = max(largest, as_bits(size_of(change)));
}

// The largest x of the block's threads, for all of them.
__device__ real block_max(real x) {
    __shared__ real parts[BLOCK / WARP];
    x = warp_max(x);
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = x;
    __syncthreads();
    for (int w = 0; w < BLOCK / WARP; w++) x = larger(x, parts[w]);
    __syncthreads();
    return x;
}

// Steps until the residual falls below `tolerance` or they run out. The residual is in units of beta in a nudged phase.
// Without early stop threads meet their neighbours' changes only at the end.
struct Course {
    int steps, taken;
    real unit, tolerance, residual, early;

    __device__ __forceinline__ Course(int form, int steps, real beta, real tolerance)
        : steps(steps), taken(0), tolerance(tolerance), residual(0), early(0) {
        unit = form == RUN_FREE ? (real)1 : (real)1 / size_of(form <= RUN_STATES ? beta : beta + beta);
    }
    __device__ __forceinline__ bool goes_on() const {
        return taken < steps && !(taken > 0 && tolerance > 0 && residual < tolerance);
    }
    // A step is done in which `largest` is the largest change of this thread's states.
    __device__ __forceinline__ void count(bits largest) {
        residual = unit * from_bits(largest);
        if (tolerance > 0) residual = block_max(residual);
        if (2 * taken < steps) early = larger(early, residual);
        taken++;
    }
    // report (3): steps taken, last residual, largest residual in the first half of the steps. `bad` is 0, or NaN if a
    // state of the last layer is NaN or infinite, and so is then the residual: a readout takes part in no step.
    __device__ void end(real* report, real bad) {
        residual = block_max(residual), early = block_max(early), bad = block_max(bad);
        if (threadIdx.x == 0) report[0] = taken, report[1] = residual + bad, report[2] = early;
    }
};

// In every form the same result: the mean m = (s+ + s-)/2 and the difference d = (s+ - s-)/(2 beta), of what the channels
// hold and the free state.
__device__ __forceinline__ void finish(int form, real beta, real free, real& mean, real& difference) {
    if (form == RUN_STATE) {
        difference = (mean - free) / beta;
        mean = (real)0.5 * (mean + free);
    } else if (form == RUN_STATES) {
        const real plus = mean, minus = difference;
        mean = (real)0.5 * (plus + minus);
        difference = (real)0.5 * (plus - minus) / beta;
    } else {
        difference *= (real)0.5 / beta;
    }
}
