// The matrix product of a block of threads: a TILE x TILE piece of A B^T, staged through shared memory.
//
// While a stage of DEPTH columns of A and B is multiplied, the next ones are on their way: by asynchronous copies where
// the device has them and the element is one of memory, else by way of registers, one stage ahead. The launcher defines
// TILE and GEMM_THREADS; every TILE gives the same bits, as each element is one sum in the order of k, whatever the
// block: a sample's result does not depend on its batch.
//
// A and B are anything with `rows`, at(i, k) for i < rows, and along_depth(): whether k, not i, runs along memory; and
// if IN_MEMORY, where(i, k), the address of at(i, k), and apart(i, di, dk), how far that of (i + di, k + dk) lies from it.
#include "ptx.cuh"
#include "vector.cuh"

#if TILE == 32
#define GEMM_BLOCKS 4 // at once on a multiprocessor, at least, which bounds the registers
#define PART_ROWS 2   // elements of a thread, down and across
#define PART_COLUMNS 4
#define DEPTH 32
#elif TILE == 64
#define GEMM_BLOCKS 2
#define PART_ROWS 4
#define PART_COLUMNS 4
#define DEPTH 16
#else
#define GEMM_BLOCKS 1
#define PART_ROWS 8
#define PART_COLUMNS 8
#define DEPTH 16
#endif
#define ACROSS (TILE / PART_COLUMNS)                  // threads
#define ROOM (48 * 1024 / (2 * DEPTH * TILE * (int)sizeof(real))) // stages in the shared memory that any block has
#define STAGES (!COPIES_ASYNC ? 2 : ROOM < 4 ? ROOM : 4)
#define SHARE (TILE * DEPTH / GEMM_THREADS)           // elements of a stage of one matrix that a thread fetches

// Element (i, k) is data[i * row + k * column].
struct Matrix {
    static constexpr bool IN_MEMORY = true;
    const real* data;
    int rows, row, column;
    __device__ __forceinline__ bool along_depth() const { return column == 1; }
    __device__ __forceinline__ const real* where(int i, int k) const {
        return data + (long long)i * row + (long long)k * column;
    }
    __device__ __forceinline__ long long apart(int, int di, int dk) const {
        return (long long)di * row + (long long)dk * column;
    }
    __device__ __forceinline__ real at(int i, int k) const { return *where(i, k); }
};

using Stage = real[DEPTH][TILE]; // element (i, k) at [k][place(i, k)]
struct alignas(16) Staged {
    Stage a[STAGES], b[STAGES];
};

// Groups of four that lie along i stay together, and 8 k of one i lie in different banks.
__device__ __forceinline__ int place(int i, int k) { return i ^ 4 * (k & 7); }

// Of a thread: rows and columns in the tile of its elements, groups of up to four that lie together
__device__ __forceinline__ int row_of(int r) {
    const int y = threadIdx.x / ACROSS, group = PART_ROWS < 4 ? PART_ROWS : 4;
    return r / group * (TILE * group / PART_ROWS) + y * group + r % group;
}
__device__ __forceinline__ int column_of(int c) {
    return c / 4 * (TILE * 4 / PART_COLUMNS) + threadIdx.x % ACROSS * 4 + c % 4;
}

// Brings a thread's share of the stages of A, rows first.. and columns up to `to`, to shared memory. The lanes run along
// memory: 32 rows, or 8 columns of 4 rows.
template <class M> struct Fetch {
    const M& A;
    int first, to, i, k;
    bool along;
    real held[SHARE];

    __device__ __forceinline__ Fetch(const M& A, int first, int to) : A(A), first(first), to(to), along(A.along_depth()) {
        const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
        i = along ? lane / 8 + 4 * (warp / (DEPTH / 8)) : threadIdx.x % TILE;
        k = along ? lane % 8 + 8 * (warp % (DEPTH / 8)) : threadIdx.x / TILE;
    }
    __device__ __forceinline__ int row(int n) const { return along ? i + n * (TILE / SHARE) : i; }
    __device__ __forceinline__ int column(int n) const { return along ? k : k + n * (DEPTH / SHARE); }
    __device__ __forceinline__ bool inside(int n, int from) const {
        return first + row(n) < A.rows && from + column(n) < to;
    }

    __device__ __forceinline__ void begin(Stage& staged, int from) {
#if COPIES_ASYNC
        if constexpr (M::IN_MEMORY) {
            const real* element = A.where(first + i, from + k);
            const long long apart = along ? A.apart(first + i, TILE / SHARE, 0) : A.apart(first + i, 0, DEPTH / SHARE);
#pragma unroll
            for (int n = 0; n < SHARE; n++)
                copy_async<sizeof(real)>(&staged[column(n)][place(row(n), column(n))], element + n * apart, inside(n, from));
            return;
        }
#endif
#pragma unroll
        for (int n = 0; n < SHARE; n++) held[n] = inside(n, from) ? A.at(first + row(n), from + column(n)) : (real)0;
    }
    __device__ __forceinline__ void end(Stage& staged) {
        if (COPIES_ASYNC && M::IN_MEMORY) return;
#pragma unroll
        for (int n = 0; n < SHARE; n++) staged[column(n)][place(row(n), column(n))] = held[n];
    }
};

// Elements `first`.. of column k, as many as fit `out`
template <int N> __device__ __forceinline__ void read(real (&out)[N], const Stage& staged, int k, int first) {
    if (N == 2) {
        struct alignas(2 * sizeof(real)) Pair {
            real of[2];
        };
        const Pair pair = *(const Pair*)&staged[k][place(first, k)];
        out[0] = pair.of[0], out[1] = pair.of[1];
        return;
    }
#pragma unroll
    for (int n = 0; n < N; n += WIDE) {
        const int i = n / 4 * (TILE * 4 / N) + first;
        const Vector part = load(&staged[k][place(i, k) + n % 4]);
#pragma unroll
        for (int w = 0; w < WIDE; w++) out[(n + w) % N] = part.of[w];
    }
}

__device__ __forceinline__ Staged& staged_memory() {
    __shared__ Staged staged;
    return staged;
}

// sum[r][c] += sum_{from <= k < to} A(i, k) B(j, k), i = top + row_of(r), j = left + column_of(c)
template <class M, class N>
__device__ __forceinline__ void multiply(real (&sum)[PART_ROWS][PART_COLUMNS], const M& A, const N& B, int top, int left,
                                         int to, int from = 0) {
    Staged& staged = staged_memory();
    Fetch<M> a(A, top, to);
    Fetch<N> b(B, left, to);
    const int stages = (to - from + DEPTH - 1) / DEPTH;
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < stages) {
            a.begin(staged.a[s], from + s * DEPTH), b.begin(staged.b[s], from + s * DEPTH);
            a.end(staged.a[s]), b.end(staged.b[s]);
        }
#if COPIES_ASYNC
        end_group_of_copies();
#endif
    }
    int now = 0, next = STAGES - 1; // of the ring: the stage that is multiplied, and the one that is fetched
    for (int s = 0; s < stages; s++) {
#if COPIES_ASYNC
        wait_for_copies<STAGES - 2>();
#endif
        __syncthreads(); // stage `now` is whole, and `next` is used
        const bool more = s + STAGES - 1 < stages;
        const int ahead = from + (s + STAGES - 1) * DEPTH;
        if (more) a.begin(staged.a[next], ahead), b.begin(staged.b[next], ahead);
#if COPIES_ASYNC
        end_group_of_copies();
#endif
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            real x[PART_ROWS], y[PART_COLUMNS];
            read(x, staged.a[now], k, row_of(0));
            read(y, staged.b[now], k, column_of(0));
#pragma unroll
            for (int r = 0; r < PART_ROWS; r++)
#pragma unroll
                for (int c = 0; c < PART_COLUMNS; c++) sum[r][c] += x[r] * y[c];
        }
        if (more) a.end(staged.a[next]), b.end(staged.b[next]);
        now = now + 1 == STAGES ? 0 : now + 1;
        next = next + 1 == STAGES ? 0 : next + 1;
    }
    __syncthreads(); // all stages are used: the next product may begin
}

// WIDE elements of a result that lie together: where, and how many lie inside it
struct Piece {
    int i, j, at, count; // at: of (i, j) in the result, columns of it along memory
    bool together;       // whether they can be loaded and stored at once
};
__device__ __forceinline__ Piece piece(int i, int j, int rows, int columns) {
    return {i, j, i * columns + j, i < rows ? max(0, min(WIDE, columns - j)) : 0, columns % WIDE == 0};
}

// out (rows, columns) += scale * sum, the block's tile of it
__device__ __forceinline__ void add(real* out, const real (&sum)[PART_ROWS][PART_COLUMNS], int top, int left, int rows,
                                    int columns, real scale) {
#pragma unroll
    for (int r = 0; r < PART_ROWS; r++)
#pragma unroll
        for (int c = 0; c < PART_COLUMNS; c += WIDE) {
            const Piece p = piece(top + row_of(r), left + column_of(c), rows, columns);
            if (p.count == 0) continue;
            real* to = out + (long long)p.i * columns + p.j;
            const bool together = p.together && aligned(out);
            Vector whole = load_some(to, p.count, together);
#pragma unroll
            for (int w = 0; w < WIDE; w++) whole.of[w] += scale * sum[r][c + w];
            store_some(to, whole, p.count, together);
        }
}

// Calls f(vector, i, j) for every WIDE elements of the block's tile that lie together, elements top + i.., left + j..,
// once in the text, however many a thread has: they go through shared memory, and come as rows.
template <class F>
__device__ __forceinline__ void each_piece(const real (&sum)[PART_ROWS][PART_COLUMNS], F f) {
    constexpr int PARTS = TILE * TILE > (int)(sizeof(Staged) / sizeof(real)) ? 2 : 1, ROWS = TILE / PARTS;
    real* tile = &staged_memory().a[0][0][0];
#pragma unroll
    for (int part = 0; part < PARTS; part++) {
#pragma unroll
        for (int r = 0; r < PART_ROWS / PARTS; r++)
#pragma unroll
            for (int c = 0; c < PART_COLUMNS; c += WIDE) {
                Vector vector;
#pragma unroll
                for (int w = 0; w < WIDE; w++) vector.of[w] = sum[part * PART_ROWS / PARTS + r][c + w];
                store(tile + row_of(r) * TILE + column_of(c), vector);
            }
        __syncthreads();
#pragma unroll 1
        for (int e = threadIdx.x * WIDE; e < ROWS * TILE; e += GEMM_THREADS * WIDE)
            f(load(tile + e), part * ROWS + e / TILE, e % TILE);
        __syncthreads();
    }
}
