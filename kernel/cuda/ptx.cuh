// The only PTX; beside each instruction stands what it does in C++, which is also how it runs on a CPU.

#if defined(__CUDA_SHIM__) || __CUDA_ARCH__ >= 800
#define COPIES_ASYNC 1 // memory to shared memory past the registers
#else
#define COPIES_ASYNC 0
#endif

#if COPIES_ASYNC
// *to = *from, or 0 unless `valid`; `to` in shared memory. BYTES is 4, 8 or 16, of which both are multiples. It has
// happened, for the thread that asked, once wait_for_copies says so.
template <int BYTES>
__device__ __forceinline__ void copy_async(void* to, const void* from, bool valid) {
#ifdef __CUDA_SHIM__
    shim_copy(to, from, BYTES, valid);
#else
    const unsigned at = (unsigned)__cvta_generic_to_shared(to);
    const int size = valid ? BYTES : 0;
    if (BYTES == 16) asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(size) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(at), "l"(from), "n"(BYTES), "r"(size) : "memory");
#endif
}

// What the thread has asked for since the last time is a group,
__device__ __forceinline__ void end_group_of_copies() {
#ifdef __CUDA_SHIM__
    shim_end_group();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// and all but its last `GROUPS` groups have happened.
template <int GROUPS> __device__ __forceinline__ void wait_for_copies() {
#ifdef __CUDA_SHIM__
    shim_wait_for_copies(GROUPS);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
#endif
}
#endif

#ifdef PRECISION
// -- tensor cores: factors rounded to TF32 or BF16, sums in float. Fragments are those of the PTX manual for mma.m16n8k8
// (tf32) and mma.m16n8k16 (bf16): with lane = 4 g + t,
//     A  rows g, g + 8;  columns t, t + 4 (tf32), or the pairs 2t, 2t + 1 and 2t + 8, 2t + 9 (bf16)
//     B  column g; rows as A's columns
//     C  rows g, g + 8;  columns 2t, 2t + 1

#define TF32 1
#define BF16 2

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

// Four matrices of 8 rows of 16 bytes in shared memory, the rows of the m-th where lanes 8 m.. say. out[m]: of row g
// the t-th 4 bytes; if TURNED, elements of 2 bytes, g of rows 2t and 2t + 1.
template <bool TURNED> __device__ __forceinline__ void load_matrices(unsigned (&out)[4], const void* row) {
#ifdef __CUDA_SHIM__
    struct Row {
        unsigned short of[8];
    } all[WARP];
    const Row mine = shim_bits<Row>(*(const shim_vector*)shim_aligned(row));
    shim_gather(all, mine);
    const int lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    for (int m = 0; m < 4; m++)
        out[m] = TURNED ? all[8 * m + 2 * t].of[g] | (unsigned)all[8 * m + 2 * t + 1].of[g] << 16
                        : all[8 * m + g].of[2 * t] | (unsigned)all[8 * m + g].of[2 * t + 1] << 16;
#else
    const unsigned at = (unsigned)__cvta_generic_to_shared(row);
    if (TURNED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3]) : "r"(at) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3]) : "r"(at) : "memory");
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
__device__ __forceinline__ void mma(float (&c)[4], const unsigned (&a)[4], const unsigned* b) {
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
#endif
