// What a training step reports of each sample: its loss, and whether its most active output is right.
#include "neurons.cuh"

// The place of the largest of x (n), the first if there are several, for every lane of the warp.
__device__ __forceinline__ int place_of_largest(const real* x, int n) {
    real most = 0;
    int place = n; // of nothing yet
    for (int i = threadIdx.x % WARP; i < n; i += WARP)
        if (place == n || x[i] > most) most = x[i], place = i;
#pragma unroll
    for (int apart = WARP / 2; apart; apart /= 2) {
        const real other = __shfl_xor_sync(0xffffffffu, most, apart);
        const int there = __shfl_xor_sync(0xffffffffu, place, apart);
        if (place == n || (there < n && (other > most || (other == most && there < place)))) most = other, place = there;
    }
    return place;
}

// output, target (batch, n); writes the loss of each sample, and 1 if it is right, 0 if not, -1 if its target is 0 all over,
// as that of a label is which is none. cross_entropy: whether the loss is that, or the squared error. A warp a sample.
extern "C" __global__ void __launch_bounds__(256)
score(real* loss, real* right, const real* output, const real* target, int batch, int n, int cross_entropy) {
    const int lane = threadIdx.x % WARP, sample = (blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    if (sample >= batch) return;
    output += (long long)sample * n;
    target += (long long)sample * n;
    real total = 0, asked = 0;
    for (int i = lane; i < n; i += WARP) {
        const real error = target[i] - output[i];
        total += cross_entropy ? -target[i] * log(larger(output[i], LEAST)) : (real)0.5 * error * error;
        asked = larger(asked, size_of(target[i]));
    }
    total = warp_sum(total);
    asked = warp_max(asked);
    const bool same = place_of_largest(output, n) == place_of_largest(target, n);
    if (lane == 0) loss[sample] = total, right[sample] = asked == 0 ? -1 : same;
}
