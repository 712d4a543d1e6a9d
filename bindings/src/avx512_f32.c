/* The kernels for float, AVX-512. */
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx2,fma")
#endif
#define VARIANT_AVX512
#define REAL_BITS 32
#ifndef KERNELS /* avx512_intel_f32.c names its own */
#define KERNELS eqk_kernels_f32 eqk_kernels_f32_avx512
#endif
#include "kernels.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int eqk_nothing; /* another processor: the scalar kernels run */
#endif
