/* The phases of layered networks and their update: what a job must hold. */
static int64_t rounded(int64_t n) { return (n + CHAINS - 1) / CHAINS * CHAINS; }

static eqk_status check_layers(const EQK(job) * job) {
    int64_t row = 0, last;
    POINTER(job->layers, int64_t);
    REQUIRE(job->count >= 2 && job->count <= 1 << 20, EQK_BAD_SIZE);
    last = job->count - 1;
    REQUIRE(job->parameter_count > 0 && job->parameter_count <= MOST, EQK_BAD_SIZE);
    for (int64_t l = 0; l <= last; l++) {
        const eqk_layer *layer = job->layers + l;
        int64_t below = l ? job->layers[l - 1].size : 1, all = job->parameter_count;
        REQUIRE(fits3(layer->size, below, 1) && row <= MOST, EQK_BAD_SIZE);
        REQUIRE(layer->row == row, EQK_BAD_VALUE);
        if (l == 0)
            continue;
        row += layer->size;
        REQUIRE(layer->neuron >= EQK_HARD_SIGMOID && layer->neuron <= EQK_FHN, EQK_BAD_VALUE);
        REQUIRE(layer->neuron != EQK_SOFTMAX || (l == last && last > 1), EQK_BAD_VALUE);
        REQUIRE(layer->weight >= 0 && layer->weight <= all - below * layer->size, EQK_BAD_VALUE);
        REQUIRE(layer->bias >= 0 && layer->bias <= all - layer->size, EQK_BAD_VALUE);
        REQUIRE(layer->lateral >= -1, EQK_BAD_VALUE);
        if (layer->lateral >= 0)
            REQUIRE(fits(layer->size, layer->size) && layer->lateral <= all - layer->size * layer->size, EQK_BAD_VALUE);
        REQUIRE(layer->lateral < 0 || layer->neuron != EQK_SOFTMAX, EQK_BAD_VALUE);
    }
    return EQK_OK;
}

static eqk_status check_job(const EQK(job) * job) {
    POINTER(job, int64_t);
    REQUIRE(job->version == EQK_ABI_VERSION, EQK_WRONG_VERSION);
    REQUIRE(job->batch > 0 && job->batch <= MOST, EQK_BAD_SIZE);
    return check_layers(job);
}

int64_t EQK(tiles)(int64_t batch) { return batch > 0 ? (batch - 1) / WIDTH + 1 : 0; }

static size_t workspace_of(const EQK(job) * job) {
    int64_t rows = rounded(job->layers[0].size) + rounded(job->layers[job->count - 1].size);
    int64_t samples = job->batch > CHAINS ? EQK(tiles)(job->batch) * WIDTH : job->batch > 1 ? CHAINS : 1;
    for (int64_t l = 1; l < job->count; l++)
        rows += 12 * rounded(job->layers[l].size);
    return fits3(rows, samples, sizeof(EQK_REAL)) ? (size_t)(rows * samples) * sizeof(EQK_REAL) + 64 : 0;
}

size_t EQK(workspace)(const EQK(job) * job) { return check_job(job) == EQK_OK ? workspace_of(job) : 0; }

static eqk_status check_phases(const EQK(job) * job, int64_t first, int64_t last) {
    const eqk_schedule *s = &job->schedule;
    REQUIRE(first >= 0 && first <= last && last <= EQK(tiles)(job->batch), EQK_BAD_SIZE);
    REQUIRE(s->free_steps > 0 && s->nudged_steps > 0, EQK_BAD_SIZE);
    REQUIRE(between(s->gamma, 0, 1) && s->tolerance >= 0, EQK_BAD_VALUE);
    REQUIRE(between(s->step, 0, 1) || (s->order == EQK_EVEN_ODD && s->step > 1 && s->step < 2), EQK_BAD_VALUE);
    REQUIRE(s->order >= EQK_SYNCHRONOUS && s->order <= EQK_SWEEP, EQK_BAD_VALUE);
    REALS(job->parameters);
    REALS(job->x);
    REALS(job->state);
    POINTER(job->report, double);
    REALS(job->work);
    REQUIRE(workspace_of(job) > 0, EQK_BAD_SIZE);
    REQUIRE(job->work_size >= workspace_of(job), EQK_SMALL_WORKSPACE);
    return EQK_OK;
}

static eqk_status check_nudge(const EQK(job) * job) {
    const eqk_schedule *s = &job->schedule;
    int64_t classes = job->layers[job->count - 1].size;
    REQUIRE(s->form >= EQK_STATE && s->form <= EQK_MEAN_DIFFERENCE, EQK_BAD_VALUE);
    REQUIRE(s->nudge == EQK_FROZEN || (s->nudge == EQK_LIVE && s->form <= EQK_STATES), EQK_BAD_VALUE);
    REQUIRE(between(job->beta, 0, DBL_MAX) || (s->form == EQK_STATE && between(-job->beta, 0, DBL_MAX)), EQK_BAD_VALUE);
    REQUIRE((EQK_REAL)job->beta != 0 && isfinite((EQK_REAL)job->beta), EQK_BAD_VALUE);
    REALS(job->mean);
    REALS(job->difference);
    POINTER_OR_NULL(job->labels, int64_t);
    if (job->target) {
        REALS(job->target);
        return EQK_OK;
    }
    POINTER(job->labels, int64_t);
    for (int64_t b = 0; b < job->batch; b++)
        REQUIRE(job->labels[b] >= 0 && job->labels[b] < classes, EQK_BAD_VALUE);
    return EQK_OK;
}

static eqk_status check_update(const EQK(job) * job) {
    const eqk_optimiser *o = &job->optimiser;
    REQUIRE(o->rule >= EQK_GRADIENT && o->rule <= EQK_ADAM, EQK_BAD_VALUE);
    REQUIRE(isfinite(o->rate) && isfinite(o->decay) && between(job->schedule.gamma, 0, 1), EQK_BAD_VALUE);
    for (int i = 0; i < 7; i++)
        REQUIRE(isfinite(o->constants[i]), EQK_BAD_VALUE);
    REALS(job->parameters);
    REALS(job->x);
    REALS(job->mean);
    REALS(job->difference);
    if (o->rule >= EQK_MOMENTUM)
        REALS(job->first);
    if (o->rule == EQK_ADAM)
        REALS(job->second);
    return EQK_OK;
}

static eqk_status phases(const EQK(job) * job, int64_t first, int64_t last, int free, int nudged) {
    CHECK(check_job(job));
    CHECK(check_phases(job, first, last));
    if (nudged)
        CHECK(check_nudge(job));
    CHOOSE(job->variant);
    for (int64_t tile = first; tile < last; tile++) {
        if (free)
            run->free_phase(job, tile);
        if (nudged)
            run->nudged_phase(job, tile);
    }
    return EQK_OK;
}

eqk_status EQK(free_phase)(const EQK(job) * job, int64_t first, int64_t last) { return phases(job, first, last, 1, 0); }
eqk_status EQK(nudged_phase)(const EQK(job) * job, int64_t first, int64_t last) { return phases(job, first, last, 0, 1); }
eqk_status EQK(settle)(const EQK(job) * job, int64_t first, int64_t last) { return phases(job, first, last, 1, 1); }

eqk_status EQK(update)(const EQK(job) * job, int64_t part, int64_t parts) {
    CHECK(check_job(job));
    CHECK(check_update(job));
    REQUIRE(parts > 0 && parts <= 1 << 20 && part >= 0 && part < parts, EQK_BAD_SIZE);
    CHOOSE(job->variant);
    run->update(job, part, parts);
    return EQK_OK;
}
