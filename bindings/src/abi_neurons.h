/* The verbs of neurons. */
#define NEURON REQUIRE(neuron >= EQK_HARD_SIGMOID && neuron <= EQK_FHN && neuron != EQK_SOFTMAX, EQK_BAD_VALUE)

eqk_status EQK(neurons_rate)(int variant, EQK_REAL *out, const EQK_REAL *drive, int64_t count, int neuron) {
    REQUIRE(fits(count, 1), EQK_BAD_SIZE);
    NEURON;
    REALS(out);
    REALS(drive);
    CHOOSE(variant);
    run->neurons_rate(out, drive, count, neuron);
    return EQK_OK;
}

eqk_status EQK(neurons_relax)(int variant, EQK_REAL *state, const EQK_REAL *drive, double step, int64_t count,
                              int neuron) {
    REQUIRE(fits(count, 1), EQK_BAD_SIZE);
    REQUIRE(isfinite(step), EQK_BAD_VALUE);
    NEURON;
    REALS(state);
    REALS(drive);
    CHOOSE(variant);
    run->neurons_relax(state, drive, step, count, neuron);
    return EQK_OK;
}

eqk_status EQK(neurons_difference)(int variant, EQK_REAL *out, const EQK_REAL *mean, const EQK_REAL *drive_difference,
                                   int64_t count, int neuron) {
    REQUIRE(fits(count, 1), EQK_BAD_SIZE);
    NEURON;
    REALS(out);
    REALS(mean);
    REALS(drive_difference);
    CHOOSE(variant);
    run->neurons_difference(out, mean, drive_difference, count, neuron);
    return EQK_OK;
}

eqk_status EQK(neurons_softmax)(int variant, EQK_REAL *out, const EQK_REAL *drive, int64_t batch, int64_t n) {
    REQUIRE(fits(batch, n), EQK_BAD_SIZE);
    REALS(out);
    REALS(drive);
    CHOOSE(variant);
    run->neurons_softmax(out, drive, batch, n);
    return EQK_OK;
}

static double times_log(double x, double y) { return x == 0 ? 0 : x * log(y); }

static double potential(double s, int neuron) {
    switch (neuron) {
    case EQK_SIGMOID: return times_log(s, s) + times_log(1 - s, 1 - s);
    case EQK_TANH: return (times_log(1 + s, 1 + s) + times_log(1 - s, 1 - s)) / 2;
    case EQK_FHN: return s * s / 2 + s * s * s * s / 4;
    case EQK_SOFTMAX: return times_log(s, s);
    default: return s * s / 2;
    }
}

eqk_status EQK(neurons_potential)(int variant, EQK_REAL *energy, const EQK_REAL *state, int64_t batch, int64_t n,
                                  int neuron) {
    REQUIRE(fits(batch, n), EQK_BAD_SIZE);
    REQUIRE(neuron >= EQK_HARD_SIGMOID && neuron <= EQK_FHN, EQK_BAD_VALUE);
    REALS(energy);
    REALS(state);
    CHOOSE(variant);
    (void)run; /* a measure, not a kernel: the same code whatever the variant */
    for (int64_t b = 0; b < batch; b++) {
        double total = 0;
        for (int64_t i = 0; i < n; i++)
            total += potential(state[b * n + i], neuron);
        energy[b] += (EQK_REAL)total;
    }
    return EQK_OK;
}
