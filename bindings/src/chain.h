/* The fused settle of layered networks: a tile of samples goes through all steps of a phase without leaving the cache.
 *
 * Three moves, the same for every order and form, on one channel (see tiles.h) of one layer:
 *     refresh_up      up   = W s_below + b
 *     refresh_down    down = gamma W^T s_above
 *     relax           s moves towards rho(up + down - adaptation + lateral + nudge), rho of neurons.h
 */

/* Whether a layer's state is zero, as all are where a phase begins; looks no further than the first block that is not.
 * What a layer at rest does to others is zero and need not be computed. */
static int at_rest(const tile *t, int64_t channel, int64_t layer) {
    const real *state = state_of(t, channel, layer);
    int64_t n = elements(t, layer), block = 64;
    for (int64_t i = 0; i < n; i += block) {
        int moved = 0;
        for (int64_t k = i; k < n && k < i + block; k++)
            moved |= state[k] != 0; /* NaN has moved */
        if (moved)
            return 0;
    }
    return 1;
}

/* Brings the weights of convolutions into the order of their kernels. */
static void pack(const tile *t, real gamma) {
    for (int64_t layer = 1; layer <= t->last; layer++)
        if (is_conv(t, layer)) {
            conv_place c = conv_at(t, layer);
            pack_up(&c.g, c.up, t->theta + t->layers[layer].weight, c.g.post_channels);
            if (layer > 1)
                pack_down(&c.g, c.down, t->theta + t->layers[layer].weight, gamma);
        }
}

/* up = W s_below + b, without b for a difference, whose max pooling has the winners of its mean. */
static void refresh_up(const tile *t, int64_t channel, int64_t layer, int biased) {
    int64_t n = size_of(t, layer), lanes = t->lanes, biases = biases_of(t->layers + layer);
    real *up = piece(t, 3 * channel + UP, layer);
    const real *bias = t->theta + t->layers[layer].bias;
    if (!biased && at_rest(t, channel, layer - 1)) {
        memset(up, 0, (size_t)(n * lanes) * sizeof *up);
        return;
    }
    if (is_conv(t, layer)) {
        conv_place c = conv_at(t, layer);
        real *winners = c.winners + (biased ? channel : MEAN) * c.section;
        up_through(&c.g, up, state_of(t, channel, layer - 1), biased ? bias : 0, c.up, winners, c.map, biased, lanes);
        return;
    }
    if (!biased)
        memset(up, 0, (size_t)(n * lanes) * sizeof *up);
    else
        for (int64_t first = 0; first < n; first += biases) /* a map's take turns */
            if (lanes == 1)
                copy(up + first, bias, biases);
            else
                for (int64_t i = 0; i < biases; i++)
                    for (int64_t b = 0; b < lanes; b += LANES)
                        v_store(up + (first + i) * lanes + b, v_set(bias[i]));
    weigh(t, up, layer, state_of(t, channel, layer - 1));
}

/* down = gamma W^T s_above; packed weights hold gamma already. */
static void refresh_down(const tile *t, int64_t channel, int64_t layer, real gamma, int biased) {
    real *down = piece(t, 3 * channel + DOWN, layer);
    if (at_rest(t, channel, layer + 1)) {
        memset(down, 0, (size_t)elements(t, layer) * sizeof *down);
        return;
    }
    if (is_conv(t, layer + 1)) {
        conv_place c = conv_at(t, layer + 1);
        down_through(&c.g, down, state_of(t, channel, layer + 1), c.down,
                     c.winners + (biased ? channel : MEAN) * c.section, c.map, t->lanes);
        return;
    }
    weigh_back(t, down, layer + 1, state_of(t, channel, layer + 1), gamma);
}

/* What is added to `up`: `down` itself, or section `out` = down - adaptation + lateral + nudge * nudge section. */
static const real *complete_drive(const tile *t, int64_t channel, int64_t layer, real nudge, int64_t out) {
    const real *down = piece(t, 3 * channel + DOWN, layer);
    int lateral = t->layers[layer].lateral >= 0, nudged = nudge != 0 && layer == t->top && !t->layers[layer].on_rate;
    int64_t n = elements(t, layer);
    real *total = piece(t, out, layer);
    if (!lateral && !nudged && !adapts(t, layer))
        return down;
    if (adapts(t, layer)) {
        combine(total, down, -(real)t->layers[layer].adaptation, current_of(t, channel, layer), n);
        down = total;
    }
    if (nudged)
        combine(total, down, nudge, piece(t, NUDGE, layer), n);
    else if (down != total)
        copy(total, down, n);
    if (lateral)
        weigh_lateral(t, total, layer, state_of(t, channel, layer));
    return total;
}

/* The softmax readout of a channel: its state in layer L = softmax(W s_top + b). */
static void read_out(const tile *t, int64_t channel) {
    refresh_up(t, channel, t->last, 1);
    softmax_rows(state_of(t, channel, t->last), piece(t, 3 * channel + UP, t->last), size_of(t, t->last), t->lanes);
}

/* The nudge at beta = 1 from a channel's own output: target - s, or W^T (target - p) below a readout. */
static void aim(const tile *t, int64_t channel) {
    real *error = piece(t, NUDGE, t->last);
    combine(error, target_of(t), -1, state_of(t, channel, t->last), elements(t, t->last));
    if (t->top < t->last)
        weigh_back(t, piece(t, NUDGE, t->top), t->last, error, 1);
}

/* The first and the last channel that settles. */
INLINE int64_t first_channel(int form) { return form == RUN_FREE ? FREE : form == RUN_DIFFERENCE ? DIFFERENCE : MEAN; }
INLINE int64_t last_channel(int form) { return form == RUN_FREE ? FREE : form == RUN_STATE ? PLUS : DIFFERENCE; }

static void refresh(const tile *t, int form, int64_t layer, real gamma, int up, int down) {
    for (int64_t channel = first_channel(form); channel <= last_channel(form); channel++) {
        int biased = form <= RUN_STATES || channel == MEAN;
        if (up && layer > 1)
            refresh_up(t, channel, layer, biased);
        if (down && layer < t->top)
            refresh_down(t, channel, layer, gamma, biased);
    }
}

INLINE real larger(real a, real b) { return a != a || a > b ? a : b; } /* NaN if either is */

/* state += gain * nudge, of a layer whose rate is nudged. Between two pushes by -gain and gain, relaxing towards a rate
 * moves the state towards that rate + gain * nudge. */
static void push(const tile *t, int64_t channel, int64_t layer, real gain) {
    real *state = state_of(t, channel, layer);
    if (t->layers[layer].on_rate && gain != 0)
        combine(state, state, gain, piece(t, NUDGE, layer), elements(t, layer));
}

/* tau da/dt = s - a, of a layer that adapts; gives back the largest change that this makes to a drive. */
static real adapt(const tile *t, int64_t channel, int64_t layer, real step) {
    const eqk_layer *l = t->layers + layer;
    if (!adapts(t, layer))
        return 0;
    return (real)l->adaptation * follow(current_of(t, channel, layer), state_of(t, channel, layer), elements(t, layer),
                                        step * (real)(1 / l->tau));
}

/* Relaxes one layer in every channel that settles; gives back the largest change. */
static real relax(const tile *t, int form, int64_t layer, real beta, real step, int live) {
    int neuron = (int)t->layers[layer].neuron;
    int64_t n = elements(t, layer);
    real largest = 0;
    if (form <= RUN_STATES) {
        for (int64_t channel = first_channel(form); channel <= last_channel(form); channel++) {
            if (live && layer == t->top) {
                if (t->top < t->last)
                    read_out(t, channel);
                aim(t, channel);
            }
            const real nudge = channel == MINUS ? -beta : beta, *more = complete_drive(t, channel, layer, nudge, DRIVE);
            real *state = state_of(t, channel, layer);
            push(t, channel, layer, -nudge);
            largest = larger(
                relax_towards(state, piece(t, 3 * channel + UP, layer), more, n, step, neuron), largest);
            push(t, channel, layer, nudge);
            largest = larger(adapt(t, channel, layer, step), largest);
        }
        return largest;
    }
    const real *drive = piece(t, 3 * DIFFERENCE + UP, layer), *mean = piece(t, 3 * MEAN + UP, layer);
    const real *more = complete_drive(t, DIFFERENCE, layer, beta + beta, OTHER_DRIVE);
    if (form == RUN_MEAN_DIFFERENCE) {
        const real *rest = complete_drive(t, MEAN, layer, 0, DRIVE);
        real *whole = piece(t, DRIVE, layer);
        combine(whole, mean, 1, rest, n);
        mean = whole;
        largest = relax_mean(state_of(t, MEAN, layer), mean, drive, more, n, step, neuron);
        largest = larger(adapt(t, MEAN, layer, step), largest);
    }
    push(t, DIFFERENCE, layer, -beta - beta);
    largest = larger(relax_difference(state_of(t, DIFFERENCE, layer), mean, drive, more, n, step, neuron), largest);
    push(t, DIFFERENCE, layer, beta + beta);
    return larger(adapt(t, DIFFERENCE, layer, step), largest);
}

/* The i-th layer of a step, i = 1..top. */
static int64_t visited(int order, int64_t i, int64_t top, int form, int forward) {
    if (order == EQK_EVEN_ODD) { /* the free phase begins at the input's side, the nudged one at the cost's */
        int64_t first = form == RUN_FREE || top % 2 == 1 ? 1 : 2, count = (top - first) / 2 + 1;
        return i <= count ? first + 2 * (i - 1) : 3 - first + 2 * (i - 1 - count);
    }
    return forward ? i : top + 1 - i;
}

/* Steps until the residual falls below the tolerance or they run out. The residual is the largest change of a state in
 * one step; under a nudge it is counted in units of beta. */
static eqk_report settle(const tile *t, const eqk_schedule *plan, int form, real beta) {
    int64_t steps = form == RUN_FREE ? plan->free_steps : plan->nudged_steps, taken = 0;
    real gamma = (real)plan->gamma, step = (real)plan->step, tolerance = (real)plan->tolerance;
    real unit = 1, residual = 0, early = 0;
    int live = form != RUN_FREE && plan->nudge == EQK_LIVE;
    if (form != RUN_FREE)
        unit /= form == RUN_STATE ? (beta < 0 ? -beta : beta) : beta + beta;
    while (taken < steps) {
        real largest = 0;
        int forward = plan->order == EQK_SWEEP ? (taken % 2 == 0) == (form == RUN_FREE) : 1;
        /* Synchronous order refreshes every drive before any state moves; the others go layer by layer. */
        for (int half = 0; half < (plan->order == EQK_SYNCHRONOUS ? 2 : 1); half++)
            for (int64_t i = 1; i <= t->top; i++) {
                int64_t layer = visited(plan->order, i, t->top, form, forward);
                /* Half-sweeps: forward over layers 2..top, backward over top-1..1. The first takes every layer, and so
                 * does each for a layer whose own state drives it, by lateral connections or adaptation. */
                int still = plan->order == EQK_SWEEP && layer == (forward ? 1 : t->top);
                if (still && taken > 0 && t->layers[layer].lateral < 0 && !adapts(t, layer))
                    continue;
                if (half == 0) {
                    int sweep = plan->order == EQK_SWEEP;
                    refresh(t, form, layer, gamma, !sweep || forward, !sweep || !forward);
                }
                if (half == 1 || plan->order != EQK_SYNCHRONOUS)
                    largest = larger(relax(t, form, layer, beta, step, live), largest);
            }
        residual = unit * largest;
        if (2 * taken < steps)
            early = larger(residual, early);
        taken++;
        if (residual < tolerance)
            break;
    }
    return (eqk_report){(double)taken, (double)residual, (double)early};
}

/* Bytes of a channel's states and drives, and of its adaptation currents. */
INLINE size_t channel_bytes(const tile *t) { return (size_t)(3 * t->rows * t->lanes) * sizeof(real); }
INLINE size_t current_bytes(const tile *t) {
    return (size_t)(current_rows(t->layers, t->last + 1) * t->lanes) * sizeof(real);
}

static void clear(const tile *t, int64_t channel) {
    memset(piece(t, 3 * channel, 1), 0, channel_bytes(t));
    memset(current_of(t, channel, 1), 0, current_bytes(t));
}

static void copy_free(const tile *t, int64_t channel) {
    memcpy(piece(t, 3 * channel, 1), piece(t, 3 * FREE, 1), channel_bytes(t));
    memcpy(current_of(t, channel, 1), current_of(t, FREE, 1), current_bytes(t));
}

/* Channels as they are at the start of a nudged phase, from the free state in channel 0. */
static void set_out(const tile *t, int form) {
    aim(t, FREE);
    clear(t, DIFFERENCE);
    for (int64_t layer = 1; layer <= t->last; layer++)
        if (t->layers[layer].pool == EQK_MAX_POOL) {
            conv_place c = conv_at(t, layer);
            copy(c.winners + MEAN * c.section, c.winners, c.section);
            copy(c.winners + DIFFERENCE * c.section, c.winners, c.section);
        }
    if (form != RUN_DIFFERENCE) {
        copy_free(t, MEAN);
        if (form == RUN_STATES)
            copy_free(t, MINUS);
        return;
    }
    for (int64_t layer = 1; layer <= t->last; layer++) {
        /* The mean drive stays that of the free state, all of it, kept in the mean channel's `up`. */
        const real *rest = complete_drive(t, FREE, layer, 0, DRIVE);
        combine(piece(t, 3 * MEAN + UP, layer), piece(t, 3 * FREE + UP, layer), 1, rest, elements(t, layer));
    }
}

/* Leaves in every form the same result: mean m = (s+ + s-)/2 and difference d = (s+ - s-)/(2 beta) of each layer.
 * A softmax readout, which takes no part in the dynamics, gets the free p and the error target - p. */
static void finish(const tile *t, int form, real beta) {
    const real half = (real)0.5;
    for (int64_t layer = 1; layer <= t->last; layer++) {
        real *mean = state_of(t, MEAN, layer), *difference = state_of(t, DIFFERENCE, layer);
        const real *free = state_of(t, FREE, layer);
        int64_t n = elements(t, layer);
        if (layer == t->last && layer > t->top) {
            copy(mean, free, n);
            combine(difference, target_of(t), -1, free, n); /* a live nudge has moved the nudge section */
            continue;
        }
        for (int64_t i = 0; i < n; i += LANES) {
            int64_t some = n - i;
            vec s = v_load_some(free + i, some), m = v_load_some(mean + i, some), d = v_load_some(difference + i, some);
            if (form == RUN_STATE) {
                d = v_div(v_sub(m, s), v_set(beta));
                m = v_mul(v_set(half), v_add(m, s));
            } else if (form == RUN_STATES) {
                vec plus = m, minus = d;
                m = v_mul(v_set(half), v_add(plus, minus));
                d = v_div(v_mul(v_set(half), v_sub(plus, minus)), v_set(beta));
            } else {
                m = form == RUN_DIFFERENCE ? s : m;
                d = v_mul(d, v_set(half / beta));
            }
            v_store_some(mean + i, m, some);
            v_store_some(difference + i, d, some);
        }
    }
}

/* Puts samples first.. of source (B, n) into rows of a tile; spare lanes repeat the last sample: a repeated sample
 * settles as its original does, so spare lanes change neither a residual nor an early stop. */
static void load_rows(real *out, int64_t lanes, const real *source, int64_t first, int64_t count, int64_t n) {
    if (lanes == 1) {
        copy(out, source + first * n, n);
        return;
    }
    transpose(out, lanes, source + first * n, n, count, n);
    for (int64_t i = 0; count < lanes && i < n; i++)
        for (int64_t b = count; b < lanes; b++)
            out[i * lanes + b] = out[i * lanes + count - 1];
}

/* Writes a section's layers 1..L as blocks (B, n_l) of `out`, one after the other. */
static void store_rows(const tile *t, int64_t section, real *out, int64_t batch, int64_t first, int64_t count) {
    for (int64_t layer = 1; layer <= t->last; layer++) {
        int64_t n = size_of(t, layer);
        real *place = out + batch * t->layers[layer].row + first * n;
        if (t->lanes == 1)
            copy(place, piece(t, section, layer), n);
        else
            transpose(place, n, piece(t, section, layer), t->lanes, n, count);
    }
}

static void load_target(const tile *t, const JOB *job, int64_t first, int64_t count) {
    int64_t n = size_of(t, t->last), lanes = t->lanes;
    real *target = target_of(t);
    if (job->target) {
        load_rows(target, lanes, job->target, first, count, n);
        return;
    }
    memset(target, 0, (size_t)(n * lanes) * sizeof *target);
    for (int64_t b = 0; b < lanes; b++)
        target[job->labels[first + (b < count ? b : count - 1)] * lanes + b] = 1;
}

/* The tile of samples first.. of a job, whose memory begins at a line of cache. */
static tile tile_at(const JOB *job, int64_t first, int64_t samples) {
    int64_t last = job->count - 1, width = tile_width(job);
    real *begin = (real *)(((uintptr_t)job->work + 63) / 64 * 64), *packed = begin;
    begin += SPLIT ? packed_before(job->layers, job->count) : 0;
    tile t = {job->layers, last, job->layers[last].neuron == EQK_SOFTMAX ? last - 1 : last, job->parameters,
              begin + first / width * tile_size(job->layers, job->count, width), lanes_for(samples),
              section_rows(job->layers, job->count), packed};
    return t;
}

static eqk_report free_tile(const JOB *job, int64_t first, int64_t count) {
    tile t = tile_at(job, first, count);
    eqk_report report;
    pack(&t, (real)job->schedule.gamma);
    load_rows(t.memory, t.lanes, job->x, first, count, size_of(&t, 0));
    clear(&t, FREE);
    refresh_up(&t, FREE, 1, 1);
    report = settle(&t, &job->schedule, RUN_FREE, 0);
    if (t.top < t.last)
        read_out(&t, FREE);
    store_rows(&t, 3 * FREE + STATE, job->state, job->batch, first, count);
    return report;
}

/* The nudged phase of a tile whose free phase is done. */
static eqk_report nudged_tile(const JOB *job, int64_t first, int64_t count) {
    tile t = tile_at(job, first, count);
    eqk_report report;
    pack(&t, (real)job->schedule.gamma);
    load_target(&t, job, first, count);
    set_out(&t, job->schedule.form);
    report = settle(&t, &job->schedule, job->schedule.form, (real)job->beta);
    finish(&t, job->schedule.form, (real)job->beta);
    store_rows(&t, 3 * MEAN + STATE, job->mean, job->batch, first, count);
    store_rows(&t, 3 * DIFFERENCE + STATE, job->difference, job->batch, first, count);
    return report;
}

INLINE double larger_of(double a, double b) { return a != a || a > b ? a : b; }

/* A phase of WIDTH samples, in as many tiles as they take; the report is that of the slowest. */
INLINE eqk_report phase_of(const JOB *job, int64_t index, eqk_report (*phase)(const JOB *, int64_t, int64_t)) {
    int64_t begin = index * WIDTH, end = begin + WIDTH < job->batch ? begin + WIDTH : job->batch, width = tile_width(job);
    eqk_report slowest = {0, 0, 0};
    for (int64_t first = begin; first < end; first += width) {
        eqk_report r = phase(job, first, end - first < width ? end - first : width);
        slowest.steps = larger_of(r.steps, slowest.steps);
        slowest.residual = larger_of(r.residual, slowest.residual);
        slowest.early = larger_of(r.early, slowest.early);
    }
    return slowest;
}

static void free_phase(const JOB *job, int64_t index) { job->report[index] = phase_of(job, index, free_tile); }

static void nudged_phase(const JOB *job, int64_t index) {
    job->report[(job->batch + WIDTH - 1) / WIDTH + index] = phase_of(job, index, nudged_tile);
}
