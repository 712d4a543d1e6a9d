/* The verbs of diffusion, and the steps of the field. */
#define GRID \
    REQUIRE(fits3(batch, rows, width) && fits(2 * rows, 2) && fits(2 * width, 2), EQK_BAD_SIZE); \
    REQUIRE(boundary == EQK_PERIODIC || boundary == EQK_NEUMANN, EQK_BAD_VALUE)

eqk_status EQK(diffusion_energy)(int variant, EQK_REAL *energy, const EQK_REAL *pre, const EQK_REAL *post, double D,
                                 int64_t batch, int64_t rows, int64_t width, int boundary) {
    GRID;
    REALS(energy);
    REALS(pre);
    REALS(post);
    CHOOSE(variant);
    run->diffusion_energy(energy, pre, post, D, batch, rows, width, boundary);
    return EQK_OK;
}

eqk_status EQK(diffusion_drive_post)(int variant, EQK_REAL *drive, const EQK_REAL *pre, double D, int64_t batch,
                                     int64_t rows, int64_t width, int boundary) {
    GRID;
    REALS(drive);
    REALS(pre);
    CHOOSE(variant);
    run->diffusion_drive_post(drive, pre, D, batch, rows, width, boundary);
    return EQK_OK;
}

eqk_status EQK(diffusion_hebbian)(int variant, EQK_REAL *trace, const EQK_REAL *pre, const EQK_REAL *post,
                                  double scale, int64_t batch, int64_t rows, int64_t width, int boundary) {
    GRID;
    REALS(trace);
    REALS(pre);
    REALS(post);
    CHOOSE(variant);
    run->diffusion_hebbian(trace, pre, post, scale, batch, rows, width, boundary);
    return EQK_OK;
}

size_t EQK(field_workspace)(int64_t width, int64_t steps) {
    int64_t columns = width < 4096 / (int64_t)sizeof(EQK_REAL) ? width : 4096 / (int64_t)sizeof(EQK_REAL);
    int64_t stride = (columns + EQK_FIELD_STEPS - 1) / EQK_FIELD_STEPS * EQK_FIELD_STEPS + 2 * EQK_FIELD_STEPS;
    if (width <= 0 || steps <= 0 || steps > EQK_FIELD_STEPS)
        return 0;
    return (size_t)((steps + 1) * 4 * stride + 32) * sizeof(EQK_REAL) + 64;
}

eqk_status EQK(field_advance)(int variant, EQK_REAL *after, const EQK_REAL *before, const eqk_field *field,
                              int64_t rows, int64_t width, int64_t steps, int boundary, int64_t first, int64_t last,
                              EQK_REAL *largest, void *work, size_t work_size) {
    REQUIRE(fits3(2, rows, width) && fits(2 * rows, 2) && fits(2 * width, 2), EQK_BAD_SIZE);
    REQUIRE(steps > 0 && steps <= EQK_FIELD_STEPS && first >= 0 && first <= last && last <= rows, EQK_BAD_SIZE);
    REQUIRE(boundary == EQK_PERIODIC || boundary == EQK_NEUMANN, EQK_BAD_VALUE);
    POINTER(field, double);
    REALS(after);
    REALS(before);
    REALS(largest);
    REALS(work);
    REQUIRE(work_size >= EQK(field_workspace)(width, steps), EQK_SMALL_WORKSPACE);
    CHOOSE(variant);
    run->field_advance(after, before, field, rows, width, steps, boundary, first, last, largest,
                       (EQK_REAL *)(((uintptr_t)work + 63) / 64 * 64));
    return EQK_OK;
}
