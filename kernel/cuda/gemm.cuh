// The matrix product of a block of threads: a TILE x TILE piece of A B^T, staged through shared memory.
//
// Thread (x, y) keeps the elements (y + SIDE r, x + SIDE c), r, c < PART, in registers: neighbours in a warp read
// neighbouring columns of shared memory and write neighbouring columns of the result. Each element is one sum in the
// order of k, whatever the block: a sample's result does not depend on its batch.
//
// A and B are anything with `rows`, at(i, k) for i < rows, and along_depth(): whether k, not i, runs along memory.

#define SIDE 16
#define PART 4
#define TILE 64
#define DEPTH 16
#define GEMM_THREADS 256

// Element (i, k) is data[i * row + k * column].
struct Matrix {
    const real* data;
    int rows, row, column;
    __device__ __forceinline__ bool along_depth() const { return column == 1; }
    __device__ __forceinline__ real at(int i, int k) const { return data[(long long)i * row + (long long)k * column]; }
};

struct Staged {
    real a[DEPTH][TILE + 2], b[DEPTH][TILE + 2];
};

// staged[k][i] = element (first + i, from + k) of A, 0 beyond its ends. The lanes run along memory.
template <class M>
__device__ __forceinline__ void stage(real (*staged)[TILE + 2], const M& A, int first, int from, int to) {
    for (int e = threadIdx.x; e < TILE * DEPTH; e += GEMM_THREADS) {
        const int i = A.along_depth() ? e / DEPTH : e % TILE, k = A.along_depth() ? e % DEPTH : e / TILE;
        staged[k][i] = first + i < A.rows && from + k < to ? A.at(first + i, from + k) : (real)0;
    }
}

// sum[r][c] += sum_{from <= k < to} A(i, k) B(j, k), i = top + y + SIDE r, j = left + x + SIDE c
template <class M, class N>
__device__ __forceinline__ void
multiply(real (&sum)[PART][PART], const M& A, const N& B, int top, int left, int to, int from = 0) {
    __shared__ Staged staged;
    const int x = threadIdx.x % SIDE, y = threadIdx.x / SIDE;
    for (; from < to; from += DEPTH) {
        stage(staged.a, A, top, from, to);
        stage(staged.b, B, left, from, to);
        __syncthreads(); // the tile is whole
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            real a[PART], b[PART];
#pragma unroll
            for (int r = 0; r < PART; r++) a[r] = staged.a[k][y + SIDE * r], b[r] = staged.b[k][x + SIDE * r];
#pragma unroll
            for (int r = 0; r < PART; r++)
#pragma unroll
                for (int c = 0; c < PART; c++) sum[r][c] += a[r] * b[c];
        }
        __syncthreads(); // and used: the next may overwrite it
    }
}

// out (rows, columns) += scale * sum, the block's tile of it
__device__ __forceinline__ void
add(real* out, const real (&sum)[PART][PART], int top, int left, int rows, int columns, real scale) {
    top += threadIdx.x / SIDE, left += threadIdx.x % SIDE;
#pragma unroll
    for (int r = 0; r < PART; r++)
#pragma unroll
        for (int c = 0; c < PART; c++) {
            const int i = top + SIDE * r, j = left + SIDE * c;
            if (i < rows && j < columns) out[(long long)i * columns + j] += scale * sum[r][c];
        }
}
