// Convolution, Phi = <post, P(K * pre)>: the verbs of kernel/reference/conv.py as matrix products that gather as they go.
//
// States are flat maps, channels last. The launcher writes the geometry before this text (PRE_HEIGHT, PRE_WIDTH, ...; see
// kernel/geometry.py), so that every division below is one by a constant. winners (batch, n_post) are read only where
// the pool is MAX.
#include "neurons.cuh"
#include "gemm.cuh"

#define TAPS (KERNEL * KERNEL)
#define PLACES (MAP_HEIGHT * MAP_WIDTH)                 // of the map before pooling
#define N_PRE (PRE_HEIGHT * PRE_WIDTH * PRE_CHANNELS)
#define N_POST (POST_HEIGHT * POST_WIDTH * POST_CHANNELS)

// What a tap, (u, v) and channel c, sees at a place (b, i, j) of the map: element (place, tap), 0 outside pre's map.
struct Patches {
    static constexpr bool IN_MEMORY = false; // but 0 beyond its edges
    const real* pre;
    int rows;
    __device__ __forceinline__ bool along_depth() const { return true; }
    __device__ __forceinline__ real at(int row, int column) const {
        const int b = row / PLACES, place = row % PLACES, tap = column / PRE_CHANNELS, c = column % PRE_CHANNELS;
        const int y = STRIDE * (place / MAP_WIDTH) + tap / KERNEL - PADDING;
        const int x = STRIDE * (place % MAP_WIDTH) + tap % KERNEL - PADDING;
        if (y < 0 || y >= PRE_HEIGHT || x < 0 || x >= PRE_WIDTH) return 0;
        return pre[(long long)b * N_PRE + (y * PRE_WIDTH + x) * PRE_CHANNELS + c];
    }
};

// The same with the taps for rows: element (tap, place)
struct Turned {
    static constexpr bool IN_MEMORY = false;
    Patches patches;
    int rows;
    __device__ __forceinline__ bool along_depth() const { return false; }
    __device__ __forceinline__ real at(int tap, int place) const { return patches.at(place, tap); }
};

// P^T post at place (i, j) and channel o of the map of sample b: what the pooled neuron gives to a place of its window.
__device__ __forceinline__ real unpooled(const real* post, const int* winners, int b, int i, int j, int o) {
    const int y = i / WINDOW, x = j / WINDOW;
    if (y >= POST_HEIGHT || x >= POST_WIDTH) return 0; // on the rim
    const long long at = (long long)b * N_POST + (y * POST_WIDTH + x) * POST_CHANNELS + o;
#if POOL == MAX
    return winners[at] == i % WINDOW * WINDOW + j % WINDOW ? post[at] : (real)0;
#else
    return post[at] * ((real)1 / (WINDOW * WINDOW));
#endif
}

// The same as a matrix: element (channel, place)
struct Unpooled {
    static constexpr bool IN_MEMORY = false;
    const real* post;
    const int* winners;
    int rows;
    __device__ __forceinline__ bool along_depth() const { return false; }
    __device__ __forceinline__ real at(int channel, int row) const {
        return unpooled(post, winners, row / PLACES, row % PLACES / MAP_WIDTH, row % MAP_WIDTH, channel);
    }
};

// What neuron y of pre hears: tap (u, v) of channel o reaches it from map position (y + padding - u) / stride, if whole.
struct Echoes {
    static constexpr bool IN_MEMORY = false;
    const real* post;
    const int* winners;
    int rows;
    __device__ __forceinline__ bool along_depth() const { return true; }
    __device__ __forceinline__ real at(int row, int column) const {
        const int b = row / (PRE_HEIGHT * PRE_WIDTH), pixel = row % (PRE_HEIGHT * PRE_WIDTH);
        const int tap = column / POST_CHANNELS, o = column % POST_CHANNELS;
        const int i = pixel / PRE_WIDTH + PADDING - tap / KERNEL, j = pixel % PRE_WIDTH + PADDING - tap % KERNEL;
        if (i < 0 || j < 0 || i % STRIDE || j % STRIDE || i / STRIDE >= MAP_HEIGHT || j / STRIDE >= MAP_WIDTH) return 0;
        return unpooled(post, winners, b, i / STRIDE, j / STRIDE, o);
    }
};

// The kernel as the partner of Echoes: element (c, (tap, o)) = K[o, tap, c]
struct Flipped {
    static constexpr bool IN_MEMORY = false;
    const real* weight;
    int rows;
    __device__ __forceinline__ bool along_depth() const { return false; }
    __device__ __forceinline__ real at(int c, int column) const {
        return weight[((column % POST_CHANNELS) * TAPS + column / POST_CHANNELS) * PRE_CHANNELS + c];
    }
};

// map (batch, places, C_out) += K * pre
extern "C" __global__ void __launch_bounds__(GEMM_THREADS, GEMM_BLOCKS)
convolve(real* map, const real* pre, const real* weight, int batch) {
    real sum[PART_ROWS][PART_COLUMNS] = {};
    const Matrix K = {weight, POST_CHANNELS, TAPS * PRE_CHANNELS, 1};
    multiply(sum, Patches{pre, batch * PLACES}, K, blockIdx.x * TILE, blockIdx.y * TILE, TAPS * PRE_CHANNELS);
    add(map, sum, blockIdx.x * TILE, blockIdx.y * TILE, batch * PLACES, POST_CHANNELS, (real)1);
}

// drive (batch, n_pre) += K^T P^T post
extern "C" __global__ void __launch_bounds__(GEMM_THREADS, GEMM_BLOCKS)
drive_pre(real* drive, const real* post, const real* weight, const int* winners, int batch) {
    real sum[PART_ROWS][PART_COLUMNS] = {};
    const int rows = batch * PRE_HEIGHT * PRE_WIDTH, depth = TAPS * POST_CHANNELS;
    multiply(sum, Echoes{post, winners, rows}, Flipped{weight, PRE_CHANNELS}, blockIdx.x * TILE, blockIdx.y * TILE, depth);
    add(drive, sum, blockIdx.x * TILE, blockIdx.y * TILE, rows, PRE_CHANNELS, (real)1);
}

// parts (splits, C_out, taps C_in) += sums of P^T post times patches over a share of the places of all samples each
extern "C" __global__ void __launch_bounds__(GEMM_THREADS, GEMM_BLOCKS)
trace_parts(real* parts, const real* pre, const real* post, const int* winners, int places, int share) {
    real sum[PART_ROWS][PART_COLUMNS] = {};
    const int top = blockIdx.y * TILE, left = blockIdx.x * TILE, columns = TAPS * PRE_CHANNELS;
    const int from = blockIdx.z * share, to = min(from + share, places);
    multiply(sum, Unpooled{post, winners, POST_CHANNELS}, Turned{{pre, 0}, columns}, top, left, to, from);
    real* part = parts + (long long)blockIdx.z * POST_CHANNELS * columns;
    add(part, sum, top, left, POST_CHANNELS, columns, (real)1);
}

// trace (n) += scale * the sum of `splits` parts, in their order
extern "C" __global__ void __launch_bounds__(256) gather(real* trace, const real* parts, real scale, int n, int splits) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        real total = 0;
        for (int s = 0; s < splits; s++) total += parts[(long long)s * n + i];
        trace[i] += scale * total;
    }
}

// Element (b, y, x, o) of post, and the first place of its window in the map
__device__ __forceinline__ const real* window_of(const real* map, int at) {
    const int o = at % POST_CHANNELS, x = at / POST_CHANNELS % POST_WIDTH, rest = at / POST_CHANNELS / POST_WIDTH;
    const int y = rest % POST_HEIGHT, b = rest / POST_HEIGHT;
    return map + ((long long)b * PLACES + y * WINDOW * MAP_WIDTH + x * WINDOW) * POST_CHANNELS + o;
}
__device__ __forceinline__ real at_place(const real* window, int place) {
    return window[(place / WINDOW * MAP_WIDTH + place % WINDOW) * POST_CHANNELS];
}

// drive (batch, n_post) += P(map)
extern "C" __global__ void __launch_bounds__(256) pool(real* drive, const real* map, const int* winners, int batch) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < batch * N_POST; i += gridDim.x * blockDim.x) {
        const real* window = window_of(map, i);
#if POOL == MAX
        drive[i] += at_place(window, winners[i]);
#else
        real total = 0;
        for (int place = 0; place < WINDOW * WINDOW; place++) total += at_place(window, place);
        drive[i] += total * ((real)1 / (WINDOW * WINDOW));
#endif
    }
}

// winners (batch, n_post) = the place in each window where the map is largest, the first of equals
extern "C" __global__ void __launch_bounds__(256) choose(int* winners, const real* map, int batch) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < batch * N_POST; i += gridDim.x * blockDim.x) {
        const real* window = window_of(map, i);
        int best = 0;
        real most = at_place(window, 0);
        for (int place = 1; place < WINDOW * WINDOW; place++) {
            const real here = at_place(window, place);
            if (here > most) most = here, best = place;
        }
        winners[i] = best;
    }
}
