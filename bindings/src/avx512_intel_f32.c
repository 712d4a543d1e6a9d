/* The kernels for float, AVX-512, for Intel's cores: see vector_avx512.h. */
#define INTEL
#define KERNELS eqk_kernels_f32 eqk_kernels_f32_avx512_intel
#include "avx512_f32.c"
