/* The public functions of one type: they check every argument, then call the kernels of the variant. */
#include <float.h>
#include <math.h>

#include "check.h"

enum { CHAINS = 64 / sizeof(EQK_REAL), WIDTH = 2 * CHAINS };

static const KERNELS *kernels_of(int variant) {
    if (!eqk_runs_variant(variant))
        return 0;
    variant = variant == EQK_AUTO ? eqk_best_variant() : variant;
#if EQK_HAS_X86
    if (variant == EQK_AVX512_INTEL)
        return &AVX512_INTEL;
    if (variant == EQK_AVX512)
        return &AVX512;
    if (variant == EQK_AVX2)
        return &AVX2;
#endif
    return variant == EQK_SCALAR ? &SCALAR : 0;
}

#define CHOOSE(variant) \
    const KERNELS *run; \
    REQUIRE((variant) >= EQK_AUTO && (variant) <= EQK_AVX512_INTEL, EQK_BAD_VALUE); \
    run = kernels_of(variant); \
    REQUIRE(run, EQK_NOT_SUPPORTED)
#define REALS(p) POINTER(p, EQK_REAL)

#define CHECK(call) \
    do { \
        eqk_status status = call; \
        if (status) \
            return status; \
    } while (0)

#include "abi_layered.h"
#include "abi_train.h"
#include "abi_conv.h"
#include "abi_dense.h"
#include "abi_neurons.h"
#include "abi_field.h"
