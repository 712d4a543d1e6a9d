// Sixteen bytes of reals, which lie together in memory and are loaded and stored by one instruction.

#define WIDE (16 / (int)sizeof(real))

struct alignas(16) Vector {
    real of[WIDE];
};

__device__ __forceinline__ bool aligned(const void* p) { return (unsigned long long)p % 16 == 0; }

// p is aligned.
__device__ __forceinline__ Vector load(const real* p) {
#ifdef __CUDA_SHIM__
    return shim_bits<Vector>(*(const shim_vector*)shim_aligned(p));
#else
    return *(const Vector*)p;
#endif
}
__device__ __forceinline__ void store(real* p, const Vector& value) {
#ifdef __CUDA_SHIM__
    *(shim_vector*)shim_aligned(p) = shim_bits<shim_vector>(value);
#else
    *(Vector*)p = value;
#endif
}

// The first `count` of them, which is all of them, and p aligned, if `together`.
__device__ __forceinline__ Vector load_some(const real* p, int count, bool together) {
    if (together) return load(p);
    Vector value = {};
#pragma unroll
    for (int w = 0; w < WIDE; w++)
        if (w < count) value.of[w] = p[w];
    return value;
}
__device__ __forceinline__ void store_some(real* p, const Vector& value, int count, bool together) {
    if (together) return store(p, value);
#pragma unroll
    for (int w = 0; w < WIDE; w++)
        if (w < count) p[w] = value.of[w];
}
