/* The kernels for double, AVX-512, for Intel's cores: see vector_avx512.h. */
#define INTEL
#define KERNELS eqk_kernels_f64 eqk_kernels_f64_avx512_intel
#include "avx512_f64.c"
