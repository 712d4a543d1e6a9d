/* The verbs of dense, bias and lateral connections. */
size_t EQK(dense_workspace)(int64_t n_pre, int64_t n_post) {
    if (!fits(n_pre, n_post) || !fits3(2 * n_pre + n_post, WIDTH, sizeof(EQK_REAL)))
        return 0;
    return (size_t)((2 * n_pre + n_post) * WIDTH) * sizeof(EQK_REAL);
}

#define DENSE_SIZES REQUIRE(fits(n_pre, n_post) && fits(batch, n_pre) && fits(batch, n_post), EQK_BAD_SIZE)

eqk_status EQK(dense_energy)(int variant, EQK_REAL *energy, const EQK_REAL *pre, const EQK_REAL *post,
                             const EQK_REAL *weight, int64_t batch, int64_t n_pre, int64_t n_post) {
    DENSE_SIZES;
    REALS(energy);
    REALS(pre);
    REALS(post);
    REALS(weight);
    CHOOSE(variant);
    run->dense_energy(energy, pre, post, weight, 1, batch, n_pre, n_post);
    return EQK_OK;
}

static eqk_status drive_post(int variant, EQK_REAL *drive, const EQK_REAL *pre, const EQK_REAL *weight, double scale,
                             int64_t batch, int64_t n_pre, int64_t n_post, void *work, size_t work_size) {
    DENSE_SIZES;
    REALS(drive);
    REALS(pre);
    REALS(weight);
    REALS(work);
    REQUIRE(EQK(dense_workspace)(n_pre, n_post) > 0, EQK_BAD_SIZE);
    REQUIRE(work_size >= EQK(dense_workspace)(n_pre, n_post), EQK_SMALL_WORKSPACE);
    CHOOSE(variant);
    run->dense_drive_post(drive, pre, weight, scale, batch, n_pre, n_post, work);
    return EQK_OK;
}

static eqk_status drive_pre(int variant, EQK_REAL *drive, const EQK_REAL *post, const EQK_REAL *weight, double scale,
                            int64_t batch, int64_t n_pre, int64_t n_post) {
    DENSE_SIZES;
    REALS(drive);
    REALS(post);
    REALS(weight);
    CHOOSE(variant);
    run->dense_drive_pre(drive, post, weight, scale, batch, n_pre, n_post);
    return EQK_OK;
}

eqk_status EQK(dense_drive_post)(int variant, EQK_REAL *drive, const EQK_REAL *pre, const EQK_REAL *weight,
                                 int64_t batch, int64_t n_pre, int64_t n_post, void *work, size_t work_size) {
    return drive_post(variant, drive, pre, weight, 1, batch, n_pre, n_post, work, work_size);
}

eqk_status EQK(dense_drive_pre)(int variant, EQK_REAL *drive, const EQK_REAL *post, const EQK_REAL *weight,
                                int64_t batch, int64_t n_pre, int64_t n_post) {
    return drive_pre(variant, drive, post, weight, 1, batch, n_pre, n_post);
}

eqk_status EQK(dense_hebbian)(int variant, EQK_REAL *trace, const EQK_REAL *pre, const EQK_REAL *post, double scale,
                              int64_t batch, int64_t n_pre, int64_t n_post) {
    DENSE_SIZES;
    REALS(trace);
    REALS(pre);
    REALS(post);
    CHOOSE(variant);
    run->dense_hebbian(trace, pre, post, scale, batch, n_pre, n_post);
    return EQK_OK;
}

eqk_status EQK(bias_energy)(int variant, EQK_REAL *energy, const EQK_REAL *post, const EQK_REAL *weight, int64_t batch,
                            int64_t n) {
    REQUIRE(fits(batch, n), EQK_BAD_SIZE);
    REALS(energy);
    REALS(post);
    REALS(weight);
    CHOOSE(variant);
    run->bias_energy(energy, post, weight, batch, n);
    return EQK_OK;
}

eqk_status EQK(bias_drive_post)(int variant, EQK_REAL *drive, const EQK_REAL *weight, int64_t batch, int64_t n) {
    REQUIRE(fits(batch, n), EQK_BAD_SIZE);
    REALS(drive);
    REALS(weight);
    CHOOSE(variant);
    run->bias_drive_post(drive, weight, batch, n);
    return EQK_OK;
}

eqk_status EQK(bias_hebbian)(int variant, EQK_REAL *trace, const EQK_REAL *post, double scale, int64_t batch,
                             int64_t n) {
    REQUIRE(fits(batch, n), EQK_BAD_SIZE);
    REALS(trace);
    REALS(post);
    CHOOSE(variant);
    run->bias_hebbian(trace, post, scale, batch, n);
    return EQK_OK;
}

eqk_status EQK(lateral_energy)(int variant, EQK_REAL *energy, const EQK_REAL *pre, const EQK_REAL *post,
                               const EQK_REAL *weight, int64_t batch, int64_t n) {
    REQUIRE(fits(batch, n) && fits(n, n), EQK_BAD_SIZE);
    REALS(energy);
    REALS(pre);
    REALS(post);
    REALS(weight);
    CHOOSE(variant);
    run->dense_energy(energy, pre, post, weight, 0.5, batch, n, n);
    return EQK_OK;
}

eqk_status EQK(lateral_drive_post)(int variant, EQK_REAL *drive, const EQK_REAL *pre, const EQK_REAL *weight,
                                   int64_t batch, int64_t n, void *work, size_t work_size) {
    return drive_post(variant, drive, pre, weight, 0.5, batch, n, n, work, work_size);
}

eqk_status EQK(lateral_drive_pre)(int variant, EQK_REAL *drive, const EQK_REAL *post, const EQK_REAL *weight,
                                  int64_t batch, int64_t n) {
    return drive_pre(variant, drive, post, weight, 0.5, batch, n, n);
}

eqk_status EQK(lateral_hebbian)(int variant, EQK_REAL *trace, const EQK_REAL *pre, const EQK_REAL *post, double scale,
                                int64_t batch, int64_t n) {
    return EQK(dense_hebbian)(variant, trace, pre, post, 0.5 * scale, batch, n, n);
}
