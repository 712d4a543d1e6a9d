/* Which instructions for pairs of bfloat16 this processor has, and the system lets us use. */
#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE /* syscall */
#endif
#include "check.h"

#if EQK_HAS_BF16X3
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

static int has_avx512_bf16(void) {
    return eqk_best_variant() >= EQK_AVX512 && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512bf16");
}

static int has_amx(void) {
#if defined(__linux__) && defined(SYS_arch_prctl)
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    const unsigned both = 1u << 22 | 1u << 24; /* AMX-BF16, AMX-TILE; not every compiler can ask for them by name */
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & both) == both &&
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return 0;
#endif
}
#else
static int has_avx512_bf16(void) { return 0; }
static int has_amx(void) { return 0; }
#endif

int eqk_runs_bf16x3(int kind) {
    return has_avx512_bf16() && (kind == EQK_BF16X3_AVX512 || has_amx()); /* AMX too splits its factors with AVX-512 */
}

int eqk_bf16x3(void) {
    return eqk_runs_bf16x3(EQK_BF16X3_AMX)      ? EQK_BF16X3_AMX
           : eqk_runs_bf16x3(EQK_BF16X3_AVX512) ? EQK_BF16X3_AVX512
                                                : EQK_FULL;
}
