/* The phases of layered networks and their update: what a job must hold. */
#include "packing.h"

static int64_t rounded(int64_t n) { return round_up(n, CHAINS); }

/* Whether a layer is a map or not one, and the convolution into it fits both maps. */
static eqk_status check_map(const eqk_layer *layers, int64_t l) {
    const eqk_layer *layer = layers + l;
    shape g;
    if (layer->height || layer->width || layer->channels) {
        REQUIRE(fits3(layer->height, layer->width, layer->channels), EQK_BAD_SIZE);
        REQUIRE(layer->height * layer->width * layer->channels == layer->size, EQK_BAD_VALUE);
    }
    if (!l || !layer->kernel) {
        REQUIRE(!(layer->kernel || layer->stride || layer->padding || layer->pool || layer->window), EQK_BAD_VALUE);
        return EQK_OK;
    }
    REQUIRE(layer->channels && layers[l - 1].channels && layer->neuron != EQK_SOFTMAX, EQK_BAD_VALUE);
    {
        eqk_conv conv = conv_into(layer);
        CHECK(check_conv(&conv));
    }
    g = shape_into(layer);
    REQUIRE(g.post_height == layer->height && g.post_width == layer->width, EQK_BAD_VALUE);
    return EQK_OK;
}

static int64_t weights_into(const eqk_layer *layer, int64_t below) {
    shape g;
    if (!layer->kernel)
        return below * layer->size;
    g = shape_into(layer);
    return g.post_channels * filter_size(&g);
}

static eqk_status check_layers(const EQK(job) * job) {
    int64_t row = 0, last;
    POINTER(job->layers, int64_t);
    REQUIRE(job->count >= 2 && job->count <= 1 << 20, EQK_BAD_SIZE);
    last = job->count - 1;
    REQUIRE(job->parameter_count > 0 && job->parameter_count <= MOST, EQK_BAD_SIZE);
    for (int64_t l = 0; l <= last; l++) {
        const eqk_layer *layer = job->layers + l;
        int64_t below = l ? job->layers[l - 1].size : 1, all = job->parameter_count;
        REQUIRE(fits(layer->size, layer->kernel ? 1 : below) && row <= MOST, EQK_BAD_SIZE);
        REQUIRE(layer->row == row, EQK_BAD_VALUE);
        CHECK(check_map(job->layers, l));
        REQUIRE(!layer->on_rate || (l == last && l && layer->on_rate == 1), EQK_BAD_VALUE);
        if (l == 0)
            continue;
        row += layer->size;
        REQUIRE(layer->neuron >= EQK_HARD_SIGMOID && layer->neuron <= EQK_FHN, EQK_BAD_VALUE);
        REQUIRE(layer->neuron != EQK_SOFTMAX || (l == last && last > 1), EQK_BAD_VALUE);
        REQUIRE(!layer->on_rate || layer->neuron != EQK_SOFTMAX, EQK_BAD_VALUE);
        REQUIRE(layer->weight >= 0 && layer->weight <= all - weights_into(layer, below), EQK_BAD_VALUE);
        REQUIRE(layer->bias >= 0 && layer->bias <= all - biases_of(layer), EQK_BAD_VALUE);
        REQUIRE(layer->lateral >= -1, EQK_BAD_VALUE);
        if (layer->lateral >= 0)
            REQUIRE(fits(layer->size, layer->size) && layer->lateral <= all - layer->size * layer->size, EQK_BAD_VALUE);
        REQUIRE(layer->adaptation >= 0 && isfinite((EQK_REAL)layer->adaptation), EQK_BAD_VALUE);
        REQUIRE(layer->adaptation == 0 || (layer->tau >= 1 && isfinite(layer->tau)), EQK_BAD_VALUE);
        REQUIRE((layer->lateral < 0 && layer->adaptation == 0) || layer->neuron != EQK_SOFTMAX, EQK_BAD_VALUE);
    }
    return EQK_OK;
}

static eqk_status check_job(const EQK(job) * job) {
    POINTER(job, int64_t);
    REQUIRE(job->version == EQK_ABI_VERSION, EQK_WRONG_VERSION);
    REQUIRE(job->batch > 0 && job->batch <= MOST, EQK_BAD_SIZE);
    return check_layers(job);
}

/* Of a job that has been checked. */
static int64_t tiles_in(const EQK(job) * job) { return tiles_of(job->layers, job->count, job->batch, CHAINS); }

int64_t EQK(tiles)(const EQK(job) * job) { return check_job(job) == EQK_OK ? tiles_in(job) : 0; }

static size_t larger_size(size_t a, size_t b) { return a > b ? a : b; }

/* Bytes of the update's scratch, from a line of cache on; -1 if they are too many. */
static int64_t update_work(const EQK(job) * job, int64_t parts) {
    int64_t most = update_room(job->layers, job->count, job->batch, CHAINS);
    if (!most)
        return 0;
    return fits3(most, parts, sizeof(EQK_REAL)) ? most * parts * (int64_t)sizeof(EQK_REAL) + 64 : -1;
}

/* Whether factors are split: in float alone. */
static int splits(const EQK(job) * job) { return sizeof(EQK_REAL) == 4 && job->schedule.precision != EQK_FULL; }

static size_t workspace_of(const EQK(job) * job) {
    int64_t count = job->count, rows = rounded(job->layers[0].size) + rounded(job->layers[count - 1].size);
    int convs = has_convs(job->layers, count), split = splits(job);
    int64_t width = width_of(job->layers, count, CHAINS), tiles = tiles_in(job);
    int64_t few = job->batch > 1 || split ? CHAINS : 1, lanes = job->batch > CHAINS ? width : few;
    int64_t packed = split ? packed_before(job->layers, count) : 0, tile;
    int64_t least = update_work(job, 1); /* the update's scratch lies in the same place */
    for (int64_t l = 1; l < count; l++)
        rows += (job->layers[l].adaptation != 0 ? 15 : 12) * rounded(job->layers[l].size);
    if (!fits(rows, lanes) || packed < 0 || least < 0)
        return 0;
    tile = rows * lanes + (convs ? convs_size(job->layers, count, lanes, CHAINS) : 0);
    tile += split ? split_room(job->layers, count, lanes) : product_room(job->layers, count, lanes, CHAINS);
    if (!fits3(tile, tiles, sizeof(EQK_REAL)) || !fits(tile * tiles + packed, sizeof(EQK_REAL)))
        return 0;
    return larger_size((size_t)(tile * tiles + packed) * sizeof(EQK_REAL) + 64, (size_t)least);
}

size_t EQK(update_workspace)(const EQK(job) * job, int64_t parts) {
    int64_t bytes = check_job(job) == EQK_OK && parts > 0 ? update_work(job, parts) : 0;
    return bytes > 0 ? (size_t)bytes : 0;
}

size_t EQK(workspace)(const EQK(job) * job) { return check_job(job) == EQK_OK ? workspace_of(job) : 0; }

static eqk_status check_work(const EQK(job) * job) {
    size_t bytes = workspace_of(job);
    REALS(job->work);
    REQUIRE(bytes > 0, EQK_BAD_SIZE);
    REQUIRE(job->work_size >= bytes, EQK_SMALL_WORKSPACE);
    return EQK_OK;
}

static eqk_status check_phases(const EQK(job) * job, int64_t first, int64_t last) {
    const eqk_schedule *s = &job->schedule;
    REQUIRE(first >= 0 && first <= last && last <= tiles_in(job), EQK_BAD_SIZE);
    REQUIRE(s->free_steps > 0 && s->nudged_steps > 0, EQK_BAD_SIZE);
    REQUIRE(between((EQK_REAL)s->gamma, 0, 1) && s->tolerance >= 0, EQK_BAD_VALUE);
    REQUIRE(between(s->step, 0, 1) || (s->order == EQK_EVEN_ODD && s->step > 1 && s->step < 2), EQK_BAD_VALUE);
    REQUIRE(s->order >= EQK_SYNCHRONOUS && s->order <= EQK_SWEEP, EQK_BAD_VALUE);
    REALS(job->parameters);
    REALS(job->x);
    REALS(job->state);
    POINTER(job->report, double);
    return check_work(job);
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
    POINTER_OR_NULL(job->winners, EQK_REAL);
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
    double power = 1;
    REQUIRE(o->rule >= EQK_GRADIENT && o->rule <= EQK_ADAM, EQK_BAD_VALUE);
    REQUIRE(isfinite((EQK_REAL)o->rate) && isfinite((EQK_REAL)o->decay), EQK_BAD_VALUE);
    for (int i = 0; i < 7; i++)
        REQUIRE(isfinite((EQK_REAL)o->constants[i]), EQK_BAD_VALUE);
    REQUIRE(o->rule != EQK_ADAM || (EQK_REAL)o->constants[4] > 0, EQK_BAD_VALUE);
    REQUIRE(between(job->schedule.gamma, 0, 1), EQK_BAD_VALUE);
    for (int64_t l = 1; l < top_of(job->layers, job->count); l++)
        power *= job->schedule.gamma;
    REQUIRE(isfinite((EQK_REAL)(1 / power)), EQK_BAD_VALUE); /* what layer 1 learns is divided by it */
    REALS(job->parameters);
    REALS(job->x);
    REALS(job->mean);
    REALS(job->difference);
    POINTER_OR_NULL(job->winners, EQK_REAL);
    if (o->rule >= EQK_MOMENTUM)
        REALS(job->first);
    if (o->rule == EQK_ADAM)
        REALS(job->second);
    return EQK_OK;
}

/* The phases of the job's variant and precision. */
static eqk_status choose_phases(const EQK(job) * job, PHASES *chosen) {
    int precision = job->schedule.precision;
    CHOOSE(job->variant);
    REQUIRE(precision >= EQK_FULL && precision <= EQK_BF16X3_AMX, EQK_BAD_VALUE);
    *chosen = (PHASES){0, run->free_phase, run->nudged_phase};
    if (precision == EQK_FULL)
        return EQK_OK;
    REQUIRE(job->variant == EQK_AUTO || job->variant >= EQK_AVX512, EQK_NOT_SUPPORTED);
    precision = precision == EQK_BF16X3 ? eqk_bf16x3() : eqk_runs_bf16x3(precision) ? precision : EQK_FULL;
    REQUIRE(HAS_BF16X3 && precision != EQK_FULL, EQK_NOT_SUPPORTED);
#if HAS_BF16X3
    *chosen = precision == EQK_BF16X3_AMX ? eqk_bf16x3_amx : eqk_bf16x3_avx512;
#endif
    return EQK_OK;
}

static int all_finite(const EQK_REAL *x, int64_t count) {
    int other = 0;
    for (int64_t i = 0; i < count; i++)
        other |= x[i] - x[i] != 0; /* a NaN, as infinity less infinity is */
    return !other;
}

/* The samples of tiles first..last - 1. */
static eqk_status check_samples(const EQK(job) * job, int64_t first, int64_t last, int free, int nudged) {
    int64_t width = width_of(job->layers, job->count, CHAINS), begin = first * width, end = last * width;
    int64_t inputs = job->layers[0].size, outputs = job->layers[job->count - 1].size;
    end = end < job->batch ? end : job->batch;
    if (free)
        REQUIRE(all_finite(job->x + begin * inputs, (end - begin) * inputs), EQK_NOT_FINITE);
    if (nudged && job->target)
        REQUIRE(all_finite(job->target + begin * outputs, (end - begin) * outputs), EQK_NOT_FINITE);
    return EQK_OK;
}

static eqk_status phases(const EQK(job) * job, int64_t first, int64_t last, int free, int nudged) {
    PHASES run;
    CHECK(check_job(job));
    CHECK(check_phases(job, first, last));
    if (nudged)
        CHECK(check_nudge(job));
    CHECK(choose_phases(job, &run));
    CHECK(check_samples(job, first, last, free, nudged));
    for (int64_t tile = first; tile < last; tile++) {
        if (free)
            run.free_phase(job, tile, tile);
        if (nudged)
            run.nudged_phase(job, tile, tile);
    }
    return EQK_OK;
}

eqk_status EQK(pack)(const EQK(job) * job, int64_t part, int64_t parts) {
    PHASES run;
    CHECK(check_job(job));
    REQUIRE(parts > 0 && parts <= 1 << 20 && part >= 0 && part < parts, EQK_BAD_SIZE);
    REALS(job->parameters);
    CHECK(check_work(job));
    CHECK(choose_phases(job, &run));
    if (run.pack)
        run.pack(job, part, parts);
    return EQK_OK;
}

eqk_status EQK(free_phase)(const EQK(job) * job, int64_t first, int64_t last) { return phases(job, first, last, 1, 0); }
eqk_status EQK(nudged_phase)(const EQK(job) * job, int64_t first, int64_t last) { return phases(job, first, last, 0, 1); }
eqk_status EQK(settle)(const EQK(job) * job, int64_t first, int64_t last) { return phases(job, first, last, 1, 1); }

eqk_status EQK(update)(const EQK(job) * job, int64_t part, int64_t parts) {
    int64_t bytes;
    CHECK(check_job(job));
    REQUIRE(workspace_of(job) > 0, EQK_BAD_SIZE);
    CHECK(check_update(job));
    REQUIRE(parts > 0 && parts <= 1 << 20 && part >= 0 && part < parts, EQK_BAD_SIZE);
    bytes = update_work(job, parts);
    REQUIRE(bytes >= 0, EQK_BAD_SIZE);
    if (bytes) {
        REALS(job->work);
        REQUIRE(job->work_size >= (size_t)bytes, EQK_SMALL_WORKSPACE);
    }
    CHOOSE(job->variant);
    run->update(job, part, parts);
    return EQK_OK;
}
