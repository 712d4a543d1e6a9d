// Sixteen bytes of reals, which lie together in memory and are loaded and stored by one instruction.

#define WIDE (16 / (int)sizeof(real))

struct alignas(16) Vector {
    real of[WIDE];
};

// p is a multiple of 16 bytes.
__device__ __forceinline__ Vector load(const real* p) {
#ifdef __CUDA_SHIM__
    return shim_bits<Vector>(*(const shim_vector*)p);
#else
    return *(const Vector*)p;
#endif
}
__device__ __forceinline__ void store(real* p, const Vector& value) {
#ifdef __CUDA_SHIM__
    *(shim_vector*)p = shim_bits<shim_vector>(value);
#else
    *(Vector*)p = value;
#endif
}
