/* What the ABI checks before a kernel runs. */
#ifndef CHECK_H
#define CHECK_H
#include "table.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define EQK_HAS_X86 1
#else
#define EQK_HAS_X86 0
#endif

/* Compilers that know AVX512-BF16 and AMX. */
#if EQK_HAS_X86 && (defined(__clang__) ? __clang_major__ >= 12 : __GNUC__ >= 11)
#define EQK_HAS_BF16X3 1
#else
#define EQK_HAS_BF16X3 0
#endif

/* Whether a kind of EQK_BF16X3 can run. To ask for AMX takes microseconds, of the system and perhaps of a hypervisor. */
int eqk_runs_bf16x3(int kind);

/* Products of sizes stay below what a pointer can address: each is at most MOST, and so is what they make. */
#define MOST (SIZE_MAX > 0xffffffffu ? (int64_t)1 << 40 : (int64_t)1 << 30)

static inline int fits(int64_t a, int64_t b) { return a > 0 && b > 0 && a <= MOST && b <= MOST / a; }
static inline int fits3(int64_t a, int64_t b, int64_t c) { return fits(a, b) && fits(a * b, c); }

/* Fails with `status` unless `condition` holds. */
#define REQUIRE(condition, status) \
    do { \
        if (!(condition)) \
            return status; \
    } while (0)

/* A pointer to numbers of `type`; one that may be NULL. Eight bytes are aligned as a pointer is, which may have four. */
#define POINTER(p, type) \
    do { \
        if (!(p)) \
            return EQK_NULL_POINTER; \
        POINTER_OR_NULL(p, type); \
    } while (0)
#define ALIGNMENT(type) (sizeof(type) < sizeof(void *) ? sizeof(type) : sizeof(void *))
#define POINTER_OR_NULL(p, type) REQUIRE((uintptr_t)(p) % ALIGNMENT(type) == 0, EQK_MISALIGNED)

static inline int between(double x, double low, double high) { return x > low && x <= high; } /* false for NaN */

#endif
