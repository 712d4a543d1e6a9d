// Neurons, element by element: rate, relaxation, difference; and the softmax of a readout.
#include "neurons.cuh"

// out (n) = rho(drive)
extern "C" __global__ void __launch_bounds__(256, 2) rate(real* out, const real* drive, int n, int neuron) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        out[i] = rate_of(drive[i], neuron);
}

// state (n) += step (rho(drive) - state)
extern "C" __global__ void __launch_bounds__(256, 2) relax(real* state, const real* drive, int n, real step, int neuron) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        state[i] += step * (rate_of(drive[i], neuron) - state[i]);
}

// out (n) = rho(mean + c/2) - rho(mean - c/2), c the difference of the drives
extern "C" __global__ void __launch_bounds__(256, 2)
difference(real* out, const real* mean, const real* drive_difference, int n, int neuron) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        out[i] = difference_of(mean[i], drive_difference[i], neuron);
}

// out (rows, classes) = softmax of each row of drive: a warp a row
extern "C" __global__ void __launch_bounds__(256, 2) softmax(real* out, const real* drive, int rows, int classes) {
    const int lane = threadIdx.x % WARP, row = (blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    if (row >= rows) return;
    drive += (long long)row * classes;
    out += (long long)row * classes;
    real highest = drive[0], total = 0;
    for (int i = lane; i < classes; i += WARP) highest = larger(highest, drive[i]);
    highest = warp_max(highest);
    for (int i = lane; i < classes; i += WARP) total += out[i] = exp_of_negative(drive[i] - highest);
    total = warp_sum(total);
    for (int i = lane; i < classes; i += WARP) out[i] /= total;
}
