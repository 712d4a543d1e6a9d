// The CUDA C that eqkernel's kernels use, in plain C++: the same .cu text runs on a CPU, one fiber a CUDA thread.
//
// Force-included before the text of a kernel (see build.py). What a kernel does with its neighbours (barriers, warp
// exchanges, atomics) ends in a call of the runtime (runtime.cpp), which runs the fibers in a shuffled order.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <utility>

#define __CUDA_SHIM__ 1
#ifndef __CUDA_ARCH__
#define __CUDA_ARCH__ 900
#endif
#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__ __restrict
// Every function-local static lands in one linker section (shared.ld): memory that is poisoned before each block, and
// that the checker knows as shared.
#define __shared__ static

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };

void shim_fail(const char* format, ...);
extern "C" {
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
extern unsigned char shim_dynamic[]; // dynamic shared memory
void shim_barrier(int line);
void shim_grid_barrier(int line);
// Every lane of the warp gives `bytes` bytes; returns the warp's table, lane l's at l * bytes.
const void* shim_exchange(unsigned mask, const void* mine, int bytes, int line);
void shim_atomic(int begins);
struct ShimCopy { void* to; const void* from; int bytes, valid; };
void shim_copy(void* to, const void* from, int bytes, int valid); // asked for
void shim_end_group();
int shim_next_copy(int groups, ShimCopy* copy); // of those before the last `groups` groups, one that is still to happen
void shim_run(void (*body)(void*), void* arguments, const unsigned* grid, const unsigned* block, unsigned dynamic,
              int cooperative, unsigned seed, char* error, int room);
}

static const int warpSize = 32;
#define __syncthreads() shim_barrier(__LINE__)
inline unsigned shim_lane() {
    return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) & 31u;
}
template <class T>
__attribute__((noinline, no_sanitize("thread"))) T shim_shuffle(unsigned mask, T value, int lane, int line) {
    return ((const T*)shim_exchange(mask, &value, sizeof value, line))[lane & 31];
}
// All lanes' values, into an array of 32 of the lane's own.
template <class T>
__attribute__((noinline, no_sanitize("thread"))) void shim_gather_at(T* all, const T& mine, int line) {
    memcpy(all, shim_exchange(0xffffffffu, &mine, sizeof mine, line), 32 * sizeof mine);
}
#define shim_gather(all, mine) shim_gather_at(all, mine, __LINE__)
#define __shfl_sync(mask, value, lane) shim_shuffle(mask, value, lane, __LINE__)
#define __shfl_xor_sync(mask, value, other) shim_shuffle(mask, value, (int)shim_lane() ^ (other), __LINE__)
#define __shfl_up_sync(mask, value, by) \
    shim_shuffle(mask, value, (int)shim_lane() - (by) < 0 ? (int)shim_lane() : (int)shim_lane() - (by), __LINE__)
#define __shfl_down_sync(mask, value, by) \
    shim_shuffle(mask, value, (int)shim_lane() + (by) > 31 ? (int)shim_lane() : (int)shim_lane() + (by), __LINE__)

template <class T, class F> inline T shim_update(T* p, F f) {
    shim_atomic(1);
    T old = *p;
    *p = f(old);
    shim_atomic(0);
    return old;
}
template <class T> inline T atomicAdd(T* p, T v) { return shim_update(p, [=](T old) { return (T)(old + v); }); }
template <class T> inline T atomicMax(T* p, T v) { return shim_update(p, [=](T old) { return old > v ? old : v; }); }

template <class To, class From> inline To shim_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
typedef float shim_vector __attribute__((vector_size(16))); // what one instruction loads or stores
inline int __float_as_int(float f) { return shim_bits<int>(f); }
inline float __int_as_float(int i) { return shim_bits<float>(i); }
inline unsigned __float_as_uint(float f) { return shim_bits<unsigned>(f); }
inline float __uint_as_float(unsigned i) { return shim_bits<float>(i); }
inline long long __double_as_longlong(double f) { return shim_bits<long long>(f); }
inline double __longlong_as_double(long long i) { return shim_bits<double>(i); }
// Copies happen as late as they may: not before they are waited for.
inline void shim_wait_for_copies(int groups) {
    ShimCopy c;
    while (shim_next_copy(groups, &c)) {
        if (c.bytes == 16) *(shim_vector*)c.to = c.valid ? *(const shim_vector*)c.from : shim_vector{};
        else if (c.bytes == 8) *(uint64_t*)c.to = c.valid ? *(const uint64_t*)c.from : 0;
        else *(uint32_t*)c.to = c.valid ? *(const uint32_t*)c.from : 0;
    }
}
template <class T> inline T* shim_aligned(T* p) {
    if ((uintptr_t)p % 16) shim_fail("16 bytes at an address that is not a multiple of 16");
    return p;
}
template <class T> inline T min(T a, T b) { return b < a ? b : a; }
template <class T> inline T max(T a, T b) { return a < b ? b : a; }

namespace cooperative_groups {
struct grid_group {
    void sync() const { shim_grid_barrier(0); }
};
inline grid_group this_grid() { return {}; }
} // namespace cooperative_groups

// -- launching: the types of the parameters come from the kernel itself --------------------------------------------

namespace shim {
// A type in the notation of NumPy (f4, i8, ...), after '*' for a pointer and 'C*' for a pointer to const.
template <class T> void name(char*& out) {
    using U = std::remove_cv_t<T>;
    if constexpr (std::is_pointer_v<U>) {
        using E = std::remove_pointer_t<U>;
        if (std::is_const_v<E>) *out++ = 'C';
        *out++ = '*';
        name<E>(out);
    } else {
        *out++ = std::is_floating_point_v<U> ? 'f' : std::is_unsigned_v<U> ? 'u' : std::is_integral_v<U> ? 'i' : 'V';
        *out++ = (char)('0' + sizeof(U));
        *out++ = ',';
    }
}
template <class... A> void signature(void (*)(A...), char* out) {
    (name<A>(out), ...);
    *out = 0;
}
template <class... A> struct Call {
    void (*kernel)(A...);
    void** arguments;
    template <size_t... I> __attribute__((no_sanitize("thread"))) void apply(std::index_sequence<I...>) {
        kernel(*(std::remove_cv_t<A>*)arguments[I]...);
    }
    static __attribute__((no_sanitize("thread"))) void body(void* self) {
        ((Call*)self)->apply(std::index_sequence_for<A...>());
    }
};
template <class... A>
void launch(void (*kernel)(A...), void** arguments, const unsigned* grid, const unsigned* block, unsigned dynamic,
            int cooperative, unsigned seed, char* error, int room) {
    Call<A...> call{kernel, arguments};
    shim_run(&Call<A...>::body, &call, grid, block, dynamic, cooperative, seed, error, room);
}
} // namespace shim
#define SHIM_EXPORT(kernel)                                                                                        \
    extern "C" void shim_launch_##kernel(void** a, const unsigned* g, const unsigned* b, unsigned d, int c, unsigned s, \
                                         char* e, int r) { shim::launch(kernel, a, g, b, d, c, s, e, r); }        \
    extern "C" void shim_signature_##kernel(char* out) { shim::signature(kernel, out); }
