/* What both types share: versions, names, and which variant runs. */
#include "shape.h"

int eqk_abi_version(void) { return EQK_ABI_VERSION; }

const char *eqk_status_text(int status) {
    static const char *const texts[] = {
        "done",
        "a pointer that is needed is NULL",
        "a size is not positive, or too large",
        "a code or constant is outside its range",
        "the working memory is too small",
        "a pointer is not aligned as its type must be",
        "this processor or this build cannot run the variant",
        "the caller was compiled with another version of eqkernel.h",
        "the states left the finite numbers",
        "x or target holds a NaN or an infinity",
    };
    return status >= 0 && status <= EQK_NOT_FINITE ? texts[status] : "no status of eqkernel";
}

const char *eqk_variant_name(int variant) {
    static const char *const names[] = {"auto", "scalar", "avx2", "avx512", "avx512-intel"};
    return variant >= 0 && variant <= EQK_AVX512_INTEL ? names[variant] : "no variant of eqkernel";
}

int eqk_best_variant(void) {
#if EQK_HAS_X86
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq"))
        return __builtin_cpu_is("intel") ? EQK_AVX512_INTEL : EQK_AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return EQK_AVX2;
#endif
    return EQK_SCALAR;
}

int eqk_runs_variant(int variant) {
    int best = eqk_best_variant();
    return variant >= EQK_AUTO && variant <= (best == EQK_AVX512 ? EQK_AVX512_INTEL : best);
}

const char *eqk_precision_name(int precision) {
    static const char *const names[] = {"full", "bf16x3", "bf16x3 by AVX512-BF16", "bf16x3 by AMX"};
    return precision >= 0 && precision <= EQK_BF16X3_AMX ? names[precision] : "no precision of eqkernel";
}

eqk_status eqk_conv_post(const eqk_conv *conv, int64_t *height, int64_t *width, int64_t *n_post) {
    eqk_status status = check_conv(conv);
    shape g;
    if (status)
        return status;
    POINTER_OR_NULL(height, int64_t);
    POINTER_OR_NULL(width, int64_t);
    POINTER_OR_NULL(n_post, int64_t);
    g = shape_of(conv);
    if (height)
        *height = g.post_height;
    if (width)
        *width = g.post_width;
    if (n_post)
        *n_post = post_size(&g);
    return EQK_OK;
}
