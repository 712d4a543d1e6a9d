// The product of gemm.cuh on tensor cores, where PRECISION asks for it: factors rounded to TF32 or BF16, sums in float.
//
// The one place with PTX; beside each instruction stands what it does in C++, which is also how it runs on a CPU.
// Fragments are those of the PTX manual for mma.m16n8k8 (tf32) and mma.m16n8k16 (bf16): with lane = 4 g + t,
//     A  rows g, g + 8;  columns t, t + 4 (tf32), or the pairs 2t, 2t + 1 and 2t + 8, 2t + 9 (bf16)
//     B  column g; rows as A's columns
//     C  rows g, g + 8;  columns 2t, 2t + 1

#define FULL 0
#define TF32 1
#define BF16 2

#if PRECISION == FULL

template <class M, class N>
__device__ __forceinline__ void product(real (&sum)[PART][PART], const M& A, const N& B, int top, int left, int depth) {
    multiply(sum, A, B, top, left, depth);
}

#else

// x rounded to TF32 (10 bits of fraction, ties away from 0), as its bits
__device__ __forceinline__ unsigned tf32_of(float x) {
#ifdef __CUDA_SHIM__
    return (__float_as_uint(x) + 0x1000u) & 0xffffe000u;
#else
    unsigned bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
#endif
}

// Two floats rounded to BF16 (7 bits of fraction, ties to even), the first in the low half
__device__ __forceinline__ unsigned bf16_of(float low, float high) {
#ifdef __CUDA_SHIM__
    const unsigned a = __float_as_uint(low), b = __float_as_uint(high);
    return ((a + 0x7fffu + (a >> 16 & 1)) >> 16) | ((b + 0x7fffu + (b >> 16 & 1)) & 0xffff0000u);
#else
    unsigned bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
#endif
}

#ifdef __CUDA_SHIM__
struct Fragments {
    unsigned a[4], b[2];
};
// Element `half` (0, 1) of a register as a float
__device__ inline float factor(unsigned bits, int half) {
    return PRECISION == TF32 ? __uint_as_float(bits) : __uint_as_float(half ? bits & 0xffff0000u : bits << 16);
}
#endif

// c += A B of one 16 x 8 tile over 8 (tf32) or 16 (bf16) columns of A
__device__ __forceinline__ void mma(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#ifdef __CUDA_SHIM__
    Fragments mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}}, all[WARP];
    shim_gather(all, mine);
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4, halves = PRECISION == TF32 ? 1 : 2;
    for (int e = 0; e < 4; e++)
        for (int k = 0; k < 4; k++) // the lanes that hold a row of A, and a column of B
            for (int part = 0; part < 2; part++)
                for (int half = 0; half < halves; half++)
                    c[e] += factor(all[4 * g + k].a[2 * part + e / 2], half) *
                            factor(all[4 * (2 * t + e % 2) + k].b[part], half);
#elif PRECISION == TF32
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// Register `part` (0, 1) of a fragment for row i of the staged matrix, from column k on
__device__ __forceinline__ unsigned fragment(const real (*staged)[TILE + 2], int i, int k, int part, int t) {
#if PRECISION == TF32
    return tf32_of(staged[k + t + 4 * part][i]);
#else
    return bf16_of(staged[k + 2 * t + 8 * part][i], staged[k + 2 * t + 8 * part + 1][i]);
#endif
}

// sum += A B^T as in gemm.cuh. Each of the eight warps makes 16 rows and 32 columns of the tile, in four mma tiles; the
// result reaches the threads that own it in `sum` through shared memory.
template <class M, class N>
__device__ __forceinline__ void product(real (&sum)[PART][PART], const M& A, const N& B, int top, int left, int depth) {
    __shared__ Staged staged;
    __shared__ float tile[TILE][TILE + 4];
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4, warp = threadIdx.x / WARP;
    const int row = 16 * (warp / 2), column = 32 * (warp % 2);
    float c[4][4] = {};
    for (int from = 0; from < depth; from += DEPTH) {
        stage(staged.a, A, top, from, depth);
        stage(staged.b, B, left, from, depth);
        __syncthreads();
#pragma unroll
        for (int k = 0; k < DEPTH; k += PRECISION == TF32 ? 8 : 16) {
            unsigned a[4], b[2];
#pragma unroll
            for (int e = 0; e < 4; e++) a[e] = fragment(staged.a, row + g + 8 * (e % 2), k, e / 2, t);
#pragma unroll
            for (int n = 0; n < 4; n++) {
#pragma unroll
                for (int e = 0; e < 2; e++) b[e] = fragment(staged.b, column + 8 * n + g, k, e, t);
                mma(c[n], a, b);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int n = 0; n < 4; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) tile[row + g + 8 * (e / 2)][column + 8 * n + 2 * t + e % 2] = c[n][e];
    __syncthreads();
#pragma unroll
    for (int r = 0; r < PART; r++)
#pragma unroll
        for (int s = 0; s < PART; s++) sum[r][s] += tile[threadIdx.x / SIDE + SIDE * r][threadIdx.x % SIDE + SIDE * s];
    __syncthreads();
}

#endif
