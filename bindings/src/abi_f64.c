/* The public functions for double. */
#include "check.h"

#define EQK_REAL double
#define EQK(name) eqk_##name##_f64
#define KERNELS eqk_kernels_f64
#define SCALAR eqk_kernels_f64_scalar
#define AVX2 eqk_kernels_f64_avx2
#define AVX512 eqk_kernels_f64_avx512
#define AVX512_INTEL eqk_kernels_f64_avx512_intel
#define PHASES eqk_phases_f64
#define HAS_BF16X3 0
#define SMALLEST DBL_MIN
#define EPSILON DBL_EPSILON
#include "abi.h"
