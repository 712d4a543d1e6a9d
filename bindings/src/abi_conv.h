/* The public functions of convolution, of one type (abi.h includes this file). */
#include "shape.h"

size_t EQK(conv_workspace)(const eqk_conv *conv) {
    shape g;
    if (check_conv(conv) != EQK_OK)
        return 0;
    g = shape_of(conv);
    return fits(verb_room(&g, CHAINS), sizeof(EQK_REAL)) ? (size_t)verb_room(&g, CHAINS) * sizeof(EQK_REAL) : 0;
}

/* What all verbs of convolution ask for; `winners` are asked for where a maximum is pooled. */
static eqk_status check_conv_verb(const eqk_conv *conv, const EQK_REAL *a, const EQK_REAL *b, const EQK_REAL *c,
                                  const int32_t *winners, int64_t batch, const void *work, size_t work_size) {
    shape g;
    CHECK(check_conv(conv));
    g = shape_of(conv);
    REQUIRE(fits(batch, pre_size(&g)) && fits(batch, post_size(&g)), EQK_BAD_SIZE);
    REQUIRE(EQK(conv_workspace)(conv) > 0, EQK_BAD_SIZE);
    REALS(a);
    REALS(b);
    REALS(c);
    if (conv->pool == EQK_MAX_POOL)
        POINTER(winners, int32_t);
    REALS(work);
    REQUIRE(work_size >= EQK(conv_workspace)(conv), EQK_SMALL_WORKSPACE);
    return EQK_OK;
}

eqk_status EQK(conv_energy)(int variant, EQK_REAL *energy, const EQK_REAL *pre, const EQK_REAL *post,
                            const EQK_REAL *weight, const int32_t *winners, const eqk_conv *conv, int64_t batch,
                            void *work, size_t work_size) {
    CHECK(check_conv_verb(conv, pre, post, weight, winners, batch, work, work_size));
    REALS(energy);
    CHOOSE(variant);
    run->conv_energy(energy, pre, post, weight, winners, conv, batch, work);
    return EQK_OK;
}

eqk_status EQK(conv_drive_post)(int variant, EQK_REAL *drive, const EQK_REAL *pre, const EQK_REAL *weight,
                                const int32_t *winners, const eqk_conv *conv, int64_t batch, void *work,
                                size_t work_size) {
    CHECK(check_conv_verb(conv, drive, pre, weight, winners, batch, work, work_size));
    CHOOSE(variant);
    run->conv_drive_post(drive, pre, weight, winners, conv, batch, work);
    return EQK_OK;
}

eqk_status EQK(conv_drive_pre)(int variant, EQK_REAL *drive, const EQK_REAL *post, const EQK_REAL *weight,
                               const int32_t *winners, const eqk_conv *conv, int64_t batch, void *work,
                               size_t work_size) {
    CHECK(check_conv_verb(conv, drive, post, weight, winners, batch, work, work_size));
    CHOOSE(variant);
    run->conv_drive_pre(drive, post, weight, winners, conv, batch, work);
    return EQK_OK;
}

eqk_status EQK(conv_hebbian)(int variant, EQK_REAL *trace, const EQK_REAL *pre, const EQK_REAL *post, double scale,
                             const int32_t *winners, const eqk_conv *conv, int64_t batch, void *work,
                             size_t work_size) {
    CHECK(check_conv_verb(conv, trace, pre, post, winners, batch, work, work_size));
    CHOOSE(variant);
    run->conv_hebbian(trace, pre, post, scale, winners, conv, batch, work);
    return EQK_OK;
}

eqk_status EQK(conv_choose)(int variant, int32_t *winners, const EQK_REAL *pre, const EQK_REAL *weight,
                            const eqk_conv *conv, int64_t batch, void *work, size_t work_size) {
    CHECK(check_conv_verb(conv, pre, pre, weight, winners, batch, work, work_size));
    REQUIRE(conv->pool == EQK_MAX_POOL, EQK_BAD_VALUE);
    CHOOSE(variant);
    run->conv_choose(winners, pre, weight, conv, batch, work);
    return EQK_OK;
}
