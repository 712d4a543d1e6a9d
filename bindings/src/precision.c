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

/* Whether bit `bit` of register `which` (eax, ebx, ecx, edx) is set in cpuid's leaf 7. */
static int has(unsigned subleaf, int which, int bit) {
    unsigned registers[4] = {0, 0, 0, 0};
    if (!__get_cpuid_count(7, subleaf, registers, registers + 1, registers + 2, registers + 3))
        return 0;
    return registers[which] >> bit & 1;
}

static int has_avx512_bf16(void) {
    return eqk_best_variant() == EQK_AVX512 && has(0, 1, 30) && has(1, 0, 5); /* AVX512-BW, AVX512-BF16 */
}

static int has_amx(void) {
#if defined(__linux__) && defined(SYS_arch_prctl)
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return has(0, 3, 22) && has(0, 3, 24) && /* AMX-BF16, AMX-TILE */
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return 0;
#endif
}
#else
static int has_avx512_bf16(void) { return 0; }
static int has_amx(void) { return 0; }
#endif

int eqk_bf16x3(void) {
    if (!has_avx512_bf16()) /* with which AMX splits what it multiplies */
        return EQK_FULL;
    return has_amx() ? EQK_BF16X3_AMX : EQK_BF16X3_AVX512;
}
