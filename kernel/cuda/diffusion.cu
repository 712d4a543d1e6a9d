// Diffusion on grids, Phi = D/2 s . (lap s): the verbs of kernel/reference/diffusion.py.
//
// States are (batch, rows, width); a line is a sheet of one row, its own neighbour above and below. weight[0] is D.
#include "neurons.cuh"
#include "diffusion.cuh"

// The sum over the neighbours j of cell (y, x) of s_j - s_i
__device__ __forceinline__ real laplacian(const real* sheet, int y, int x, int rows, int width, int mirror) {
    const real* row = sheet + (long long)y * width;
    const real north = sheet[(long long)source(y - 1, rows, mirror) * width + x];
    const real south = sheet[(long long)source(y + 1, rows, mirror) * width + x];
    const real west = row[source(x - 1, width, mirror)], east = row[source(x + 1, width, mirror)];
    return (north + south) + (west + east) - (real)4 * row[x];
}

// drive += D/2 lap state: both dPhi/dpre and dPhi/dpost, as the Laplacian is symmetric
extern "C" __global__ void __launch_bounds__(256)
drive(real* drive, const real* state, const real* weight, int batch, int rows, int width, int mirror) {
    const int cells = rows * width;
    const real half = (real)0.5 * weight[0];
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < batch * cells; i += gridDim.x * blockDim.x) {
        const int cell = i % cells;
        drive[i] += half * laplacian(state + i - cell, cell / width, cell % width, rows, width, mirror);
    }
}

// out (batch) = post . lap pre: a block a sample, each thread and then each warp its part
extern "C" __global__ void __launch_bounds__(256)
correlate(real* out, const real* pre, const real* post, int rows, int width, int mirror) {
    __shared__ real parts[WARP];
    const int cells = rows * width, lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const long long first = (long long)blockIdx.x * cells;
    real part = 0;
    for (int i = threadIdx.x; i < cells; i += blockDim.x)
        part += post[first + i] * laplacian(pre + first, i / width, i % width, rows, width, mirror);
    part = warp_sum(part);
    if (lane == 0) parts[warp] = part;
    __syncthreads();
    if (warp > 0) return;
    part = warp_sum(lane < blockDim.x / WARP ? parts[lane] : (real)0);
    if (lane == 0) out[blockIdx.x] = part;
}
