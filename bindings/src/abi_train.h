/* A whole training step. */
/* Whether a phase left the finite numbers, or after many steps changes more than it ever did in their first half. */
static int diverged(const eqk_report *reports, int64_t tiles) {
    double steps = 0, residual = 0, early = 0;
    for (int64_t i = 0; i < tiles; i++) {
        if (!(reports[i].residual <= DBL_MAX))
            return 1;
        steps = reports[i].steps > steps ? reports[i].steps : steps;
        residual = reports[i].residual > residual ? reports[i].residual : residual;
        early = reports[i].early > early ? reports[i].early : early;
    }
    return steps >= 20 && residual > 2 * early && residual > 1e-6;
}

/* Sum of the costs of all samples; counts the labels that the most active output has right. */
static double total_loss(const EQK(job) * job, int64_t *correct) {
    int64_t last = job->count - 1, n = job->layers[last].size, entropy = job->layers[last].neuron == EQK_SOFTMAX;
    const EQK_REAL *output = job->state + job->batch * job->layers[last].row;
    double total = 0;
    *correct = 0;
    for (int64_t b = 0; b < job->batch; b++, output += n) {
        int64_t most = 0, label = job->labels ? job->labels[b] : -1;
        for (int64_t i = 0; i < n; i++) {
            double s = output[i], t = job->target ? (double)job->target[b * n + i] : i == label;
            if (job->layers[last].on_rate) { /* binary cross-entropy, in which s and 1 - s are at least a unit of rounding */
                const double least = EPSILON / 2;
                total -= t * log(s < least ? least : s) + (1 - t) * log(1 - s < least ? least : 1 - s);
            } else if (!entropy)
                total += 0.5 * (t - s) * (t - s);
            else if (t != 0 || s != s)
                total -= t * log(s > SMALLEST || s != s ? s : SMALLEST);
            most = output[i] > output[most] ? i : most;
        }
        *correct += most == label;
    }
    return total;
}

static eqk_status measured(const EQK(job) * job, double *loss, int64_t *correct) {
    int64_t tiles = tiles_in(job), right;
    double total = total_loss(job, &right);
    if (loss)
        *loss = total / (double)job->batch;
    if (correct)
        *correct = right;
    REQUIRE(isfinite(total) && !diverged(job->report, tiles) && !diverged(job->report + tiles, tiles), EQK_DIVERGED);
    return EQK_OK;
}

static eqk_status check_measure(const EQK(job) * job, double *loss, int64_t *correct) {
    CHECK(check_job(job));
    CHECK(check_phases(job, 0, 0));
    CHECK(check_nudge(job));
    POINTER_OR_NULL(loss, double);
    POINTER_OR_NULL(correct, int64_t);
    return EQK_OK;
}

eqk_status EQK(measure)(const EQK(job) * job, double *loss, int64_t *correct) {
    PHASES phase;
    CHECK(check_measure(job, loss, correct));
    CHECK(choose_phases(job, &phase));
    return measured(job, loss, correct);
}

eqk_status EQK(train_step)(const EQK(job) * job, double *loss, int64_t *correct) {
    PHASES phase;
    CHECK(check_measure(job, loss, correct));
    CHECK(check_update(job));
    CHOOSE(job->variant);
    CHECK(choose_phases(job, &phase));
    CHECK(check_samples(job, 0, tiles_in(job), 1, 1));
    if (phase.pack)
        phase.pack(job, 0, 1);
    for (int64_t tile = 0; tile < tiles_in(job); tile++) { /* one after the other in one place, which stays in the cache */
        phase.free_phase(job, tile, 0);
        phase.nudged_phase(job, tile, 0);
    }
    CHECK(measured(job, loss, correct));
    run->update(job, 0, 1);
    return EQK_OK;
}
