/* The phases of a batch: what is brought into a tile before it settles (chain.h), and what is written out of it after. */

/* Whether the first step of a channel refreshes a section of a layer before it reads it, so that what stands there does
 * not matter. Of half-sweeps the first goes up in the free phase, down under a nudge, and reads the other drive. */
INLINE int is_refreshed(const tile *t, int64_t channel, int64_t section, int64_t layer, int order) {
    int up = section == UP && layer > (channel == FREE ? 0 : 1) && layer <= t->top, down = section == DOWN && layer < t->top;
    return order != EQK_SWEEP ? up || down : channel == FREE ? up : down;
}

/* A channel's states and drives become those of the free phase, or zero with `at_rest`. */
static void set_channel(const tile *t, int64_t channel, int order, int at_rest) {
    size_t currents = (size_t)(current_rows(t->layers, t->last + 1) * t->lanes) * sizeof(real);
    for (int64_t section = STATE; section <= DOWN; section++)
        for (int64_t layer = 1; layer <= t->last; layer++) {
            real *place = piece(t, 3 * channel + section, layer);
            size_t bytes = (size_t)(rounded(size_of(t, layer)) * t->lanes) * sizeof(real);
            if (is_refreshed(t, channel, section, layer, order))
                continue;
            if (at_rest)
                memset(place, 0, bytes);
            else
                memcpy(place, piece(t, 3 * FREE + section, layer), bytes);
        }
    if (at_rest)
        memset(current_of(t, channel, 1), 0, currents);
    else
        memcpy(current_of(t, channel, 1), current_of(t, FREE, 1), currents);
}
static void clear(const tile *t, int64_t channel, int order) { set_channel(t, channel, order, 1); }
static void copy_free(const tile *t, int64_t channel, int order) { set_channel(t, channel, order, 0); }

/* Channels as they are at the start of a nudged phase, from the free state in channel 0. */
static void set_out(const tile *t, int form, int order) {
    aim(t, FREE);
    for (int64_t layer = 1; layer <= t->last; layer++)
        if (t->layers[layer].pool == EQK_MAX_POOL) {
            conv_place c = conv_at(t, layer);
            copy(c.winners + MEAN * c.section, c.winners, c.section);
            copy(c.winners + DIFFERENCE * c.section, c.winners, c.section);
        }
    if (form == RUN_STATES)
        copy_free(t, MINUS, order);
    else
        clear(t, DIFFERENCE, order);
    if (form != RUN_DIFFERENCE) {
        copy_free(t, MEAN, order);
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
static void store_rows(const tile *t, int64_t section, real *out, int64_t batch) {
    for (int64_t layer = 1; layer <= t->last; layer++) {
        int64_t n = size_of(t, layer);
        real *place = out + batch * t->layers[layer].row + t->first * n;
        if (t->lanes == 1)
            copy(place, piece(t, section, layer), n);
        else
            transpose(place, n, piece(t, section, layer), t->lanes, n, t->samples);
    }
}

/* Whether the mean is the state that chose the winners, so that they are noted for the update: the free state, after a
 * half-sweep upwards. */
INLINE int notes_winners(const JOB *job) {
    const eqk_schedule *s = &job->schedule;
    return job->winners && s->order == EQK_SWEEP && s->free_steps % 2 == 1 && s->tolerance == 0 && s->form == EQK_DIFFERENCE;
}

static void store_winners(const tile *t, const JOB *job) {
    for (int64_t layer = 1; layer <= t->last; layer++)
        if (t->layers[layer].pool == EQK_MAX_POOL) {
            int64_t n = size_of(t, layer);
            real *place = job->winners + job->batch * t->layers[layer].row + t->first * n;
            transpose(place, n, conv_at(t, layer).winners, t->lanes, n, t->samples);
        }
}

static void load_target(const tile *t, const JOB *job) {
    int64_t n = size_of(t, t->last), lanes = t->lanes;
    real *target = target_of(t);
    if (job->target) {
        load_rows(target, lanes, job->target, t->first, t->samples, n);
        return;
    }
    memset(target, 0, (size_t)(n * lanes) * sizeof *target);
    for (int64_t b = 0; b < lanes; b++)
        target[job->labels[t->first + (b < t->samples ? b : t->samples - 1)] * lanes + b] = 1;
}

/* Tile `index` of a job, in the `place`-th piece of its memory, which begins at a line of cache. */
static tile tile_at(const JOB *job, int64_t index, int64_t place) {
    int64_t last = job->count - 1, width = width_of(job->layers, job->count, CHAINS), first = index * width;
    int64_t samples = job->batch - first < width ? job->batch - first : width;
    real *begin = (real *)(((uintptr_t)job->work + 63) / 64 * 64), *packed = begin;
    begin += SPLIT ? packed_before(job->layers, job->count) : 0;
    tile t = {job->layers, last, top_of(job->layers, job->count), job->parameters,
              begin + place * tile_size(job->layers, job->count, width), lanes_for(samples),
              section_rows(job->layers, job->count), packed, first, samples};
    return t;
}

static void free_phase(const JOB *job, int64_t index, int64_t place) {
    tile t = tile_at(job, index, place);
    pack(&t, (real)job->schedule.gamma);
    load_rows(t.memory, t.lanes, job->x, t.first, t.samples, size_of(&t, 0));
    clear(&t, FREE, job->schedule.order);
    refresh_up(&t, FREE, 1, 1);
    job->report[index] = settle(&t, &job->schedule, RUN_FREE, 0);
    if (t.top < t.last)
        read_out(&t, FREE);
    store_rows(&t, 3 * FREE + STATE, job->state, job->batch);
}

/* The nudged phase of a tile whose free phase is done, in the same place. */
static void nudged_phase(const JOB *job, int64_t index, int64_t place) {
    tile t = tile_at(job, index, place);
    pack(&t, (real)job->schedule.gamma);
    load_target(&t, job);
    set_out(&t, job->schedule.form, job->schedule.order);
    job->report[tiles_of(job->layers, job->count, job->batch, CHAINS) + index] =
        settle(&t, &job->schedule, job->schedule.form, (real)job->beta);
    finish(&t, job->schedule.form, (real)job->beta);
    store_rows(&t, 3 * MEAN + STATE, job->mean, job->batch);
    store_rows(&t, 3 * DIFFERENCE + STATE, job->difference, job->batch);
    if (notes_winners(job))
        store_winners(&t, job);
}
