/* The public functions for double. */
#include "check.h"

#define EQK_REAL double
#define EQK(name) eqk_##name##_f64
#define KERNELS eqk_kernels_f64
#define SCALAR eqk_kernels_f64_scalar
#define AVX2 eqk_kernels_f64_avx2
#define AVX512 eqk_kernels_f64_avx512
#define SMALLEST DBL_MIN
#define EPSILON DBL_EPSILON
#include "abi.h"
