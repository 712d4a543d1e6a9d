/* The kernels for double, AVX-512, for Intel's cores: see vector_avx512.h. */
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx2,fma")
#endif
#define VARIANT_AVX512
#define INTEL
#define REAL_BITS 64
#define KERNELS eqk_kernels_f64 eqk_kernels_f64_avx512_intel
#include "kernels.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int eqk_nothing; /* another processor: the scalar kernels run */
#endif
