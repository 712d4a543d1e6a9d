/* The fused settle of layered networks: a tile of samples goes through all steps of a phase without leaving the cache.
 *
 * Three moves, the same for every order and form, on one channel (see tiles.h) of one layer:
 *     refresh_up      up   = W s_below + b             (drives.h)
 *     refresh_down    down = gamma W^T s_above
 *     relax           s moves towards rho(up + down - adaptation + lateral + nudge), rho of neurons.h
 */

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

/* Until the news of the nudge has come to layer `from`, it is in the same state in channels + and -, and so is what it does
 * to its neighbour: then `section` (UP or DOWN) of `layer` is copied from + to -. The winners of a max pooling would have
 * to be the same too. */
static int is_copied(const tile *t, int64_t section, int64_t layer, int64_t from) {
    const eqk_layer *post = t->layers + (from < layer ? layer : from);
    size_t bytes = (size_t)elements(t, from) * sizeof(real);
    if (post->pool == EQK_MAX_POOL || memcmp(state_of(t, PLUS, from), state_of(t, MINUS, from), bytes))
        return 0;
    copy(piece(t, 3 * MINUS + section, layer), piece(t, 3 * PLUS + section, layer), elements(t, layer));
    return 1;
}

static void refresh(const tile *t, int form, int64_t layer, real gamma, int up, int down) {
    for (int64_t channel = first_channel(form); channel <= last_channel(form); channel++) {
        int biased = form <= RUN_STATES || channel == MEAN, follows = form == RUN_STATES && channel == MINUS;
        if (up && layer > 1 && !(follows && is_copied(t, UP, layer, layer - 1)))
            refresh_up(t, channel, layer, biased);
        if (down && layer < t->top && !(follows && is_copied(t, DOWN, layer, layer + 1)))
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
        unit /= form <= RUN_STATES ? (beta < 0 ? -beta : beta) : beta + beta;
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
