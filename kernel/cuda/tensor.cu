// Layers of a large network relaxed on tensor cores, several in one launch: the visits of layer.cu, factors rounded.
//
// The factors are rounded once, when they are written: weights at the beginning of a phase, states beside their float
// masters in the epilogue. Rows of rounded arrays are padded with zeros to whole stages. A block makes ROWS x COLUMNS of a
// layer's drive in one loop over all neighbours, stages of 128 bytes of k a row, `STAGES` on their way at a time; its
// eight warps stand two down, four across. Chunks of 16 bytes lie in shared memory so that no two of the eight that an
// instruction reads at a time share a bank.
#include "neurons.cuh"
#include "ptx.cuh"
#include "vector.cuh"
#include "moves.cuh"

#define TENSOR_THREADS 256
#define LINE 128                                // bytes of a row in a stage
#define CHUNK ((int)(16 / sizeof(rounded)))     // elements
#define DEPTH (8 * CHUNK)                       // of a stage
#define DOWN_TILES (ROWS / 2 / 16)              // of a warp
#define ACROSS_TILES (COLUMNS / 4 / 8)
#define PADDED (COLUMNS + 8)                    // floats in a row of the result in shared memory

#if PRECISION == BF16
typedef unsigned short rounded;
#else
typedef float rounded;
#endif

// One row of `table` a layer: its size, and where things begin, in numbers: states, next, up, down in `states`; the
// other's in `others`; the middle in `middles`, -1 if a drive is not stored there; rounded states in `low` (its own, its
// next, those of its neighbours), of the other's next in `other_low`; rounded weights in `weights`; the bias in theta.
// STAGES_*: of the products over its neighbours, 0 if a drive is as it was; STRIDE_*: elements from row to row.
enum {
    SIZE, NEURON, NUDGED, STATE, NEXT, UP, DOWN, OTHER, OTHER_NEXT, MIDDLE, BIAS,
    LOW, LOW_NEXT, LOW_OTHER_NEXT, STRIDE,
    STAGES_ABOVE, LOW_ABOVE, STRIDE_ABOVE, WEIGHT_ABOVE, SIZE_ABOVE,
    STAGES_BELOW, LOW_BELOW, STRIDE_BELOW, WEIGHT_BELOW,
    STAGES_BESIDE, WEIGHT_BESIDE, FIELDS
};

struct alignas(16) Sixteen {
    unsigned char bytes[16];
};

// Two chunks of a row, or columns of a row of k, are LINE bytes, and eight rows, in eight different places of them.
__device__ __forceinline__ int turned_by(int k) { return PRECISION == BF16 ? k & 7 : 2 * (k & 3); }

// Stage s of the concatenated products of a layer: A (ROWS, DEPTH) and B, (COLUMNS, DEPTH), or as it lies in a weight
// that is read backwards, (DEPTH, COLUMNS).
__device__ __forceinline__ void fetch(unsigned char* a, unsigned char* b, const int* layer, int s, const rounded* low,
                                      const rounded* weights, int rows, int top, int left) {
    const int above = layer[STAGES_ABOVE], below = layer[STAGES_BELOW];
    const bool back = s < above, beside = s >= above + below;
    const int k = (back ? s : beside ? s - above - below : s - above) * DEPTH;
    const int stride = layer[back ? STRIDE_ABOVE : beside ? STRIDE : STRIDE_BELOW];
    const rounded* A = low + layer[back ? LOW_ABOVE : beside ? LOW : LOW_BELOW] + k;
    const rounded* B = weights + layer[back ? WEIGHT_ABOVE : beside ? WEIGHT_BESIDE : WEIGHT_BELOW];
#pragma unroll
    for (int n = 0; n < ROWS * 8 / TENSOR_THREADS; n++) {
        const int e = threadIdx.x + n * TENSOR_THREADS, i = e / 8, c = e % 8;
        copy_async<16>(a + i * LINE + (c ^ (i & 7)) * 16, A + (long long)(top + i) * stride + c * CHUNK, top + i < rows);
    }
#pragma unroll
    for (int n = 0; n < COLUMNS * 8 / TENSOR_THREADS; n++) {
        const int e = threadIdx.x + n * TENSOR_THREADS;
        if (back) {
            const int i = e / (COLUMNS / CHUNK), c = e % (COLUMNS / CHUNK), j = left + c * CHUNK;
            copy_async<16>(b + i * (COLUMNS * LINE / DEPTH) + (c ^ turned_by(i)) * 16,
                           B + (long long)(k + i) * layer[STRIDE] + j, k + i < layer[SIZE_ABOVE] && j < layer[STRIDE]);
        } else {
            const int i = e / 8, c = e % 8;
            copy_async<16>(b + i * LINE + (c ^ (i & 7)) * 16, B + (long long)(left + i) * stride + k + c * CHUNK,
                           left + i < layer[SIZE]);
        }
    }
}

using Sums = float[DOWN_TILES][ACROSS_TILES][4];

// sums += the warp's part of A B^T over a stage, B read backwards if `BACK`
template <bool BACK>
__device__ __forceinline__ void multiply(Sums& sums, const unsigned char* a, const unsigned char* b, int row, int column) {
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int step = 0; step < 4; step++) {
        unsigned left[DOWN_TILES][4], right[ACROSS_TILES / 2][4]; // of `right` two tiles of two registers each
#pragma unroll
        for (int m = 0; m < DOWN_TILES; m++) {
            const int i = row + 16 * m + lane % 16;
            load_matrices<false>(left[m], a + i * LINE + ((2 * step + lane / 16) ^ (i & 7)) * 16);
        }
#pragma unroll
        for (int n = 0; n < ACROSS_TILES / 2; n++) {
            if (!BACK) {
                const int i = column + 16 * n + lane / 16 * 8 + lane % 8;
                load_matrices<false>(right[n], b + i * LINE + ((2 * step + lane / 8 % 2) ^ (i & 7)) * 16);
            } else if (PRECISION == BF16) {
                const int k = 16 * step + lane % 16, c = (column + 16 * n) / CHUNK + lane / 16;
                load_matrices<true>(right[n], b + k * (COLUMNS * LINE / DEPTH) + (c ^ turned_by(k)) * 16);
            } else {
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const int k = 8 * step + lane % 4 + 4 * (e % 2), j = column + 16 * n + 8 * (e / 2) + lane / 4;
                    const unsigned char* chunk = b + k * (COLUMNS * LINE / DEPTH) + (j / 4 ^ turned_by(k)) * 16;
                    right[n][e] = ((const unsigned*)chunk)[j % 4];
                }
            }
        }
#pragma unroll
        for (int m = 0; m < DOWN_TILES; m++)
#pragma unroll
            for (int n = 0; n < ACROSS_TILES; n++) mma(sums[m][n], left[m], &right[n / 2][n % 2 * 2]);
    }
}

// Calls f(one, other, i, j) for the thread's sums, two at a time: row i of the tile, columns j and j + 1.
template <class F> __device__ __forceinline__ void each_pair(Sums& sums, int row, int column, F f) {
    const int g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int m = 0; m < DOWN_TILES; m++)
#pragma unroll
        for (int n = 0; n < ACROSS_TILES; n++)
#pragma unroll
            for (int e = 0; e < 4; e += 2)
                f(sums[m][n][e], sums[m][n][e + 1], row + 16 * m + g + 4 * e, column + 8 * n + 2 * t);
}

// to[0..3] = v rounded, 0 beyond `count`: rows are padded
__device__ __forceinline__ void store_rounded(rounded* to, const Vector& v, int count) {
    float x[4];
#pragma unroll
    for (int w = 0; w < 4; w++) x[w] = w < count ? v.of[w] : 0;
#if PRECISION == BF16
    *(unsigned long long*)to = bf16_of(x[0], x[1]) | (unsigned long long)bf16_of(x[2], x[3]) << 32;
#else
    store(to, {__uint_as_float(tf32_of(x[0])), __uint_as_float(tf32_of(x[1])), __uint_as_float(tf32_of(x[2])),
               __uint_as_float(tf32_of(x[3]))});
#endif
}

// Layers table[blockIdx.z], of which none sees another. rows is the batch, or twice it where a + and a - state settle
// together. With `keep`, up and down are stored for visits that refresh only one of them; else only what they make.
// most (1): the largest change of this step so far, as bits. Dynamic shared memory: STAGES stages.
extern "C" __global__ void __launch_bounds__(TENSOR_THREADS, TENSOR_BLOCKS)
relax_layers(const int* table, int mode, real* states, real* others, real* middles, rounded* low, rounded* other_low,
             const rounded* weights, const real* theta, const real* pull, bits* most, int rows, int batch, int biased,
             int keep, real gamma, real nudge, real step) {
    extern __shared__ Sixteen memory[];
    const int* layer = table + blockIdx.z * FIELDS;
    const int n = layer[SIZE], top = blockIdx.y * ROWS, left = blockIdx.x * COLUMNS;
    if (left >= n) return;
    unsigned char* const shared = memory->bytes;
    const int above = layer[STAGES_ABOVE], below = above + layer[STAGES_BELOW], stages = below + layer[STAGES_BESIDE];
    const int warp = threadIdx.x / WARP, row = warp / 4 * (ROWS / 2), column = warp % 4 * (COLUMNS / 4);
    constexpr int A = ROWS * LINE, STAGE = A + COLUMNS * LINE;
    const auto bring = [&](int s, int slot) {
        fetch(shared + slot * STAGE, shared + slot * STAGE + A, layer, s, low, weights, rows, top, left);
    };
    const bool together = n % WIDE == 0;
    real* tile = (real*)memory;
    real largest = 0;
    for (int first = 0, last; ; first = last) { // all products as one sum, or what is kept one by one
        last = !keep ? stages : first < above ? above : first < below ? below : stages;
        Sums sums = {};
#pragma unroll
        for (int s = 0; s < STAGES - 1; s++) {
            if (first + s < last) bring(first + s, s);
            end_group_of_copies();
        }
        int now = 0, next = STAGES - 1; // of the ring: the stage that is multiplied, and the one that is fetched
        for (int s = first; s < last; s++) {
            wait_for_copies<STAGES - 2>();
            __syncthreads(); // stage `now` is whole, and `next` is used
            if (s + STAGES - 1 < last) bring(s + STAGES - 1, next);
            end_group_of_copies();
            const unsigned char* stage = shared + now * STAGE;
            if (s < above) multiply<true>(sums, stage, stage + A, row, column);
            else multiply<false>(sums, stage, stage + A, row, column);
            if (s == above - 1) each_pair(sums, row, column, [&](float& a, float& b, int, int) { a *= gamma, b *= gamma; });
            now = now + 1 == STAGES ? 0 : now + 1;
            next = next + 1 == STAGES ? 0 : next + 1;
        }
        __syncthreads(); // the stages are used: the result may take their place
        each_pair(sums, row, column, [&](float a, float b, int i, int j) {
            *(unsigned long long*)(tile + i * PADDED + j) = __float_as_uint(a) | (unsigned long long)__float_as_uint(b) << 32;
        });
        __syncthreads(); // the result is whole
#pragma unroll 1
        for (int e = threadIdx.x * WIDE; e < ROWS * COLUMNS; e += TENSOR_THREADS * WIDE) {
            const int i = top + e / COLUMNS, j = left + e % COLUMNS, at = i * n + j, count = min(WIDE, n - j);
            if (i >= rows || count <= 0) continue;
            const auto some = [&](const real* array) { return load_some(array + at, count, together); };
            const auto plus = [&](Vector& sum, const Vector& more, real by) {
#pragma unroll
                for (int w = 0; w < WIDE; w++) sum.of[w] += by * more.of[w];
            };
            Vector drive = load(tile + e / COLUMNS * PADDED + e % COLUMNS);
            const bool down = first < above, up = min(last, below) > max(first, above); // what the sum is of
            if (up && biased) plus(drive, load_some(theta + layer[BIAS] + j, count, together), 1);
            if (keep && (down || up)) {
                store_some(states + layer[down ? DOWN : UP] + at, drive, count, together);
                drive = {};
            }
            if (last < stages) continue;
            if (keep || !up) plus(drive, some(states + layer[UP]), 1);
            if (keep || !down) plus(drive, some(states + layer[DOWN]), 1);
            if (nudge != 0 && layer[NUDGED]) plus(drive, some(pull), i < batch ? nudge : -nudge);
            if (mode == STORE) {
                if (layer[MIDDLE] >= 0) store_some(middles + layer[MIDDLE] + at, drive, count, together);
                continue;
            }
            Vector state = some(states + layer[STATE]), other = {}, middle = {};
            if (mode != RELAX) middle = some(middles + layer[MIDDLE]);
            if (mode == MEAN_DIFFERENCE) other = some(others + layer[OTHER]);
            largest = larger(largest, move(mode, layer[NEURON], step, drive, middle, state, other, count));
            store_some(states + layer[NEXT] + at, state, count, together);
            store_rounded(low + layer[LOW_NEXT] + i * layer[STRIDE] + j, state, count);
            if (mode == MEAN_DIFFERENCE) {
                store_some(others + layer[OTHER_NEXT] + at, other, count, together);
                store_rounded(other_low + layer[LOW_OTHER_NEXT] + i * layer[STRIDE] + j, other, count);
            }
        }
        if (last == stages) break;
        __syncthreads(); // the result is used: stages may take its place
    }
    largest = warp_max(largest);
    if (threadIdx.x % WARP == 0) atomicMax(most, as_bits(largest)); // positive numbers order as their bits
}

// low (rows, stride) = from (rows, columns) rounded, stride >= columns a multiple of DEPTH; what is beyond stays
extern "C" __global__ void __launch_bounds__(256)
round_rows(rounded* low, const real* from, int rows, int columns, int stride) {
    const int chunks = (columns + WIDE - 1) / WIDE;
    for (int e = blockIdx.x * blockDim.x + threadIdx.x; e < rows * chunks; e += gridDim.x * blockDim.x) {
        const int i = e / chunks, j = e % chunks * WIDE, count = min(WIDE, columns - j);
        const real* at = from + (long long)i * columns + j;
        store_rounded(low + (long long)i * stride + j, load_some(at, count, columns % WIDE == 0 && aligned(from)), count);
    }
}
