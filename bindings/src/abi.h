/* The public functions of one type: they check every argument, then call the kernels of the variant. */
#include <float.h>
#include <math.h>

#include "check.h"

enum { CHAINS = 64 / sizeof(EQK_REAL), WIDTH = 2 * CHAINS };

static const KERNELS *kernels_of(int variant) {
    int best = eqk_best_variant();
    variant = variant == EQK_AUTO ? best : variant;
    if (variant > best)
        return 0;
#if EQK_HAS_X86
    if (variant == EQK_AVX512)
        return &AVX512;
    if (variant == EQK_AVX2)
        return &AVX2;
#endif
    return variant == EQK_SCALAR ? &SCALAR : 0;
}

#define CHOOSE(variant) \
    const KERNELS *run; \
    REQUIRE((variant) >= EQK_AUTO && (variant) <= EQK_AVX512, EQK_BAD_VALUE); \
    run = kernels_of(variant); \
    REQUIRE(run, EQK_NOT_SUPPORTED)
#define REALS(p) POINTER(p, EQK_REAL)

/* -- layered networks ---------------------------------------------------------------------------------------------- */

static int64_t rounded(int64_t n) { return (n + CHAINS - 1) / CHAINS * CHAINS; }

static eqk_status check_layers(const EQK(job) * job) {
    int64_t row = 0, last = job->count - 1;
    POINTER(job->layers, int64_t);
    REQUIRE(job->count >= 2 && job->count <= 1 << 20, EQK_BAD_SIZE);
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

#define CHECK(call) \
    do { \
        eqk_status status = call; \
        if (status) \
            return status; \
    } while (0)

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
            if (!entropy)
                total += 0.5 * (t - s) * (t - s);
            else if (t != 0 || s != s)
                total -= t * log(s > SMALLEST || s != s ? s : SMALLEST);
            most = output[i] > output[most] ? i : most;
        }
        *correct += most == label;
    }
    return total;
}

eqk_status EQK(train_step)(const EQK(job) * job, double *loss, int64_t *correct) {
    int64_t tiles, right;
    double total;
    CHECK(check_job(job));
    CHECK(check_phases(job, 0, 0));
    CHECK(check_nudge(job));
    CHECK(check_update(job));
    CHOOSE(job->variant);
    tiles = EQK(tiles)(job->batch);
    for (int64_t tile = 0; tile < tiles; tile++) {
        run->free_phase(job, tile);
        run->nudged_phase(job, tile);
    }
    total = total_loss(job, &right);
    if (loss)
        *loss = total / (double)job->batch;
    if (correct)
        *correct = right;
    REQUIRE(isfinite(total) && !diverged(job->report, tiles) && !diverged(job->report + tiles, tiles), EQK_DIVERGED);
    run->update(job, 0, 1);
    return EQK_OK;
}

#include "abi_conv.h"

/* -- verbs --------------------------------------------------------------------------------------------------------- */

size_t EQK(dense_workspace)(int64_t n_pre, int64_t n_post) {
    if (!fits(n_pre, n_post) || !fits3(n_pre + n_post, WIDTH, sizeof(EQK_REAL)))
        return 0;
    return (size_t)((n_pre + n_post) * WIDTH) * sizeof(EQK_REAL);
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
    REQUIRE(variant >= EQK_AUTO && variant <= EQK_AVX512, EQK_BAD_VALUE);
    REALS(energy);
    REALS(state);
    for (int64_t b = 0; b < batch; b++) {
        double total = 0;
        for (int64_t i = 0; i < n; i++)
            total += potential(state[b * n + i], neuron);
        energy[b] += (EQK_REAL)total;
    }
    return EQK_OK;
}

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
    return (size_t)((steps + 1) * 16 * stride + 32) * sizeof(EQK_REAL) + 64;
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
