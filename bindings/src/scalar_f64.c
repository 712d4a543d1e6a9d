/* The kernels for double, plain C99. */
#define REAL_BITS 64
#define KERNELS eqk_kernels_f64 eqk_kernels_f64_scalar
#include "kernels.h"
