/* The public functions for float. */
#include "check.h"

#define EQK_REAL float
#define EQK(name) eqk_##name##_f32
#define KERNELS eqk_kernels_f32
#define SCALAR eqk_kernels_f32_scalar
#define AVX2 eqk_kernels_f32_avx2
#define AVX512 eqk_kernels_f32_avx512
#define AVX512_INTEL eqk_kernels_f32_avx512_intel
#define PHASES eqk_phases_f32
#define HAS_BF16X3 EQK_HAS_BF16X3
#define SMALLEST FLT_MIN
#define EPSILON FLT_EPSILON
#include "abi.h"
