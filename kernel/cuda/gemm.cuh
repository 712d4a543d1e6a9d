// The matrix product of a block of threads: a TILE x TILE piece of A B, staged through shared memory.
//
// Thread (x, y) keeps the elements (y + SIDE r, x + SIDE c), r, c < PART, in registers: neighbours in a warp read
// neighbouring columns of shared memory and write neighbouring columns of the result. Each element is one sum in the
// order of k, whatever the block: a sample's result does not depend on its batch.

#define SIDE 16
#define PART 4
#define TILE 64
#define DEPTH 16
#define GEMM_THREADS 256

// Element (i, k) is at[i * row + k * column] for i < rows; one more row below them holds `below` everywhere.
struct Matrix {
    const real* at;
    int rows, row, column;
    real below;
};

struct Staged {
    real a[DEPTH][TILE + 2], b[DEPTH][TILE + 2];
};

// staged[k][i] = element (first + i, from + k) of A, 0 beyond its ends. The lanes run along the dimension that lies
// together in memory.
__device__ __forceinline__ void stage(real (*staged)[TILE + 2], Matrix A, int first, int from, int depth) {
    for (int e = threadIdx.x; e < TILE * DEPTH; e += GEMM_THREADS) {
        const int i = A.column == 1 ? e / DEPTH : e % TILE, k = A.column == 1 ? e % DEPTH : e / TILE;
        real element = 0;
        if (from + k < depth) {
            if (first + i < A.rows) element = A.at[(long long)(first + i) * A.row + (long long)(from + k) * A.column];
            else if (first + i == A.rows) element = A.below;
        }
        staged[k][i] = element;
    }
}

// sum[r][c] += sum_k A(i, k) B(j, k), i = top + y + SIDE r, j = left + x + SIDE c: A times the transpose of B.
__device__ __forceinline__ void multiply(real (&sum)[PART][PART], Matrix A, Matrix B, int top, int left, int depth) {
    __shared__ Staged staged;
    const int x = threadIdx.x % SIDE, y = threadIdx.x / SIDE;
    for (int from = 0; from < depth; from += DEPTH) {
        stage(staged.a, A, top, from, depth);
        stage(staged.b, B, left, from, depth);
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
