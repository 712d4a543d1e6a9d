/* The kernels for float, plain C99. */
#define REAL_BITS 32
#define KERNELS eqk_kernels_f32 eqk_kernels_f32_scalar
#include "kernels.h"
