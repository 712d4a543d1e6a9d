// What a visit to a layer makes of its drive; shared by layer.cu and tensor.cu.

#define RELAX 0            // next = state + step (rho(c) - state)
#define DIFFERENCE 1       // next = state + step (rho(m + c/2) - rho(m - c/2) - state), m = middle
#define STORE 2            // next = c
#define MEAN_DIFFERENCE 3  // with c = middle and m the drive, both: next a mean, other_next a difference

// Moves `count` states, and with MEAN_DIFFERENCE the differences `other`, given their drive; returns the largest change.
__device__ __forceinline__ real move(int mode, int neuron, real step, const Vector& drive, const Vector& middle,
                                     Vector& state, Vector& other, int count) {
    real largest = 0;
    if (mode == STORE) {
        state = drive;
        return 0;
    }
#pragma unroll
    for (int w = 0; w < WIDE; w++) {
        if (w >= count) continue;
        const real m = mode == MEAN_DIFFERENCE ? drive.of[w] : middle.of[w];
        const real d = mode == MEAN_DIFFERENCE ? middle.of[w] : drive.of[w];
        const real aim = mode == RELAX ? rate_of(d, neuron)
                         : mode == DIFFERENCE ? difference_of(m, d, neuron) : mean_of(m, d, neuron);
        const real change = step * (aim - state.of[w]);
        state.of[w] += change;
        largest = larger(largest, size_of(change));
        if (mode != MEAN_DIFFERENCE) continue;
        const real turn = step * (difference_of(m, d, neuron) - other.of[w]);
        other.of[w] += turn;
        largest = larger(largest, size_of(turn));
    }
    return largest;
}
